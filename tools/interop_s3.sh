#!/usr/bin/env bash
# interop_s3.sh [BUILD_FOLDER]: the dagstore command against moto, an S3 server in Python that checks each signature with
# the signer of AWS's own SDK. Needs python3 with venv, and its package registry; everything is in a folder of its own
# that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD
dagstore=$(realpath "${1:-build}")/tools/dagstore
[ -x "$dagstore" ] || { echo "no command at $dagstore: build first" >&2; exit 1; }
work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || { kill -9 "$server"; wait "$server"; } 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
python=${MOTO_PYTHON:-}
if [ -z "$python" ]; then
  python3 -m venv venv
  venv/bin/pip install -q 'moto[server,s3,iam]==5.0.28' boto3
  python=$work/venv/bin/python
fi
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
# The set-up makes 8 requests; from then on each must be signed.
INITIAL_NO_AUTH_ACTION_COUNT=8 "$python" -m moto.server -H 127.0.0.1 -p "$port" >server.log 2>&1 &
server=$!
listens() { (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
for _ in $(seq 200); do listens && break || sleep 0.1; done
read -r key_id secret < <("$python" "$source/tests/fakes/moto_setup.py" "$url" "$source/tests/data")

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
access_key_id = "$key_id"
secret_access_key = "$1"
TOML
  )
}
run() { timeout 60 "$dagstore" --repo "$work/repo" --config "$work/dagstore.toml" "$@"; }
fail() { echo "FAILED: $*" >&2; tail -20 server.log >&2; exit 1; }

config wrong-secret
if run add s3://cars/2023/other.car s3://cars/ 2>err; then fail "a wrong key was accepted"; fi
[ "$(grep -c 'answered 403' err)" = 2 ] || fail "a wrong key is forbidden: $(cat err)"
rm -rf "$work/repo"
config "$secret"
run add s3://cars/ || fail "add a bucket"
[ "$(run ls | wc -l)" = 3 ] || fail "three objects are CARs"
cid=bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e
[ "$(run get $cid | wc -c)" = 11 ] || fail "read a block"
[ "$(run find $cid | sort | head -1)" = s3://cars/2023/other.car ] || fail "find a block"
echo "moto: a bucket listed, CARs read, signatures accepted, a wrong key refused"
