#include "index/native_index.h"

#include <atomic>
#include <functional>
#include <thread>

#include "tests/index/index_testing.h"

namespace dagstore {
namespace {

using absl::StatusCode;

// Entries of every shape that sort and search differently.
struct Shape {
  const char* name;
  std::function<std::vector<OwnedEntry>()> make;
};

std::vector<OwnedEntry> Clustered(size_t count) {
  // All but the last two bytes are equal: the first eight tell nothing.
  std::vector<OwnedEntry> entries = UniformEntries(count);
  for (size_t i = 0; i < count; ++i) {
    entries[i].digest.assign(32, 0x77);
    entries[i].digest[30] = static_cast<uint8_t>(i >> 8);
    entries[i].digest[31] = static_cast<uint8_t>(i);
  }
  return entries;
}

std::vector<OwnedEntry> TwoClusters(size_t count) {
  // Half at each end of the space, one alone between: a straight line from end to end is wrong everywhere.
  std::vector<OwnedEntry> entries = UniformEntries(count);
  for (size_t i = 0; i < count; ++i) {
    for (int j = 0; j < 5; ++j) entries[i].digest[j] = i % 2 == 0 ? 0x00 : 0xff;
  }
  entries[0].digest[0] = 0x80;
  return entries;
}

std::vector<OwnedEntry> Repeated(size_t count) {
  // Three digests; the run of each crosses page borders.
  std::vector<OwnedEntry> entries = UniformEntries(count);
  for (size_t i = 3; i < count; ++i) entries[i].digest = entries[i % 3].digest;
  return entries;
}

std::vector<OwnedEntry> Kinds() {
  std::vector<OwnedEntry> entries;
  uint64_t offset = 18;
  const auto add = [&](uint64_t code, Bytes digest, uint64_t codec) {
    entries.push_back({.code = code, .digest = std::move(digest), .offset = offset, .codec = codec});
    offset += 138;
  };
  for (size_t size = 0; size < 40; ++size) add(kIdentity, Bytes(size, static_cast<uint8_t>(size)), kCodecRaw);
  for (int i = 0; i < 300; ++i) {
    const Bytes digest = Sha256Of(fmt::format("k{}", i));
    add(i % 3 == 0 ? kSha2_256 : i % 3 == 1 ? kBlake2b256 : kBlake3, digest, i % 2 == 0 ? kCodecDagPb : kCodecDagCbor);
    add(kSha2_256, Bytes(digest.begin(), digest.begin() + 20), kCodecRaw);
    add(kSha2_256, Bytes(digest.begin(), digest.begin() + 4), 0x300000 + i % 5);
  }
  add(0x7fffffffffffffff, Bytes(kDigestBytesMax, 0xab), kCodecRaw);
  add(kIdentity, {}, kCodecRaw);
  return entries;
}

const Shape kShapes[] = {
    {"none", [] { return UniformEntries(0); }},
    {"one", [] { return UniformEntries(1); }},
    {"one page, full", [] { return UniformEntries(88); }},
    {"one page and one entry", [] { return UniformEntries(89); }},
    {"several pages, packed", [] { return UniformEntries(1000); }},
    {"many pages, aligned", [] { return UniformEntries(20000); }},
    {"pages, all full", [] { return UniformEntries(88 * 40); }},
    {"clustered", [] { return Clustered(20000); }},
    {"two clusters", [] { return TwoClusters(20000); }},
    {"repeated", [] { return Repeated(1000); }},
    {"kinds", [] { return Kinds(); }},
};

TEST_CASE("native index: every entry of every shape is found, by digest and in order") {
  for (const Shape& shape : kShapes) {
    INFO(shape.name);
    std::vector<OwnedEntry> entries = shape.make();
    const auto index = IndexOf(entries);
    std::sort(entries.begin(), entries.end());
    CHECK_EQ(index->summary().entries, entries.size());
    CHECK(AllOf(*index) == entries);
    CHECK_STATUS_OK(index->CheckAll());
    for (size_t i = 0; i < entries.size();) {
      size_t end = i;
      const MultihashView hash = entries[i].view().hash;
      while (end < entries.size() && entries[end].view().hash == hash) ++end;
      REQUIRE(FoundIn(*index, hash) == std::vector(entries.begin() + i, entries.begin() + end));
      i = end;
    }
  }
}

TEST_CASE("native index: what is not there is not found, whatever lies around it") {
  for (const Shape& shape : kShapes) {
    INFO(shape.name);
    const std::vector<OwnedEntry> entries = shape.make();
    const auto index = IndexOf(entries);
    CHECK(FoundIn(*index, {kSha2_256, Bytes(32, 0x00)}).empty());
    CHECK(FoundIn(*index, {kSha2_256, Bytes(32, 0xff)}).empty());
    CHECK(FoundIn(*index, {kMd5, Bytes(16, 0x11)}).empty());
    for (size_t i = 0; i < entries.size(); i += 7) {
      Bytes near = entries[i].digest;
      if (near.size() < 20) continue;
      near.back() ^= 1;  // often a neighbour in "clustered"
      const auto same = [&](const OwnedEntry& e) { return e.code == entries[i].code && e.digest == near; };
      const size_t there = std::count_if(entries.begin(), entries.end(), same);
      REQUIRE_EQ(FoundIn(*index, {entries[i].code, near}).size(), there);
      // The length is part of the key.
      near.back() ^= 1;
      near.push_back(0);
      REQUIRE(FoundIn(*index, {entries[i].code, near}).empty());
      if (i > 2000) break;
    }
  }
}

TEST_CASE("native index: a visitor that says stop is not called again") {
  const auto index = IndexOf(Repeated(1000));
  const Bytes digest = Repeated(1)[0].digest;
  std::vector<uint64_t> offsets;
  CHECK_EQ(ValueOf(index->Find({kSha2_256, digest}, [&](const IndexEntry& entry) {
    offsets.push_back(entry.offset);
    return offsets.size() < 2;
  })), 2);
  CHECK_EQ(offsets.size(), 2);
  CHECK_LT(offsets[0], offsets[1]);
  size_t seen = 0;
  CHECK_STATUS_OK(index->ForEach([&](const IndexEntry&) { return ++seen < 5; }));
  CHECK_EQ(seen, 5);
  CHECK(ValueOf(index->Contains({kSha2_256, digest})));
  CHECK_FALSE(ValueOf(index->Contains({kBlake3, digest})));
}

TEST_CASE("native index: summary, roots and codecs come back as they were") {
  IndexBuilder builder({});
  const OwnedEntry identity{.code = kIdentity, .digest = {1, 2}, .offset = 18, .head_size = 7, .data_size = 2,
                            .codec = 0x7fffffffffffffff};
  const OwnedEntry large{.digest = Bytes(32, 9), .offset = kIndexOffsetMax, .head_size = 65535,
                         .data_size = 0xffffffff};
  CHECK_STATUS_OK(builder.Add(identity.view()));
  CHECK_STATUS_OK(builder.Add(large.view()));
  const std::vector<Cid> roots = {ValueOf(Cid::FromText("bafkqaaa")),
                                  ValueOf(Cid::FromText("QmfEoLyB5NndqeKieExd1rtJzTduQUPEV8TwAYcUiy3H5Z"))};
  const BuiltIndex built = ValueOf(builder.Finish(roots, {.payload_offset = 51,
                                                          .payload_size = uint64_t{1} << 50,
                                                          .source_size = uint64_t{1} << 51,
                                                          .unverified = 3,
                                                          .verified = true,
                                                          .car_version = 2}));
  CHECK_EQ(built.bytes, built.heap.size());
  const auto index = ValueOf(OpenNativeIndex(built.heap));
  CHECK_EQ(index->Checksum(), built.checksum);
  CHECK_EQ(index->SizeBytes(), built.bytes);
  CHECK(index->roots() == roots);
  const IndexSummary& summary = index->summary();
  CHECK_EQ(summary.entries, 2);
  CHECK_EQ(summary.identity_entries, 1);
  CHECK_EQ(summary.block_bytes, uint64_t{2} + 0xffffffff);
  CHECK_EQ(summary.payload_offset, 51);
  CHECK_EQ(summary.payload_size, uint64_t{1} << 50);
  CHECK_EQ(summary.source_size, uint64_t{1} << 51);
  CHECK_EQ(summary.unverified, 3);
  CHECK(summary.verified);
  CHECK_EQ(summary.car_version, 2);
  CHECK(AllOf(*index) == std::vector{identity, large});
  CHECK_STATUS_OK(index->CheckAll());
}

TEST_CASE("native index: the worked example of docs/format.md") {
  IndexBuilder builder({});
  const OwnedEntry entry{.digest = Sha256Of("hello"), .offset = 59, .head_size = 37, .data_size = 5};
  CHECK_STATUS_OK(builder.Add(entry.view()));
  const Cid root = Cid::V1(kCodecRaw, {kSha2_256, entry.digest});
  const BuiltIndex built = ValueOf(
      builder.Finish({root}, {.payload_size = 101, .source_size = 101, .verified = true, .car_version = 1}));
  CHECK_EQ(ToHex(built.heap), 
           "8944534944580d0a01000000c2000000f4000000000000000100000001000000010000000000000000000000"
           "0000000005000000000000000000000000000000650000000000000065000000000000000000000000000000"
           "1224aeeee10a989e010000002600000001000000010000002400015512202cf24dba5fb0a30e26e83b2ac5b9"
           "e29e1b161e5c1fa7425e73043362938b982455000000000000001200000000000000200000002e0000000100"
           "000000000000c2000000000000003ba5fdc64f44b6a72cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7"
           "425e73043362938b98243b00000000000500000025000000");
}

TEST_CASE("native index: a changed byte anywhere is an error, never another answer") {
  const std::vector<OwnedEntry> entries = UniformEntries(200);
  const Bytes good = BuildFrom(entries).heap;
  const uint32_t header_bytes = Load32(good.data() + 12);
  for (size_t at = 0; at < good.size(); at += at < header_bytes ? 1 : 13) {
    Bytes bad = good;
    bad[at] ^= 0x10;
    const auto index = OpenNativeIndex(bad);
    if (at < header_bytes) {
      REQUIRE_FALSE(index.ok());
      continue;
    }
    REQUIRE_STATUS_OK(index);
    CHECK_CODE((*index)->CheckAll(), kDataLoss);
    CHECK_CODE((*index)->ForEach([](const IndexEntry&) { return true; }), kDataLoss);
    size_t refused = 0;
    for (const OwnedEntry& entry : entries) {
      const auto found = (*index)->Contains(entry.view().hash);
      refused += !found.ok();
      if (!found.ok()) CHECK_CODE(found, kDataLoss);
      if (found.ok()) REQUIRE(*found);  // the damage is elsewhere
    }
    CHECK_GT(refused, 0);
  }
}

TEST_CASE("native index: a page in another's place is damage") {
  Bytes bytes = BuildFrom(UniformEntries(88 * 20)).heap;  // aligned: two pages of equal size can change places
  std::swap_ranges(bytes.begin() + 4096, bytes.begin() + 8192, bytes.begin() + 8192);
  const auto index = ValueOf(OpenNativeIndex(bytes));
  CHECK_CODE(index->CheckAll(), kDataLoss);
  CHECK_CODE(index->ForEach([](const IndexEntry&) { return true; }), kDataLoss);
}

TEST_CASE("native index: a page of another index is damage, though it is whole") {
  Bytes bytes = BuildFrom(UniformEntries(88 * 20, "a")).heap;
  const Bytes other = BuildFrom(UniformEntries(88 * 20, "b")).heap;
  REQUIRE_EQ(bytes.size(), other.size());
  std::copy(other.begin() + 4096, other.begin() + 8192, bytes.begin() + 4096);
  CHECK_CODE(ValueOf(OpenNativeIndex(bytes))->CheckAll(), kDataLoss);
}

TEST_CASE("native index: every truncation and extension is refused when it is opened") {
  Bytes bytes = BuildFrom(UniformEntries(100)).heap;
  for (size_t size = 0; size < bytes.size(); ++size)
    REQUIRE(absl::IsDataLoss(OpenNativeIndex(Bytes(bytes.begin(), bytes.begin() + size)).status()));
  bytes.push_back(0);
  CHECK_CODE(OpenNativeIndex(bytes), kDataLoss);
}

TEST_CASE("native index: a header that is sealed but wrong is refused") {
  const Bytes good = BuildFrom(UniformEntries(100)).heap;
  const uint32_t header_bytes = Load32(good.data() + 12);
  const size_t group = header_bytes - 4 - 32;
  const struct {
    const char* what;
    size_t at;
    int size;
    uint64_t value;
    StatusCode code;
  } kCases[] = {
      {"magic", 0, 4, 0, StatusCode::kDataLoss},
      {"version 0", 8, 4, 0, StatusCode::kDataLoss},
      {"newer version", 8, 4, 2, StatusCode::kFailedPrecondition},
      {"flag that must be known", 24, 4, 0x10000, StatusCode::kFailedPrecondition},
      {"file size", 16, 8, 5000, StatusCode::kDataLoss},
      {"entries", 32, 8, 99, StatusCode::kDataLoss},
      {"huge entries", 32, 8, ~uint64_t{0}, StatusCode::kDataLoss},
      {"roots", 96, 4, 1, StatusCode::kDataLoss},
      {"huge roots", 96, 4, 0xffffffff, StatusCode::kDataLoss},
      {"root bytes", 100, 4, 8, StatusCode::kDataLoss},
      {"huge root bytes", 100, 4, 0xffffffff, StatusCode::kDataLoss},
      {"codecs", 104, 4, 2, StatusCode::kDataLoss},
      {"huge codecs", 104, 4, 0x20000001, StatusCode::kDataLoss},
      {"no groups", 108, 4, 0, StatusCode::kDataLoss},
      {"huge groups", 108, 4, 0x08000001, StatusCode::kDataLoss},
      {"digest size", group + 8, 4, 31, StatusCode::kDataLoss},
      {"huge digest size", group + 8, 4, 0xffffffff, StatusCode::kDataLoss},
      {"entry size", group + 12, 4, 45, StatusCode::kDataLoss},
      {"entry size zero", group + 12, 4, 0, StatusCode::kDataLoss},
      {"group entries zero", group + 16, 8, 0, StatusCode::kDataLoss},
      {"group entries", group + 16, 8, 101, StatusCode::kDataLoss},
      {"huge group entries", group + 16, 8, uint64_t{1} << 63, StatusCode::kDataLoss},
      {"group offset in the header", group + 24, 8, 10, StatusCode::kDataLoss},
      {"group offset", group + 24, 8, header_bytes + 1, StatusCode::kDataLoss},
      {"huge group offset", group + 24, 8, ~uint64_t{0} - 100, StatusCode::kDataLoss},
  };
  for (const auto& c : kCases) {
    INFO(c.what);
    Bytes bad = good;
    std::memcpy(bad.data() + c.at, &c.value, c.size);
    SealHeader(bad);
    CHECK_EQ(static_cast<int>(OpenNativeIndex(bad).status().code()), static_cast<int>(c.code));
  }
}

TEST_CASE("native index: flags and header bytes that may be unknown are passed over") {
  Bytes bytes = BuildFrom(UniformEntries(3)).heap;
  Store32(bytes.data() + 24, Load32(bytes.data() + 24) | 0x8000);
  SealHeader(bytes);
  const auto index = ValueOf(OpenNativeIndex(bytes));
  CHECK_EQ(index->summary().entries, 3);
  CHECK(index->summary().verified);

  Bytes longer = BuildFrom({}).heap;
  const size_t header_bytes = longer.size();
  longer.insert(longer.end() - 4, {1, 2, 3, 4, 5, 6, 7, 8});
  Store32(longer.data() + 12, static_cast<uint32_t>(header_bytes + 8));
  Store64(longer.data() + 16, header_bytes + 8);
  SealHeader(longer);
  CHECK_EQ(ValueOf(OpenNativeIndex(longer))->SizeBytes(), header_bytes + 8);
}

TEST_CASE("native index: more kinds, codecs or roots than the format holds are refused while building") {
  {
    IndexBuilder builder({});
    OwnedEntry entry{.digest = Bytes(4, 1)};
    for (uint64_t i = 0; i < kIndexGroupsMax; ++i) {
      entry.code = 0x1000 + i;
      REQUIRE_STATUS_OK(builder.Add(entry.view()));
    }
    entry.code = 1;
    CHECK_CODE(builder.Add(entry.view()), kFailedPrecondition);
  }
  {
    IndexBuilder builder({});
    OwnedEntry entry{.digest = Bytes(32, 1)};
    for (uint64_t i = 0; i < kIndexCodecsMax; ++i) {
      entry.codec = i;
      REQUIRE_STATUS_OK(builder.Add(entry.view()));
    }
    entry.codec = kIndexCodecsMax;
    CHECK_CODE(builder.Add(entry.view()), kFailedPrecondition);
  }
  {
    IndexBuilder builder({});
    const std::vector<Cid> roots(kIndexRootsMax + 1, ValueOf(Cid::FromText("bafkqaaa")));
    CHECK_CODE(builder.Finish(roots, {}), kFailedPrecondition);
  }
  IndexBuilder builder({});
  CHECK_CODE(builder.Add(OwnedEntry{.digest = Bytes(32, 1), .offset = kIndexOffsetMax + 1}.view()),
             kFailedPrecondition);
  CHECK_CODE(builder.Add(OwnedEntry{.digest = Bytes(kDigestBytesMax + 1, 1)}.view()), kFailedPrecondition);
  CHECK_CODE(builder.Add(OwnedEntry{.digest = Bytes(32, 1), .head_size = 65536}.view()),
             kFailedPrecondition);
}

// Goal: lookups read few pages when the digests are spread evenly, and never many.
// Method: all pages but those that a lookup may read are damaged, so that reading one is an error.
TEST_CASE("native index: a lookup checks the pages it reads, and they are few") {
  const std::vector<OwnedEntry> entries = UniformEntries(20000);
  const Bytes good = BuildFrom(entries).heap;
  const size_t pages = (good.size() - 4096) / 4096;
  REQUIRE_GT(pages, 200);
  size_t touched = 0;
  for (size_t i = 0; i < 10; ++i) {
    const MultihashView hash = entries[i * 1999].view().hash;
    size_t needed = 0;
    for (size_t page = 1; page <= pages; ++page) {
      Bytes bad = good;
      bad[page * 4096] ^= 1;
      needed += !ValueOf(OpenNativeIndex(std::move(bad)))->Contains(hash).ok();
      if (needed > 8) break;
    }
    CHECK_LE(needed, 5);
    touched += needed;
  }
  CHECK_LE(touched, 10 * 3);
}

TEST_CASE("native index: once it has been asked often it answers by a directory, and the answers are the same") {
  std::vector<OwnedEntry> entries = UniformEntries(70'000);
  entries.push_back(entries[5]);  // a duplicate, the least digest and the greatest
  entries.back().offset = 1;
  entries.push_back({.digest = Bytes(32), .offset = 2});
  entries.push_back({.digest = Bytes(32, 0xff), .offset = 3});
  const Bytes good = BuildFrom(entries).heap;
  const auto index = ValueOf(OpenNativeIndex(good));
  std::atomic<size_t> found = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < entries.size(); i += 3) {
        const auto there = index->Contains(entries[i].view().hash);
        found += there.ok() && *there;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(found, entries.size());
  CHECK_EQ(FoundIn(*index, entries[5].view().hash).size(), 2);
  for (size_t i = 0; i < 2000; ++i) {
    const Bytes absent = Sha256Of(fmt::format("absent {}", i));
    REQUIRE_FALSE(ValueOf(index->Contains({kSha2_256, absent})));
  }
  CHECK(FoundIn(*index, {kSha2_256, Bytes(32)}).size() == 1);
  CHECK(FoundIn(*index, {kSha2_256, Bytes(32, 0xff)}).size() == 1);

  // A damaged page is damage before and after, and makes no entry vanish.
  Bytes bad = good;
  bad[4096 * 400 + 7] ^= 1;
  const auto damaged = ValueOf(OpenNativeIndex(bad));
  size_t errors = 0;
  for (const OwnedEntry& entry : entries) {
    const auto there = damaged->Contains(entry.view().hash);
    errors += !there.ok();
    if (there.ok()) REQUIRE(*there);
  }
  CHECK(errors > 0);
}

TEST_CASE("native index: many threads look up in one index") {
  const std::vector<OwnedEntry> entries = UniformEntries(5000);
  const auto index = IndexOf(entries);
  std::atomic<size_t> found = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < entries.size(); ++i) {
        // Each from another place, so that they meet on pages that only one has checked.
        const auto there = index->Contains(entries[(i + t * 1250) % entries.size()].view().hash);
        found += there.ok() && *there;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(found, 4 * entries.size());
}

}  // namespace
}  // namespace dagstore
