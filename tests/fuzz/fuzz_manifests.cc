// Any bytes as what the manifest table holds: keys and values, with the checksums of the values made right. And any
// bytes as a manifest that is stored and read again. Properties: reading ends with an answer or a typed error, a page
// is never larger than was asked for, and what was stored is what is read.
#include <algorithm>

#include "base/check.h"
#include "base/crc32c.h"
#include "index/manifests.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

const ManifestId kId = {"s", "r", 1};

// The first byte says how long the key is, the next which kind, the next two how long the value is.
std::unique_ptr<Kv> Table(Span input) {
  std::unique_ptr<Kv> kv = NewMemoryKv();
  KvBatch batch;
  while (input.size() > 4) {
    const size_t key_size = std::min<size_t>(input[0] % 64, input.size() - 4);
    const uint8_t kind = input[1];
    const Span after_key = input.subspan(4 + key_size);
    const size_t value_size = std::min<size_t>(input[2] | input[3] << 8, after_key.size());
    std::string key(AsText(input.subspan(4, key_size)));
    if (kind % 4 != 0) {  // a key of our manifest, as docs/format.md#manifests has it
      std::string prefix = std::string("\x01s") + (kind % 4 == 1 ? "s" : "c") + "\x01r";
      Append64Big(prefix, ~kId.version);
      key = prefix + (kind % 4 == 1 ? "" : key);
    }
    std::string value(AsText(after_key.first(value_size)));
    Append32(value, Crc32c(Crc32c(AsSpan(key)), AsSpan(value)));
    batch.Put(KvTable::kManifests, std::move(key), std::move(value));
    input = after_key.subspan(value_size);
  }
  DAGSTORE_CHECK_OK(kv->Commit(batch, true));
  return kv;
}

size_t ReadAll(const Manifests& manifests, size_t limit) {
  Cid after;
  size_t read = 0;
  for (int pages = 0; pages < 100; ++pages) {
    const auto page = manifests.Get(kId, after, limit);
    if (!page.ok()) return SIZE_MAX;
    DAGSTORE_CHECK(page->cids.size() <= limit);
    read += page->cids.size();
    after = page->next_after;
    if (after.empty()) break;
  }
  return read;
}

}  // namespace

void FuzzOne(Span input) {
  const auto kv = Table(input);
  const Manifests manifests(*kv);
  manifests.Stat(kId).status().IgnoreError();
  ReadAll(manifests, 3);
  ReadAll(manifests, 1000);
  const Cid probe = Cid::V1(kCodecRaw, {kSha2_256, input.first(std::min<size_t>(input.size(), 32))});
  manifests.Contains(kId, probe).status().IgnoreError();
  const auto all = manifests.List("s", std::nullopt, nullptr, 5);
  DAGSTORE_CHECK(!all.ok() || all->size() <= 5);
  manifests.List("s", "r", nullptr, 5).status().IgnoreError();

  std::vector<Cid> cids;
  for (size_t at = 0; at + 4 <= input.size() && cids.size() < 200; at += 4) {
    cids.push_back(Cid::V1(kCodecRaw, {kSha2_256, input.subspan(at, std::min<size_t>(input.size() - at, 20))}));
  }
  const auto clean = NewMemoryKv();
  const Manifests stored(*clean);
  KvBatch batch;
  DAGSTORE_CHECK_OK(stored.Add(batch, kId, cids, absl::FromUnixSeconds(1)));
  DAGSTORE_CHECK_OK(clean->Commit(batch, true));
  std::sort(cids.begin(), cids.end());
  cids.erase(std::unique(cids.begin(), cids.end()), cids.end());
  DAGSTORE_CHECK(ReadAll(stored, 7) == cids.size());
  for (const Cid& cid : cids) {
    const auto there = stored.Contains(kId, cid);
    DAGSTORE_CHECK(there.ok() && *there);
  }
}

}  // namespace dagstore
