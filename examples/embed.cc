// A program that embeds dagstore: registers the CAR files it is given and prints the root blocks' sizes.
//   embed REPOSITORY FILE.car...
#include <dagstore/dagstore.h>
#include <dagstore/indexed_blockstore.h>
#include <mount/file_mount.h>

#include <cstdio>
#include <filesystem>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s REPOSITORY FILE.car...\n", argv[0]);
    return 2;
  }
  dagstore::Options options;
  options.dir = argv[1];
  options.mounts =
      std::make_shared<const dagstore::MountRegistry>(dagstore::DefaultMounts(dagstore::FileMountConfig()));
  auto store = dagstore::DagStore::Open(options);
  if (!store.ok()) {
    std::fprintf(stderr, "open: %s\n", dagstore::ToString(store.status()).c_str());
    return 1;
  }
  for (int i = 2; i < argc; ++i) {
    dagstore::Url url;
    url.scheme = "file";
    url.has_authority = true;
    std::error_code error;  // then the path is empty, which no mount takes
    url.path = std::filesystem::absolute(argv[i], error).string();
    auto mount = (*store)->mounts().Make(url);
    const absl::Status added =
        mount.ok() ? (*store)->RegisterShardSync(dagstore::ShardKey(argv[i]), *std::move(mount)) : mount.status();
    if (!added.ok() && !absl::IsAlreadyExists(added)) {
      std::fprintf(stderr, "%s: %s\n", argv[i], dagstore::ToString(added).c_str());
      return 1;
    }
    // Blocks of all shards, by CID, verified.
    const dagstore::IndexedBlockstore blocks(**store);
    auto index = (*store)->GetIterableIndex(dagstore::ShardKey(argv[i]));
    if (!index.ok()) return 1;
    for (const dagstore::Cid& root : (*index)->roots()) {
      dagstore::Block block;
      const absl::Status got = blocks.Get(root.view(), block);
      std::printf("%s %s\n", root.ToText().c_str(),
                  got.ok() ? std::to_string(block.data().size()).c_str() : dagstore::ToString(got).c_str());
    }
  }
  return (*store)->Close().ok() ? 0 : 1;
}
