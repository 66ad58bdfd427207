// Any bytes as UnixFS: one message, one node, and a whole DAG whose blocks are slices of the input, so that links may
// lead anywhere, in circles too. Properties: sizes add up; entries of a shard lie inside it; every walk ends within
// its budget and reads no more of a file than was asked for.
#include <algorithm>

#include "base/check.h"
#include "dag/file.h"
#include "dag/hamt.h"
#include "dag/path.h"
#include "dag/traversal.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

// The first byte of a digest says where the block begins, the second how long it is.
class SliceGetter : public BlockGetter {
 public:
  explicit SliceGetter(Span input) : input_(input) {}
  absl::StatusOr<BlockData> Get(const CidView& cid) override {
    if (cid.hash.digest.size() < 2) return NotFound("no such slice");
    const size_t begin = std::min<size_t>(cid.hash.digest[0], input_.size());
    return BlockData(input_.subspan(begin, std::min<size_t>(cid.hash.digest[1], input_.size() - begin)), nullptr);
  }

 private:
  Span input_;
};

void CheckMessage(Span message) {
  const auto fs = UnixFs::Decode(message);
  if (!fs.ok()) return;
  uint64_t count = 0, sum = 0, size = 0;
  for (UnixFs::SizeCursor at(*fs); at.Next(size); ++count) sum += size;
  DAGSTORE_CHECK(count == fs->block_size_count() && sum == fs->block_size_sum());
  DAGSTORE_CHECK(fs->content_size() <= INT64_MAX);
}

void CheckNode(Span block) {
  const auto node = PbNode::Parse(block);
  if (!node.ok() || !node->data()) return;
  CheckMessage(*node->data());
  const auto fs = UnixFs::Decode(*node->data());
  if (!fs.ok()) return;
  (void)fs->CheckFile(node->link_count());
  const auto shard = HamtShard::Open(*node, *fs);
  if (!shard.ok()) return;
  size_t entries = 0;
  HamtEntry entry;
  for (HamtShard::Cursor at(*shard); at.Next(entry);) ++entries;
  DAGSTORE_CHECK(entries == node->link_count());
  for (uint64_t i = 0; i < 64; ++i) {
    const auto found = shard->Find(AsSpan("x"), i * 0x9e3779b97f4a7c15, static_cast<int>(i));
    DAGSTORE_CHECK(!found.ok() || found->is_shard || AsText(found->name) == "x");
  }
}

void CheckWalks(Span input) {
  SliceGetter getter(input);
  constexpr uint8_t kWhole[] = {0, 255};
  const Cid root = Cid::V1(kCodecDagPb, {kSha2_256, kWhole});
  for (const bool dups : {false, true}) {
    for (const DagScope scope : {DagScope::kAll, DagScope::kEntity}) {
      for (const bool ranged : {false, true}) {
        TraverseOptions options = {.scope = scope, .dups = dups, .links_max = 500};
        if (ranged) options.range = EntityRange{2, 90};
        uint64_t visits = 0;
        (void)Traverse(getter, root.view(), options, [&](const CidView&, const BlockData&) {
          DAGSTORE_CHECK(++visits <= options.links_max + 1);
          return absl::OkStatus();
        });
      }
    }
  }
  (void)ListDirectory(getter, root.view(), {.entries_max = 500, .shards_max = 500},
                      [](const DirEntry&) { return true; });
  ResolvedPath resolved;
  (void)ResolvePath(getter, {root, {"x", "0", "x"}}, {}, resolved);
  const auto file = UnixFsFile::Open(getter, root.view());
  if (!file.ok()) return;
  uint64_t read = 0;
  const absl::Status status = file->ReadRange(3, 200, [&](Span bytes) {
    read += bytes.size();
    DAGSTORE_CHECK(read <= 200);
    return absl::OkStatus();
  });
  if (status.ok()) DAGSTORE_CHECK(read == std::min<uint64_t>(200, file->size() - std::min<uint64_t>(3, file->size())));
}

}  // namespace

void FuzzOne(Span input) {
  CheckMessage(input);
  CheckNode(input);
  CheckWalks(input);
}

}  // namespace dagstore
