// What every Kv must do. A new implementation is done when RunKvSuite passes; what only a disk can show (reopening,
// damage) is in tests/base/kv_test.cc.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/kv.h"
#include "tests/testing.h"

namespace dagstore {

using KvPairs = std::vector<std::pair<std::string, std::string>>;

inline KvPairs WalkKv(KvCursor& cursor) {
  KvPairs pairs;
  for (; cursor.Valid(); cursor.Next()) pairs.emplace_back(cursor.key(), cursor.value());
  CHECK_STATUS_OK(cursor.status());
  return pairs;
}

inline KvPairs ScanKv(Kv& kv, KvTable table, std::string_view from = {}, std::string_view prefix = {}) {
  return WalkKv(*kv.Scan(table, from, prefix));
}

inline std::vector<std::string> KeysOf(const KvPairs& pairs) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : pairs) keys.push_back(key);
  return keys;
}

inline KvBatch PutAll(KvTable table, const std::vector<std::string>& keys) {
  KvBatch batch;
  for (const std::string& key : keys) batch.Put(table, key, "value of " + key);
  return batch;
}

namespace kv_suite {

using namespace std::string_literals;
using Keys = std::vector<std::string>;

// In memcmp order; the empty key too.
inline const Keys& BinaryKeys() {
  static const Keys keys = {"",         "\0"s,  "\0\0"s,   "\0\xff"s,  "\x01",        "a",    "a\0"s,
                            "a\0b"s,    "aa",   "a\xff",   "a\xff\0"s, "b",           "\x7f", "\x80",
                            "\xfe\xff", "\xff", "\xff\0"s, "\xff\xff", "\xff\xff\xff"};
  return keys;
}

inline void GetsAndPuts(Kv& kv) {
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "k")), std::nullopt);
  KvBatch batch;
  batch.Put(KvTable::kRecords, "k", "v");
  batch.Put(KvTable::kRecords, "empty", "");
  batch.Put(KvTable::kRecords, "zeros\0"s, "\0\0"s);
  REQUIRE_STATUS_OK(kv.Commit(batch, /*sync=*/false));
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "k")), "v");
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "empty")), "");
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "zeros\0"s)), "\0\0"s);
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "zeros")), std::nullopt);
  CHECK_EQ(ValueOf(kv.Get(KvTable::kMeta, "k")), std::nullopt);  // another table
  KvBatch change;
  change.Put(KvTable::kRecords, "k", "w");
  change.Delete(KvTable::kRecords, "empty");
  change.Delete(KvTable::kRecords, "never there");
  REQUIRE_STATUS_OK(kv.Commit(change, false));
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "k")), "w");
  CHECK_EQ(ValueOf(kv.Get(KvTable::kRecords, "empty")), std::nullopt);
}

inline void TablesAreApart(Kv& kv) {
  KvBatch batch;
  for (size_t i = 0; i < kKvTables; ++i) batch.Put(static_cast<KvTable>(i), "k", std::to_string(i));
  REQUIRE_STATUS_OK(kv.Commit(batch, false));
  for (size_t i = 0; i < kKvTables; ++i) {
    CHECK_EQ(ScanKv(kv, static_cast<KvTable>(i)), KvPairs{{"k", std::to_string(i)}});
  }
}

inline void OrdersBinaryKeys(Kv& kv) {
  Keys shuffled = BinaryKeys();
  std::reverse(shuffled.begin(), shuffled.end());
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kRoots, shuffled), false));
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots)), BinaryKeys());
  // From each key on, and from between the keys.
  for (const std::string& key : BinaryKeys()) {
    for (const std::string& from : {key, key + '\x01'}) {
      CAPTURE(ToHex(AsSpan(from)));
      Keys expected = BinaryKeys();
      std::erase_if(expected, [&](const std::string& other) { return other < from; });
      CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots, from)), expected);
    }
  }
}

inline void ScansPrefixes(Kv& kv) {
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kRoots, BinaryKeys()), false));
  for (const std::string& prefix :
       {"a"s, "a\xff"s, "\0"s, "\xff"s, "\xff\xff"s, "\xff\xff\xff\xff"s, "c"s, "\xfe"s, "\x7f"s}) {
    CAPTURE(ToHex(AsSpan(prefix)));
    Keys expected;
    for (const std::string& key : BinaryKeys()) {
      if (key.starts_with(prefix)) expected.push_back(key);
    }
    CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots, {}, prefix)), expected);
  }
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots, "a\0a"s, "a")), Keys{"a\0b"s, "aa", "a\xff", "a\xff\0"s});
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots, "b", "a")), Keys{});  // after the prefix
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots, "A", "a")), KeysOf(ScanKv(kv, KvTable::kRoots, {}, "a")));
}

inline void DeletesPrefixes(Kv& kv) {
  for (const std::string& prefix : {"a"s, "a\xff"s, "\0"s, "\xff"s, "\xff\xff"s, "c"s, "\xfe\xff"s}) {
    CAPTURE(ToHex(AsSpan(prefix)));
    REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kManifests, BinaryKeys()), false));
    REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kRoots, BinaryKeys()), false));
    KvBatch batch;
    batch.DeletePrefix(KvTable::kManifests, prefix);
    REQUIRE_STATUS_OK(kv.Commit(batch, false));
    Keys expected = BinaryKeys();
    std::erase_if(expected, [&](const std::string& key) { return key.starts_with(prefix); });
    CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kManifests)), expected);
    CHECK_EQ(ValueOf(kv.Get(KvTable::kManifests, prefix)), std::nullopt);
    CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kRoots)), BinaryKeys());  // another table
  }
}

inline void DeletesThePrefixOfTheLastKey(Kv& kv) {
  const std::string last(kKvKeyBytesMax, '\xff');
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kMeta, {"a", last}), false));
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kMeta, {}, "\xff")), Keys{last});
  KvBatch batch;
  batch.DeletePrefix(KvTable::kMeta, last);
  REQUIRE_STATUS_OK(kv.Commit(batch, false));
  CHECK_EQ(KeysOf(ScanKv(kv, KvTable::kMeta)), Keys{"a"});
}

inline void AppliesABatchInOrder(Kv& kv) {
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kMeta, {"p1", "p2", "q"}), false));
  KvBatch batch;
  batch.Put(KvTable::kMeta, "p3", "gone");
  batch.DeletePrefix(KvTable::kMeta, "p");
  batch.Put(KvTable::kMeta, "p2", "again");
  batch.Put(KvTable::kMeta, "q", "first");
  batch.Put(KvTable::kMeta, "q", "second");
  batch.Put(KvTable::kMeta, "r", "never seen");
  KvBatch tail;
  tail.Delete(KvTable::kMeta, "r");
  batch.Append(std::move(tail));
  REQUIRE_STATUS_OK(kv.Commit(batch, false));
  CHECK_EQ(ScanKv(kv, KvTable::kMeta), KvPairs{{"p2", "again"}, {"q", "second"}});
}

inline void RefusesWhatIsTooLarge(Kv& kv) {
  KvBatch batch;
  batch.Put(KvTable::kMeta, "small", "v");
  batch.Put(KvTable::kMeta, std::string(kKvKeyBytesMax + 1, 'k'), "v");
  CHECK_CODE(kv.Commit(batch, true), kInvalidArgument);
  CHECK_EQ(ScanKv(kv, KvTable::kMeta), KvPairs{});  // nothing of it
  KvBatch huge;
  huge.Put(KvTable::kMeta, "huge", std::string(kKvBatchBytesMax, 'v'));
  CHECK_CODE(kv.Commit(huge, true), kResourceExhausted);
  CHECK_EQ(ScanKv(kv, KvTable::kMeta), KvPairs{});
  // Not final.
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kMeta, {std::string(kKvKeyBytesMax, 'k')}), true));
}

inline void CountsSyncs(Kv& kv) {
  const uint64_t before = kv.SyncCount();
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kMeta, {"a"}), false));
  CHECK_EQ(kv.SyncCount(), before);
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kMeta, {"b"}), true));
  CHECK_EQ(kv.SyncCount(), before + 1);
  REQUIRE_STATUS_OK(kv.Commit(KvBatch(), false));
  CHECK_EQ(kv.SyncCount(), before + 1);
  REQUIRE_STATUS_OK(kv.Commit(KvBatch(), true));  // a barrier
  CHECK_EQ(kv.SyncCount(), before + 2);
}

inline void CursorsAreSnapshots(Kv& kv) {
  REQUIRE_STATUS_OK(kv.Commit(PutAll(KvTable::kRecords, {"a", "b", "c"}), false));
  const std::unique_ptr<KvCursor> whole = kv.Scan(KvTable::kRecords);
  const std::unique_ptr<KvCursor> begun = kv.Scan(KvTable::kRecords);
  begun->Next();
  KvBatch batch;
  batch.Put(KvTable::kRecords, "a", "changed");
  batch.DeletePrefix(KvTable::kRecords, "b");
  batch.Put(KvTable::kRecords, "bb", "new");
  batch.Delete(KvTable::kRecords, "c");
  REQUIRE_STATUS_OK(kv.Commit(batch, false));
  CHECK_EQ(WalkKv(*whole), KvPairs{{"a", "value of a"}, {"b", "value of b"}, {"c", "value of c"}});
  CHECK_EQ(WalkKv(*begun), KvPairs{{"b", "value of b"}, {"c", "value of c"}});
  CHECK_EQ(ScanKv(kv, KvTable::kRecords), KvPairs{{"a", "changed"}, {"bb", "new"}});
}

// Goal: nobody ever sees half a batch. Method: each batch writes one number under many keys; readers walk meanwhile.
inline void BatchesAreAtomic(Kv& kv) {
  constexpr int kKeys = 20;
  constexpr int kBatches = 200;
  constexpr int kWalksMin = 20;
  const auto batch_of = [](int number) {
    KvBatch batch;
    if (number % 3 == 0) batch.DeletePrefix(KvTable::kRecords, "k");
    for (int i = 0; i < kKeys; ++i) batch.Put(KvTable::kRecords, "k" + std::to_string(i), std::to_string(number));
    return batch;
  };
  REQUIRE_STATUS_OK(kv.Commit(batch_of(0), false));
  std::atomic<bool> done{false};
  std::vector<std::string> wrong;
  std::thread reader([&] {
    int last = 0;
    for (int walks = 0; walks < kWalksMin || !done.load(); ++walks) {
      int keys = 0;
      std::string seen;
      const std::unique_ptr<KvCursor> cursor = kv.Scan(KvTable::kRecords);
      for (; cursor->Valid(); cursor->Next(), ++keys) {
        if (keys > 0 && cursor->value() != seen) wrong.push_back("two batches in one walk");
        seen = cursor->value();
      }
      if (keys != kKeys) {
        wrong.push_back("walk of " + std::to_string(keys) + " keys");
      } else if (std::stoi(seen) < last) {
        wrong.push_back("time runs backwards");
      } else {
        last = std::stoi(seen);
      }
    }
  });
  for (int number = 1; number <= kBatches; ++number) CHECK_STATUS_OK(kv.Commit(batch_of(number), false));
  done.store(true);
  reader.join();
  CHECK_EQ(wrong, std::vector<std::string>{});
}

// Goal: any run of changes leaves what a plain map would hold, for values on both sides of the blob limit.
inline void AgreesWithAMap(Kv& kv) {
  constexpr uint32_t kSeed = 20240611;
  CAPTURE(kSeed);
  std::mt19937 random(kSeed);
  std::map<std::string, std::string> model;
  const auto key = [&] {
    return std::string(random() % 3, "\0a\xff"[random() % 3]) + static_cast<char>(random() % 4 * 85);
  };
  for (int round = 0; round < 300; ++round) {
    KvBatch batch;
    for (uint32_t i = random() % 8; i > 0; --i) {
      const std::string k = key();
      switch (random() % 6) {
        case 0:
          batch.Delete(KvTable::kIndexes, k);
          model.erase(k);
          break;
        case 1:
          batch.DeletePrefix(KvTable::kIndexes, k);
          std::erase_if(model, [&](const auto& pair) { return pair.first.starts_with(k); });
          break;
        default:
          const std::string value(random() % 3000, static_cast<char>(random()));
          batch.Put(KvTable::kIndexes, k, value);
          model[k] = value;
      }
    }
    REQUIRE_STATUS_OK(kv.Commit(batch, round % 50 == 0));
    if (round % 10 == 0) REQUIRE(ScanKv(kv, KvTable::kIndexes) == KvPairs(model.begin(), model.end()));
    const std::string k = key();
    const auto found = model.find(k);
    REQUIRE((ValueOf(kv.Get(KvTable::kIndexes, k)) ==
             (found == model.end() ? std::nullopt : std::optional<std::string>(found->second))));
  }
  CHECK_GT(model.size(), 3);
}

}  // namespace kv_suite

// `make` returns a fresh, empty Kv each time.
inline void RunKvSuite(const std::function<std::unique_ptr<Kv>()>& make) {
  struct Case {
    const char* name;
    void (*run)(Kv&);
  };
  const Case cases[] = {
      {"gets and puts", kv_suite::GetsAndPuts},
      {"tables are apart", kv_suite::TablesAreApart},
      {"orders binary keys", kv_suite::OrdersBinaryKeys},
      {"scans prefixes", kv_suite::ScansPrefixes},
      {"deletes prefixes", kv_suite::DeletesPrefixes},
      {"deletes the prefix of the last key", kv_suite::DeletesThePrefixOfTheLastKey},
      {"applies a batch in order", kv_suite::AppliesABatchInOrder},
      {"refuses what is too large", kv_suite::RefusesWhatIsTooLarge},
      {"counts syncs", kv_suite::CountsSyncs},
      {"cursors are snapshots", kv_suite::CursorsAreSnapshots},
      {"batches are atomic", kv_suite::BatchesAreAtomic},
      {"agrees with a map", kv_suite::AgreesWithAMap},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const std::unique_ptr<Kv> kv = make();
    REQUIRE(kv != nullptr);
    c.run(*kv);
  }
}

}  // namespace dagstore
