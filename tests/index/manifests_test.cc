#include "index/manifests.h"

#include <algorithm>
#include <set>

#include "base/crc32c.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr absl::Time kNoon = absl::UnixEpoch();

Cid Numbered(uint64_t n) { return ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan(fmt::format("cid {}", n)))); }

std::vector<Cid> Cids(uint64_t count) {
  std::vector<Cid> cids;
  for (uint64_t n = 0; n < count; ++n) cids.push_back(Numbered(n));
  return cids;
}

// A store of manifests over a memory Kv.
struct Fixture {
  std::unique_ptr<Kv> kv = NewMemoryKv();
  Manifests manifests{*kv};

  void Add(const ManifestId& id, std::span<const Cid> cids, absl::Time created = kNoon) {
    KvBatch batch;
    REQUIRE_STATUS_OK(manifests.Add(batch, id, cids, created));
    REQUIRE_STATUS_OK(kv->Commit(batch, true));
  }
  std::vector<Cid> All(const ManifestId& id, size_t limit) {
    std::vector<Cid> all;
    Cid after;
    do {
      const ManifestPage page = ValueOf(manifests.Get(id, after, limit));
      REQUIRE_LE(page.cids.size(), limit);
      all.insert(all.end(), page.cids.begin(), page.cids.end());
      after = page.next_after;
    } while (!after.empty());
    return all;
  }
  // Every stored key with its value.
  std::vector<std::pair<std::string, std::string>> Stored() {
    std::vector<std::pair<std::string, std::string>> all;
    for (auto cursor = kv->Scan(KvTable::kManifests); cursor->Valid(); cursor->Next())
      all.emplace_back(cursor->key(), cursor->value());
    return all;
  }
  void Put(const std::string& key, const std::string& value) {
    KvBatch batch;
    batch.Put(KvTable::kManifests, key, value);
    REQUIRE_STATUS_OK(kv->Commit(batch, true));
  }
};

}  // namespace

TEST_CASE("manifests: what is added comes back sorted, each CID once, in pages of any size") {
  Fixture f;
  const ManifestId id{"shard", "kept", 3};
  std::vector<Cid> cids = Cids(5000);  // three chunks
  cids.push_back(cids[17]);
  f.Add(id, cids, absl::FromUnixMicros(1'700'000'000'123'456));
  std::set<Cid> wanted(cids.begin(), cids.end());
  const std::vector<Cid> sorted(wanted.begin(), wanted.end());
  for (const size_t limit : {1, 7, 1234, 4999, 5000, 5001}) CHECK(f.All(id, limit) == sorted);

  const ManifestStat stat = ValueOf(f.manifests.Stat(id));
  CHECK_EQ(stat.entries, 5000);
  CHECK_EQ(stat.bytes, 5000 * 36);
  CHECK_EQ(absl::ToUnixMicros(stat.created), 1'700'000'000'123'456);
  CHECK_EQ(f.Stored().size(), 1 + (5000 * 37 + 65'522) / 65'523);
  for (const auto& [key, value] : f.Stored()) CHECK_LE(value.size(), kManifestChunkBytesMax);
}

TEST_CASE("manifests: contains says yes to every CID of the set and to no other") {
  Fixture f;
  const ManifestId id{"shard", "kept", 1};
  const std::vector<Cid> cids = Cids(4000);
  f.Add(id, std::span(cids).first(3900));
  for (size_t n = 0; n < cids.size(); ++n) CHECK_EQ(ValueOf(f.manifests.Contains(id, cids[n])), n < 3900);
  CHECK_CODE(f.manifests.Contains({"shard", "kept", 2}, cids[0]), kNotFound);
  CHECK_CODE(f.manifests.Contains(id, Cid()), kInvalidArgument);
}

TEST_CASE("manifests: an empty set is a manifest") {
  Fixture f;
  const ManifestId id{"shard", "", 0};
  CHECK_CODE(f.manifests.Stat(id), kNotFound);
  CHECK_CODE(f.manifests.Get(id, Cid(), 10), kNotFound);
  f.Add(id, {});
  CHECK_EQ(ValueOf(f.manifests.Stat(id)).entries, 0);
  CHECK(ValueOf(f.manifests.Get(id, Cid(), 10)).cids.empty());
  CHECK_CODE(f.manifests.Get(id, Cid(), 0), kInvalidArgument);
  CHECK_EQ(ValueOf(f.manifests.List("shard", std::nullopt, nullptr, 10)).size(), 1);
}

TEST_CASE("manifests: adding again replaces the set, in one batch and on every kind of Kv") {
  TempDir dir;
  const auto rocks = ValueOf(OpenRocksKv(dir.File("kv"), {}));
  Fixture memory;
  for (Kv* kv : {memory.kv.get(), rocks.get()}) {
    const Manifests manifests(*kv);
    const ManifestId id{"shard", "kept", 1};
    const std::vector<Cid> cids = Cids(4000);
    KvBatch batch;
    REQUIRE_STATUS_OK(manifests.Add(batch, id, cids, kNoon));
    REQUIRE_STATUS_OK(manifests.Add(batch, id, std::span(cids).first(3), kNoon));
    REQUIRE_STATUS_OK(kv->Commit(batch, true));
    CHECK_EQ(ValueOf(manifests.Stat(id)).entries, 3);
    CHECK_EQ(ValueOf(manifests.Get(id, Cid(), 10)).cids.size(), 3);
    CHECK_FALSE(ValueOf(manifests.Contains(id, cids[3])));
  }
}

TEST_CASE("manifests: a list has the newest version of each rule first, and goes on after the last seen") {
  Fixture f;
  for (const uint64_t version : {uint64_t{1}, uint64_t{256}, uint64_t{2}, ~uint64_t{0}}) {
    f.Add({"s", "kept", version}, Cids(version % 7));
    f.Add({"s", "pinned", version}, {});
  }
  f.Add({"s2", "kept", 9}, {});
  f.Add({"other", "kept", 9}, {});
  const auto kept = ValueOf(f.manifests.List("s", "kept", nullptr, 10));
  REQUIRE_EQ(kept.size(), 4);
  CHECK_EQ(kept[0].version, ~uint64_t{0});
  CHECK_EQ(kept[1].version, 256);
  CHECK_EQ(kept[2].version, 2);
  CHECK_EQ(kept[3].version, 1);
  CHECK_EQ(kept[1].stat.entries, 256 % 7);

  std::vector<std::string> seen;
  ManifestInfo last;
  while (true) {
    const auto page = ValueOf(f.manifests.List("s", std::nullopt, seen.empty() ? nullptr : &last, 3));
    if (page.empty()) break;
    for (const ManifestInfo& info : page) seen.push_back(fmt::format("{} {}", info.rule, info.version));
    last = page.back();
  }
  CHECK_EQ(seen, std::vector<std::string>{"kept 18446744073709551615", "kept 256", "kept 2", "kept 1",
                                          "pinned 18446744073709551615", "pinned 256", "pinned 2", "pinned 1"});
  CHECK(ValueOf(f.manifests.List("s", "no such rule", nullptr, 10)).empty());
}

TEST_CASE("manifests: drop takes one manifest, drop shard all of one shard and nothing of its neighbours") {
  Fixture f;
  const std::string zeros("\0\0", 2);
  const std::vector<std::string> shards = {"a", "ab", "b", zeros, zeros + "s", "as"};
  const std::vector<Cid> cids = Cids(10);
  for (const std::string& shard : shards) {
    for (const std::string& rule : {std::string(), zeros, std::string("s")}) f.Add({shard, rule, 1}, cids);
  }
  KvBatch one;
  CHECK_STATUS_OK(f.manifests.Drop(one, {"a", "s", 1}));
  CHECK_STATUS_OK(f.manifests.Drop(one, {"a", "not there", 1}));
  REQUIRE_STATUS_OK(f.kv->Commit(one, true));
  CHECK_CODE(f.manifests.Stat({"a", "s", 1}), kNotFound);
  CHECK_EQ(f.All({"a", zeros, 1}, 100).size(), 10);

  KvBatch whole;
  CHECK_STATUS_OK(f.manifests.DropShard(whole, zeros));
  REQUIRE_STATUS_OK(f.kv->Commit(whole, true));
  size_t left = 0;
  for (const std::string& shard : shards) {
    const size_t count = ValueOf(f.manifests.List(shard, std::nullopt, nullptr, 100)).size();
    CHECK_EQ(count, shard == zeros ? 0u : shard == "a" ? 2u : 3u);
    left += count;
  }
  CHECK_EQ(f.Stored().size(), 2 * left);  // a stat and a chunk each: nothing of the dropped ones remains
}

TEST_CASE("manifests: the stored bytes are these") {
  Fixture f;
  const std::vector<Cid> cids = {Cid::V1(kCodecRaw, {kIdentity, AsSpan("b")}),
                                 Cid::V1(kCodecRaw, {kIdentity, AsSpan("a")})};
  f.Add({std::string("k\0", 2), "rule", 5}, cids, absl::FromUnixMicros(0x0102));
  const auto stored = f.Stored();
  REQUIRE_EQ(stored.size(), 2);
  CHECK_EQ(ToHex(AsSpan(stored[0].first)), "026b00" "63" "0472756c65" "fffffffffffffffa" "0155000162");
  CHECK_EQ(ToHex(AsSpan(stored[0].second)), "01" "0000000000000000" "050155000161" "050155000162" "e6f63a13");
  CHECK_EQ(ToHex(AsSpan(stored[1].first)), "026b00" "73" "0472756c65" "fffffffffffffffa");
  CHECK_EQ(ToHex(AsSpan(stored[1].second)), "01" "0200000000000000" "0a00000000000000" "0201000000000000" "1dbb4571");
}

TEST_CASE("manifests: any damaged byte or lost chunk is data loss") {
  Fixture f;
  const ManifestId id{"shard", "kept", 1};
  const std::vector<Cid> cids = Cids(4000);
  f.Add(id, cids);
  const auto stored = f.Stored();
  REQUIRE_EQ(stored.size(), 4);
  for (const auto& [key, value] : stored) {
    for (const size_t at : {size_t{0}, size_t{5}, value.size() / 2, value.size() - 1}) {
      std::string damaged = value;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      f.Put(key, damaged);
      CHECK_CODE(f.manifests.Get(id, Cid(), 10'000), kDataLoss);
    }
    for (const size_t size : {size_t{0}, size_t{4}, value.size() - 1}) {
      f.Put(key, value.substr(0, size));
      CHECK_CODE(f.manifests.Get(id, Cid(), 10'000), kDataLoss);
    }
    f.Put(key, value);
  }
  CHECK_EQ(f.All(id, 10'000).size(), 4000);
  // A value under another's key; then each chunk lost.
  f.Put(stored[0].first, stored[1].second);
  CHECK_CODE(f.manifests.Get(id, Cid(), 10'000), kDataLoss);
  f.Put(stored[0].first, stored[0].second);
  for (size_t i = 0; i < 3; ++i) {
    KvBatch lost;
    lost.Delete(KvTable::kManifests, stored[i].first);
    REQUIRE_STATUS_OK(f.kv->Commit(lost, true));
    CHECK_CODE(f.manifests.Get(id, Cid(), 10'000), kDataLoss);
    f.Put(stored[i].first, stored[i].second);
  }
}

TEST_CASE("manifests: limits are errors that leave the batch alone") {
  Fixture f;
  KvBatch batch;
  const std::vector<Cid> cids = Cids(3);
  CHECK_CODE(f.manifests.Add(batch, {"", "r", 1}, cids, kNoon), kInvalidArgument);
  CHECK_CODE(f.manifests.Add(batch, {"s", std::string(257, 'r'), 1}, cids, kNoon), kInvalidArgument);
  CHECK_CODE(f.manifests.Add(batch, {std::string(kManifestShardBytesMax + 1, 's'), "r", 1}, cids, kNoon),
             kInvalidArgument);
  CHECK_CODE(f.manifests.Add(batch, {"s", "r", 1}, std::vector{cids[0], Cid()}, kNoon), kInvalidArgument);
  CHECK_CODE(Manifests(*f.kv, {.entries_max = 2}).Add(batch, {"s", "r", 1}, cids, kNoon), kResourceExhausted);
  CHECK_CODE(f.manifests.DropShard(batch, ""), kInvalidArgument);
  CHECK(batch.empty());
  CHECK_STATUS_OK(f.manifests.Add(batch, {"s", std::string(256, 'r'), 1}, cids, kNoon));
}

TEST_CASE("manifests: a newer format is not data loss") {
  Fixture f;
  const ManifestId id{"shard", "kept", 1};
  f.Add(id, {});
  auto [key, value] = f.Stored()[0];
  value.resize(value.size() - 4);
  value[0] = 2;
  Append32(value, Crc32c(Crc32c(AsSpan(key)), AsSpan(value)));
  f.Put(key, value);
  CHECK_CODE(f.manifests.Stat(id), kFailedPrecondition);
}

}  // namespace dagstore
