#include "dagstore/shard_table.h"

#include <thread>

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("shard table: finds keys of any bytes, and an erased one no more") {
  ShardTable table;
  const std::string keys[] = {"a", "a//b", "a/b", std::string("a\0b", 3), std::string(1024, '\xff')};
  for (const std::string& key : keys) {
    CHECK_EQ(table.Find(key), kNoSlot);
    const uint32_t slot = table.Insert(key);
    CHECK_EQ(table.Find(key), slot);
    CHECK_EQ(table[slot].key(), key);
  }
  table.Erase(table.Find("a/b"));
  CHECK_EQ(table.Find("a/b"), kNoSlot);
  CHECK(table.Find("a//b") != kNoSlot);
  CHECK_EQ(table.size(), 4);
}

TEST_CASE("shard table: finds and erases at once what was inserted, however many came before") {
  for (int keys = 1; keys <= 40; ++keys) {
    ShardTable table;
    std::vector<uint32_t> slots;
    for (int i = 0; i < keys; ++i) slots.push_back(table.Insert(std::to_string(i)));
    CHECK_EQ(table.size(), keys);
    table.Erase(slots.back());
    CHECK_EQ(table.Find(std::to_string(keys - 1)), kNoSlot);
    for (int i = 0; i < keys - 1; ++i) CHECK_EQ(table.Find(std::to_string(i)), slots[static_cast<size_t>(i)]);
    CHECK_EQ(table.size(), keys - 1);
  }
}

TEST_CASE("shard table: a slot that is used again is another life, with nothing of the one before") {
  ShardTable table;
  const uint32_t slot = table.Insert("k");
  const uint32_t first = table[slot].incarnation;
  table[slot].references = 5;
  table[slot].ordinal = 7;
  table[slot].state = ShardState::kErrored;
  table[slot].has_copy = true;
  CHECK(table.Lives(slot, first));
  table.Erase(slot);
  CHECK_FALSE(table.Lives(slot, first));
  REQUIRE_EQ(table.Insert("k"), slot);
  CHECK_FALSE(table.Lives(slot, first));
  CHECK(table.Lives(slot, table[slot].incarnation));
  CHECK_EQ(table[slot].references, 0);
  CHECK_EQ(table[slot].ordinal, 0);
  CHECK_FALSE(bool{table[slot].has_copy});
  CHECK(table[slot].state == ShardState::kNew);
  CHECK_FALSE(table.Lives(slot + 1, 0));
  CHECK_FALSE(table.Lives(kNoSlot, 0));
}

TEST_CASE("shard table: holds more than a chunk, and slots stay where they are") {
  ShardTable table;
  const uint32_t first = table.Insert("first");
  const Slot* place = &table[first];
  for (int i = 0; i < 50'000; ++i) table.Insert(std::to_string(i));
  CHECK_EQ(&table[first], place);
  for (int i = 0; i < 50'000; i += 7) CHECK_EQ(table[table.Find(std::to_string(i))].key(), std::to_string(i));
  for (int i = 0; i < 50'000; i += 2) table.Erase(table.Find(std::to_string(i)));
  CHECK_EQ(table.size(), 25'001);
  const uint32_t slots = table.slots();
  for (int i = 0; i < 50'000; i += 2) table.Insert(std::to_string(i));
  CHECK_EQ(table.slots(), slots);  // the free ones were used
}

TEST_CASE("directory: names live ordinals only, also across its chunks") {
  Directory directory;
  const std::string keys[] = {"a", "b", "c"};
  const Ordinal ordinals[] = {1, 4096, 1'000'000};
  for (size_t i = 0; i < 3; ++i) directory.Set(ordinals[i], keys[i]);
  CHECK_EQ(directory.alive(), 3);
  for (size_t i = 0; i < 3; ++i) CHECK(directory.KeyOf(ordinals[i]) == ShardKey(keys[i]));
  for (const Ordinal dead : {0u, 2u, 4095u, 999'999u, 1'000'001u, UINT32_MAX}) {
    CHECK_FALSE(directory.KeyOf(dead).has_value());
    CHECK_FALSE(directory.IsAlive(dead));
    directory.Clear(dead);
  }
  directory.Set(4096, keys[2]);  // again: counted once
  CHECK_EQ(directory.alive(), 3);
  directory.Hide(4096);
  CHECK_FALSE(directory.KeyOf(4096).has_value());
  CHECK(directory.IsAlive(4096));
  directory.Clear(4096);
  directory.Clear(4096);
  CHECK_EQ(directory.alive(), 2);
  CHECK_FALSE(directory.IsAlive(4096));
  CHECK(directory.IsAlive(1));
}

TEST_CASE("directory: readers see a whole key or none while the loop writes") {
  Directory directory;
  const std::string keys[] = {std::string(100, 'x'), std::string(7, 'y')};
  std::thread loop([&] {
    for (int i = 0; i < 20'000; ++i) {
      directory.Set(5, keys[i % 2]);
      directory.Clear(5);
    }
    directory.Set(5, keys[0]);
  });
  bool whole = true;
  for (int i = 0; i < 20'000; ++i) {
    const auto key = directory.KeyOf(5);
    whole &= !key.has_value() || key->bytes() == keys[0] || key->bytes() == keys[1];
  }
  loop.join();
  CHECK(whole);
  CHECK(directory.KeyOf(5)->bytes() == keys[0]);
}

}  // namespace
}  // namespace dagstore
