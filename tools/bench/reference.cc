#include "tools/bench/reference.h"

#include <absl/container/flat_hash_map.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status.h"
#include "mount/url.h"

namespace dagstore {
namespace {

// One byte, one call.
bool ReadByte(int fd, uint8_t& byte) { return read(fd, &byte, 1) == 1; }

bool ReadVarint(int fd, uint64_t& value, size_t& size) {
  value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    uint8_t byte = 0;
    if (!ReadByte(fd, byte)) return false;
    ++size;
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

}  // namespace

Reference::Reference(const std::string& dir) : dir_(dir) {
  std::filesystem::create_directories(dir);
  auto kv = OpenRocksKv(dir + "/db", {});
  DAGSTORE_CHECK_OK(kv.status());
  kv_ = *std::move(kv);
}

std::string Reference::Record(const std::string& key, const char* state) {
  return nlohmann::json({{"k", key}, {"u", "file:///data/" + key + ".car?root=archive"}, {"t", ""}, {"s", state},
                         {"l", false}, {"e", ""}})
      .dump();
}

void Reference::Event(const std::string& key, const char* state) {
  KvBatch batch;
  batch.Put(KvTable::kRecords, key, Record(key, state));
  DAGSTORE_CHECK_OK(kv_->Commit(batch, true));
}

void Reference::Cycle(const std::string& key) {
  Event(key, "ShardStateServing");
  Event(key, "ShardStateAvailable");
}

size_t Reference::ScanBytewise(const std::string& path, std::string* index, std::vector<std::string>* hashes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  DAGSTORE_CHECK(fd >= 0);
  uint64_t value = 0, offset = 0;
  size_t size = 0, blocks = 0;
  DAGSTORE_CHECK(ReadVarint(fd, value, size));
  offset = size + value;  // the header
  DAGSTORE_CHECK(lseek(fd, static_cast<off_t>(offset), SEEK_SET) >= 0);
  for (size = 0; ReadVarint(fd, value, size); size = 0) {
    const uint64_t section = value + size;
    uint64_t part = 0, digest_size = 0;
    size_t ignored = 0;
    for (int i = 0; i < 3; ++i) DAGSTORE_CHECK(ReadVarint(fd, part, ignored));  // version, codec, function
    DAGSTORE_CHECK(ReadVarint(fd, digest_size, ignored) && digest_size <= 64);
    char digest[64];
    DAGSTORE_CHECK(read(fd, digest, digest_size) == static_cast<ssize_t>(digest_size));
    if (index != nullptr) {
      index->append(digest, digest_size);
      for (int i = 0; i < 8; ++i) index->push_back(static_cast<char>(offset >> (8 * i)));
    }
    if (hashes != nullptr) hashes->emplace_back(digest, digest_size);
    offset += section;
    ++blocks;
    DAGSTORE_CHECK(lseek(fd, static_cast<off_t>(offset), SEEK_SET) >= 0);
  }
  close(fd);
  return blocks;
}

void Reference::RegisterIndexed(const std::string& key, const std::string& path) {
  Event(key, "ShardStateNew");
  Event(key, "ShardStateInitializing");
  std::string index;
  std::vector<std::string> hashes;
  ScanBytewise(path, &index, &hashes);
  std::ofstream(dir_ + "/" + key + ".full.idx", std::ios::binary) << index;
  AddInverted(key, hashes, /*sync=*/true);
  Event(key, "ShardStateAvailable");
}

size_t Reference::AcquireIndexed(const std::string& key) {
  Event(key, "ShardStateServing");
  std::ifstream file(dir_ + "/" + key + ".full.idx", std::ios::binary | std::ios::ate);
  std::string index(static_cast<size_t>(file.tellg()), '\0');
  file.seekg(0).read(index.data(), static_cast<std::streamsize>(index.size()));
  DAGSTORE_CHECK(file.good());
  Event(key, "ShardStateAvailable");
  return index.size();
}

void Reference::AddInverted(const std::string& key, const std::vector<std::string>& hashes, bool sync) {
  const MutexLock lock(mu_);
  KvBatch batch;
  for (const std::string& hash : hashes) {
    const auto old = kv_->Get(KvTable::kTopIndex, hash);
    DAGSTORE_CHECK_OK(old.status());
    nlohmann::json keys = old->has_value() ? nlohmann::json::parse(**old) : nlohmann::json::array();
    keys.push_back(key);
    batch.Put(KvTable::kTopIndex, hash, keys.dump());
  }
  DAGSTORE_CHECK_OK(kv_->Commit(batch, sync));
}

double Reference::BytesPerInvertedEntry(size_t entries) const {
  return static_cast<double>(kv_->SizeBytes()) / static_cast<double>(entries);
}

void Reference::WriteRecords(size_t shards) {
  for (size_t i = 0; i < shards;) {
    KvBatch batch;
    for (size_t n = 0; n < 10'000 && i < shards; ++n, ++i) {
      const std::string key = fmt::format("baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y{:07}", i);
      batch.Put(KvTable::kRecords, key, Record(key, "ShardStateAvailable"));
    }
    DAGSTORE_CHECK_OK(kv_->Commit(batch, false));
  }
  DAGSTORE_CHECK_OK(kv_->Commit(KvBatch(), true));
}

size_t Reference::LoadAll() const {
  struct Shard {
    std::string key, state, error;
    std::unique_ptr<Url> url;
    bool lazy = false;
  };
  absl::flat_hash_map<std::string, std::unique_ptr<Shard>> shards;
  const auto cursor = kv_->Scan(KvTable::kRecords);
  for (; cursor->Valid(); cursor->Next()) {
    const nlohmann::json record = nlohmann::json::parse(cursor->value());
    auto shard = std::make_unique<Shard>();
    shard->key = record["k"].get<std::string>();
    shard->state = record["s"].get<std::string>();
    shard->error = record["e"].get<std::string>();
    shard->lazy = record["l"].get<bool>();
    auto url = Url::Parse(record["u"].get<std::string>());
    DAGSTORE_CHECK_OK(url.status());
    shard->url = std::make_unique<Url>(*std::move(url));
    std::string key = shard->key;
    shards[std::move(key)] = std::move(shard);
  }
  DAGSTORE_CHECK_OK(cursor->status());
  return shards.size();
}

}  // namespace dagstore
