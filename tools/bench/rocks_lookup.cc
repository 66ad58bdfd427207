#include "tools/bench/rocks_lookup.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/metadata.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>

#include <filesystem>

#include "base/bytes.h"
#include "base/check.h"

namespace dagstore {
namespace {

void Require(const rocksdb::Status& status) { DAGSTORE_CHECK_MSG(status.ok(), status.ToString()); }

rocksdb::Options PeerOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(size_t{4} << 30);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  table.data_block_hash_table_util_ratio = 0.75;
  table.block_size = 4096;
  rocksdb::Options options;
  options.create_if_missing = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kNoCompression;
  options.max_background_jobs = 2;
  options.max_subcompactions = 2;
  options.disable_auto_compactions = true;
  options.level0_slowdown_writes_trigger = 1 << 20;
  options.level0_stop_writes_trigger = 1 << 20;
  return options;
}

void EncodeKey(uint64_t key, char* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(key >> (56 - 8 * i));
}

}  // namespace

struct RocksLookup::Db {
  std::string dir;
  rocksdb::Options options = PeerOptions();
  std::unique_ptr<rocksdb::DB> db;
  int files = 0;
};

RocksLookup::RocksLookup(const std::string& dir) : db_(std::make_unique<Db>()) {
  std::filesystem::create_directories(dir);
  db_->dir = dir;
  rocksdb::DB* db = nullptr;
  Require(rocksdb::DB::Open(db_->options, dir, &db));
  db_->db.reset(db);
}

RocksLookup::~RocksLookup() = default;

void RocksLookup::Ingest(const std::vector<std::pair<uint64_t, uint32_t>>& sorted) {
  const std::string path = db_->dir + "/ingest-" + std::to_string(db_->files++);
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), db_->options);
  Require(writer.Open(path));
  char key[8];
  uint8_t value[4];
  for (const auto& [fingerprint, ordinal] : sorted) {
    EncodeKey(fingerprint, key);
    Store32(value, ordinal);
    Require(writer.Put(rocksdb::Slice(key, 8), rocksdb::Slice(reinterpret_cast<const char*>(value), 4)));
  }
  Require(writer.Finish());
  rocksdb::IngestExternalFileOptions ingest;
  ingest.move_files = true;
  Require(db_->db->IngestExternalFile({path}, ingest));
}

void RocksLookup::Compact() {
  rocksdb::CompactRangeOptions options;
  options.max_subcompactions = 2;
  Require(db_->db->CompactRange(options, nullptr, nullptr));
}

uint32_t RocksLookup::Get(uint64_t fingerprint) const {
  char key[8];
  EncodeKey(fingerprint, key);
  rocksdb::PinnableSlice value;
  rocksdb::ReadOptions read;
  read.verify_checksums = false;
  const rocksdb::Status status =
      db_->db->Get(read, db_->db->DefaultColumnFamily(), rocksdb::Slice(key, 8), &value);
  if (status.IsNotFound()) return 0;
  Require(status);
  return Load32(reinterpret_cast<const uint8_t*>(value.data()));
}

uint64_t RocksLookup::Bytes() const {
  std::vector<rocksdb::LiveFileMetaData> files;
  db_->db->GetLiveFilesMetaData(&files);
  uint64_t bytes = 0;
  for (const rocksdb::LiveFileMetaData& file : files) bytes += file.size;
  return bytes;
}

}  // namespace dagstore
