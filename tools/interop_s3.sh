#!/usr/bin/env bash
# interop_s3.sh [BUILD_FOLDER]: the dagstore command against s3rver, an S3 server in Node that checks SigV4 signatures.
# Needs npm, and its registry the first time; everything is in a folder of its own that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD
dagstore=$(realpath "${1:-build}")/tools/dagstore
[ -x "$dagstore" ] || { echo "no command at $dagstore: build first" >&2; exit 1; }
command -v npm >/dev/null || { echo "npm is needed" >&2; exit 1; }
work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
npm install --silent --no-audit --no-fund s3rver@3.7.1 >/dev/null
port=$(node -e 's=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
mkdir data
node_modules/.bin/s3rver -d data -a 127.0.0.1 -p "$port" --configure-bucket cars >server.log 2>&1 &
server=$!
url=http://127.0.0.1:$port
for _ in $(seq 100); do curl -s -o /dev/null --max-time 2 "$url" && break || sleep 0.1; done

put() {  # key file
  curl -sf --max-time 20 -o /dev/null --aws-sigv4 aws:amz:us-east-1:s3 --user S3RVER:S3RVER \
    -H "x-amz-content-sha256: $(sha256sum "$2" | cut -d' ' -f1)" -T "$2" "$url/cars/$1"
}
put 2024/hello.car "$source/tests/data/boxo/hello.car"
put 2024/deep/again.car "$source/tests/data/boxo/hello.car"
put 2023/other.car "$source/tests/data/boxo/hello.car"
put 2024/readme.txt "$source/README.md"

config() {  # secret
  cat >dagstore.toml <<TOML
credentials_file = "credentials.toml"
[network]
allow = ["127.0.0.1"]
[s3.default]
endpoint = "$url"
style = "path"
credential = "lab"
TOML
  rm -f credentials.toml
  (umask 077; cat >credentials.toml <<TOML
[lab]
kind = "aws"
origins = ["$url"]
access_key_id = "S3RVER"
secret_access_key = "$1"
TOML
  )
}
run() { timeout 60 "$dagstore" --repo "$work/repo" --config "$work/dagstore.toml" "$@"; }
fail() { echo "FAILED: $*" >&2; cat server.log >&2; exit 1; }

config S3RVER
run add s3://cars/2024/ || fail "add a prefix"
[ "$(run ls | wc -l)" = 2 ] || fail "two objects are CARs below the prefix"
cid=bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e
[ "$(run get $cid | wc -c)" = 11 ] || fail "read a block"
[ "$(run find $cid | sort | head -1)" = s3://cars/2024/deep/again.car ] || fail "find a block"
config wrong
if run add s3://cars/2023/ 2>err; then fail "a wrong key was accepted"; fi
grep -q 403 err || fail "a wrong key is forbidden: $(cat err)"
echo "s3rver: a prefix listed, signatures accepted, a wrong key refused"
