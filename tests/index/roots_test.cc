#include "index/roots.h"

#include "base/kv.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

Cid Sha(uint64_t codec, std::string_view text) { return ValueOf(Cid::Of(codec, kSha2_256, AsSpan(text))); }

void Commit(Kv& kv, const KvBatch& batch) { REQUIRE_STATUS_OK(kv.Commit(batch, true)); }

std::vector<Ordinal> All(Kv& kv, const Cid& cid) { return ValueOf(ShardsWithRoot(kv, cid, 0, 1000)).ordinals; }

TEST_CASE("roots: a sweep removes the entries of dead ordinals and no others") {
  const std::unique_ptr<Kv> kv = NewMemoryKv();
  const Cid a = Sha(kCodecRaw, "a"), b = Sha(kCodecDagPb, "b");
  KvBatch batch;
  for (const Ordinal ordinal : {1u, 2u, 0x01000001u}) {
    CHECK_STATUS_OK(AppendRoots(batch, ordinal, std::vector<Cid>{a, b}));
  }
  CHECK_STATUS_OK(kv->Commit(batch, true));
  KvBatch sweep;
  CHECK_EQ(ValueOf(SweepRoots(*kv, [](Ordinal ordinal) { return ordinal == 1; }, sweep)), 2);
  CHECK_STATUS_OK(kv->Commit(sweep, true));
  const std::vector<Ordinal> left = {2, 0x01000001};
  CHECK(ValueOf(ShardsWithRoot(*kv, a, 0, 10)).ordinals == left);
  CHECK(ValueOf(ShardsWithRoot(*kv, b, 0, 10)).ordinals == left);
}

}  // namespace

TEST_CASE("roots: a root finds its shards in ascending order, until they are removed") {
  const auto kv = NewMemoryKv();
  const Cid a = Sha(kCodecDagPb, "a"), b = Sha(kCodecDagPb, "b");
  KvBatch batch;
  for (const Ordinal ordinal : {7u, 300u, 2u, 0xfffffffeu})
    CHECK_STATUS_OK(AppendRoots(batch, ordinal, std::vector{a}));
  CHECK_STATUS_OK(AppendRoots(batch, 9, std::vector{a, b, a}));
  Commit(*kv, batch);
  CHECK_EQ(All(*kv, a), std::vector<Ordinal>{2, 7, 9, 300, 0xfffffffe});
  CHECK_EQ(All(*kv, b), std::vector<Ordinal>{9});
  CHECK_EQ(All(*kv, Sha(kCodecDagPb, "c")), std::vector<Ordinal>{});

  KvBatch removal;
  CHECK_STATUS_OK(AppendRootsRemoval(removal, 9, std::vector{a, b}));
  Commit(*kv, removal);
  CHECK_EQ(All(*kv, a), std::vector<Ordinal>{2, 7, 300, 0xfffffffe});
  CHECK_EQ(All(*kv, b), std::vector<Ordinal>{});
}

TEST_CASE("roots: pages meet end to end, and the last one says so") {
  const auto kv = NewMemoryKv();
  const Cid root = Sha(kCodecRaw, "root");
  KvBatch batch;
  for (Ordinal ordinal = 1; ordinal <= 10; ++ordinal) CHECK_STATUS_OK(AppendRoots(batch, ordinal, std::vector{root}));
  CHECK_STATUS_OK(AppendRoots(batch, UINT32_MAX, std::vector{root}));
  Commit(*kv, batch);
  for (size_t limit = 1; limit <= 12; ++limit) {
    std::vector<Ordinal> seen;
    Ordinal after = 0;
    do {
      const RootsPage page = ValueOf(ShardsWithRoot(*kv, root, after, limit));
      CHECK_LE(page.ordinals.size(), limit);
      seen.insert(seen.end(), page.ordinals.begin(), page.ordinals.end());
      after = page.next_after;
    } while (after != 0);
    CHECK_EQ(seen, std::vector<Ordinal>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, UINT32_MAX});
  }
  CHECK_EQ(ValueOf(ShardsWithRoot(*kv, root, UINT32_MAX, 1)).ordinals.size(), 0);
  CHECK_CODE(ShardsWithRoot(*kv, root, 0, 0), kInvalidArgument);
}

TEST_CASE("roots: an identity CID is found, and is apart from CIDs that it begins") {
  const auto kv = NewMemoryKv();
  const Cid empty = Cid::V1(kCodecRaw, {kIdentity, {}});
  const Cid inlined = Cid::V1(kCodecRaw, {kIdentity, AsSpan(std::string_view("\0\0\0\1\0\0\0\2", 8))});
  KvBatch batch;
  CHECK_STATUS_OK(AppendRoots(batch, 1, std::vector{empty}));
  CHECK_STATUS_OK(AppendRoots(batch, 2, std::vector{inlined}));
  Commit(*kv, batch);
  CHECK_EQ(All(*kv, empty), std::vector<Ordinal>{1});
  CHECK_EQ(All(*kv, inlined), std::vector<Ordinal>{2});
}

TEST_CASE("roots: another codec or version of the same multihash is another root") {
  const auto kv = NewMemoryKv();
  const Cid v1 = Sha(kCodecDagPb, "x");
  const Cid v0 = Cid::V0(v1.hash().digest);
  KvBatch batch;
  CHECK_STATUS_OK(AppendRoots(batch, 1, std::vector{v0}));
  Commit(*kv, batch);
  CHECK_EQ(All(*kv, v0), std::vector<Ordinal>{1});
  CHECK_EQ(All(*kv, v1), std::vector<Ordinal>{});
  CHECK_EQ(All(*kv, Cid::V1(kCodecRaw, v1.hash())), std::vector<Ordinal>{});
}

TEST_CASE("roots: the key is the length, the CID and the ordinal") {
  const auto kv = NewMemoryKv();
  KvBatch batch;
  CHECK_STATUS_OK(AppendRoots(batch, 0x01020304, std::vector{Cid::V1(kCodecRaw, {kIdentity, AsSpan("hi")})}));
  REQUIRE_EQ(batch.changes().size(), 1);
  CHECK_EQ(ToHex(AsSpan(batch.changes()[0].key)), "0601550002686901020304");
  CHECK_EQ(batch.changes()[0].value, "");
}

TEST_CASE("roots: what is not a set of roots is refused and leaves the batch alone") {
  KvBatch batch;
  CHECK_CODE(AppendRoots(batch, 1, std::vector{Sha(kCodecRaw, "a"), Cid()}), kInvalidArgument);
  CHECK_CODE(AppendRootsRemoval(batch, 1, std::vector{Cid()}), kInvalidArgument);
  const std::vector<Cid> many(kRootsOfShardMax + 1, Sha(kCodecRaw, "a"));
  CHECK_CODE(AppendRoots(batch, 1, many), kFailedPrecondition);
  CHECK(batch.empty());
  const auto kv = NewMemoryKv();
  CHECK_CODE(ShardsWithRoot(*kv, Cid(), 0, 1), kInvalidArgument);
}

TEST_CASE("roots: a key that is not one of ours is data loss") {
  const auto kv = NewMemoryKv();
  const Cid root = Sha(kCodecRaw, "a");
  KvBatch batch;
  std::string key;
  AppendVarint(key, root.bytes().size());
  batch.Put(KvTable::kRoots, key + root.binary() + "12345", {});
  Commit(*kv, batch);
  CHECK_CODE(ShardsWithRoot(*kv, root, 0, 10), kDataLoss);
}

}  // namespace dagstore
