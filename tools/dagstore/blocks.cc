// `dagstore get`, `has`, `size`, `find`, `cat`, `export`, `dag`, `tree`: reading blocks and what is
// made of them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "dag/car_export.h"
#include "dag/dag_json.h"
#include "dag/file.h"
#include "dagstore/indexed_blockstore.h"
#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFindPage = 1000;       // shards at a time
constexpr size_t kTreeDepthMax = 1024;  // folders in folders; as long a path as ParseDagPath takes

struct BlockOptions {
  std::string target = {};  // a CID, or CID/path
  std::string output = {};
  std::string range = {};
  std::string scope = {};
  std::string entity_bytes = {};
  std::string dups = "n";
  bool recursive = false;
  uint64_t limit = 0;  // 0: all
  uint32_t after = 0;
};
using Options = BlockOptions;

// "FROM:TO"; an end that is left out is the file's.
absl::StatusOr<EntityRange> ParseRange(std::string text) {
  if (text.starts_with(':')) text = "0" + text;
  if (text.ends_with(':')) text += "*";
  return ParseByteRange(text);
}

// Opens the store and looks through all of it.
int WithBlocks(const Context& context,
               absl::FunctionRef<int(DagStore&, const IndexedBlockstore&)> use) {
  return WithStore(context, [&](DagStore& store) {
    IndexedBlockstoreOptions options;
    options.work = InterruptibleWork();
    const IndexedBlockstore blocks(store, options);
    return use(store, blocks);
  });
}

int BadCid(const std::string& text, const absl::Status& status) {
  return UsageError(fmt::format("\"{}\": {}", text, Message(status)));
}

int RunGet(const Context& context, const Options& o) {
  const absl::StatusOr<Cid> cid = Cid::FromText(o.target);
  if (!cid.ok()) return BadCid(o.target, cid.status());
  return WithBlocks(context, [&](DagStore&, const IndexedBlockstore& blocks) {
    Block block;
    absl::Status status = blocks.Get(cid->view(), block);
    if (!status.ok()) return Fail("get", status);
    absl::StatusOr<std::unique_ptr<Output>> output = Output::Open(o.output);
    if (!output.ok()) return Fail("get", output.status());
    status = (*output)->Append(block.data());
    if (status.ok()) status = (*output)->Finish();
    return status.ok() ? int{kExitOk} : Fail("get", status);
  });
}

int RunHas(const Context& context, const Options& o) {
  const absl::StatusOr<Cid> cid = Cid::FromText(o.target);
  if (!cid.ok()) return BadCid(o.target, cid.status());
  return WithBlocks(context, [&](DagStore&, const IndexedBlockstore& blocks) {
    const absl::StatusOr<bool> has = blocks.Has(cid->view());
    if (!has.ok()) return Fail("has", has.status());
    if (context.json) {
      PrintLine({{"cid", cid->ToText()}, {"has", *has}});
    } else if (!context.quiet) {
      Print(*has ? "yes\n" : "no\n");
    }
    return int{*has ? kExitOk : kExitNotFound};
  });
}

int RunSize(const Context& context, const Options& o) {
  const absl::StatusOr<Cid> cid = Cid::FromText(o.target);
  if (!cid.ok()) return BadCid(o.target, cid.status());
  return WithBlocks(context, [&](DagStore&, const IndexedBlockstore& blocks) {
    const absl::StatusOr<uint64_t> size = blocks.GetSize(cid->view());
    if (!size.ok()) return Fail("size", size.status());
    if (context.json) {
      PrintLine({{"cid", cid->ToText()}, {"size", *size}});
    } else {
      Print(fmt::format("{}\n", *size));
    }
    return int{kExitOk};
  });
}

int RunFind(const Context& context, const Options& o) {
  const absl::StatusOr<Cid> cid = Cid::FromText(o.target);
  if (!cid.ok()) return BadCid(o.target, cid.status());
  return WithStore(context, [&](DagStore& store) {
    // In pages, however many shards there are; a root need not have a block in its CAR.
    FindShardsOptions find;
    find.after = o.after;
    uint64_t left = o.limit == 0 ? UINT64_MAX : o.limit;
    bool found = false;
    int code = kExitOk;
    do {
      find.shards_max = static_cast<size_t>(std::min<uint64_t>(left, kFindPage));
      const absl::StatusOr<ShardHoldersPage> page = store.FindShards(*cid, find);
      if (!page.ok()) return Fail("find", page.status());
      for (const ShardHolder& holder : page->shards) {
        if (context.json) {
          PrintLine({{"key", holder.key.bytes()}, {"block", holder.block}, {"root", holder.root}});
        } else {
          Print(LineText(holder.key.bytes()) + "\n");
        }
      }
      for (const UnreadShard& shard : page->unread) {
        code = Fail(fmt::format("find: shard \"{}\" may have it", shard.key.Printable()), shard.error);
      }
      found = found || !page->shards.empty();
      left -= page->shards.size();
      find.after = page->next_after;
      if (!Print("") || Interrupted().cancelled()) return int{kExitFailed};  // stdout may be gone
    } while (find.after != 0 && left != 0);
    if (find.after != 0) Complain(fmt::format("there may be more: --after {}", find.after));
    if (found || find.after != 0 || code != kExitOk) return code;
    return Fail("find", NotFound("no shard holds {}", cid->ToText()));
  });
}

// Resolves `o.target` and hands over what is at its end.
int WithPath(
    const Context& context, const char* verb, const Options& o,
    absl::FunctionRef<absl::Status(BlockGetter&, const DagPath&, const ResolvedPath&)> use) {
  const absl::StatusOr<DagPath> path = ParseDagPath(o.target);
  if (!path.ok()) return BadCid(o.target, path.status());
  return WithBlocks(context, [&](DagStore&, const IndexedBlockstore& blocks) {
    BlockstoreGetter getter(blocks);
    PathOptions options;
    options.work = InterruptibleWork();
    ResolvedPath resolved;
    absl::Status status = ResolvePath(getter, *path, options, resolved);
    if (status.ok()) status = use(getter, *path, resolved);
    return status.ok() ? int{kExitOk} : Fail(fmt::format("{} {}", verb, o.target), status);
  });
}

int RunCat(const Context& context, const Options& o) {
  EntityRange range;
  if (!o.range.empty()) {
    const absl::StatusOr<EntityRange> parsed = ParseRange(o.range);
    if (!parsed.ok())
      return UsageError(fmt::format("--range {}: {}", o.range, Message(parsed.status())));
    range = *parsed;
  }
  return WithPath(
      context, "cat", o,
      [&](BlockGetter& getter, const DagPath&, const ResolvedPath& resolved) -> absl::Status {
        const Cid& cid = resolved.terminus().cid;
        if (!resolved.remainder.empty())
          return FailedPrecondition("the path ends inside a block: use `dagstore dag`");
        const absl::StatusOr<UnixFsFile> file =
            UnixFsFile::Open(getter, cid.view(), InterruptibleWork());
        if (!file.ok()) {
          const absl::StatusOr<NodeInfo> node =
              InspectUnixFs(cid.view(), resolved.terminus().data.bytes());
          const bool folder = node.ok() && (node->kind == UnixFsKind::kDirectory ||
                                            node->kind == UnixFsKind::kHamtShard);
          if (folder) return FailedPrecondition("it is a directory: list it with `dagstore tree`");
          if (!node.ok() && absl::IsFailedPrecondition(node.status())) {
            return FailedPrecondition(
                "it is no UnixFS file: use `dagstore get` for the block, `dagstore dag` for the "
                "node");
          }
          return file.status();
        }
        const Extent extent = ResolveRange(range, file->size());
        ASSIGN_OR_RETURN(const std::unique_ptr<Output> output, Output::Open(o.output));
        if (!extent.empty()) {
          RETURN_IF_ERROR(file->ReadRange(extent.begin, extent.end - extent.begin,
                                          [&](Span bytes) { return output->Append(bytes); }));
        }
        return output->Finish();
      });
}

int RunExport(const Context& context, const Options& o) {
  const absl::StatusOr<DagPath> path = ParseDagPath(o.target);
  if (!path.ok()) return BadCid(o.target, path.status());
  CarExportOptions options;
  options.path.work = options.limits.work = InterruptibleWork();
  options.identity_sections = true;  // as kubo's `dag export`, and so as CARs of Filecoin have them
  options.dups = o.dups == "y";
  if (!o.scope.empty()) {
    options.scope = o.scope == "block"    ? DagScope::kBlock
                    : o.scope == "entity" ? DagScope::kEntity
                                          : DagScope::kAll;
  }
  if (!o.entity_bytes.empty()) {
    const absl::StatusOr<EntityRange> range = ParseRange(o.entity_bytes);
    if (!range.ok())
      return UsageError(
          fmt::format("--entity-bytes {}: {}", o.entity_bytes, Message(range.status())));
    options.entity_bytes = *range;
  }
  if (o.output.empty() && StdoutIsTerminal()) {
    return UsageError(
        "a CAR is no text for a terminal: use -o FILE, or send stdout to a file or program");
  }
  return WithBlocks(context, [&](DagStore&, const IndexedBlockstore& blocks) {
    const std::string what = fmt::format("export {}", o.target);
    const absl::StatusOr<std::unique_ptr<Output>> output = Output::Open(o.output);
    if (!output.ok()) return Fail(what, output.status());
    BlockstoreGetter getter(blocks);
    Progress progress(context, "exporting");
    CarExportStats stats;
    absl::Status status = ExportCar(
        getter, *path, options,
        [&](Span bytes) {
          progress.Update(0, 0, "", (*output)->bytes(), 0);
          return (*output)->Append(bytes);
        },
        &stats);
    if (status.ok()) status = (*output)->Finish();
    progress.Clear();
    if (!status.ok()) return Fail(what, status);
    if (!context.quiet && (*output)->is_file()) {
      Complain(fmt::format("{}, {} bytes", Count(stats.walk.blocks, "block"), stats.bytes_written));
    }
    return int{kExitOk};
  });
}

int RunDag(const Context& context, const Options& o) {
  return WithPath(context, "dag", o,
                  [&](BlockGetter&, const DagPath&, const ResolvedPath& resolved) -> absl::Status {
                    const CidView cid = resolved.terminus().cid.view();
                    const Span node = resolved.remainder.empty() ? resolved.terminus().data.bytes()
                                                                 : resolved.value;
                    ASSIGN_OR_RETURN(const std::string json, ToDagJson(cid.codec, node));
                    ASSIGN_OR_RETURN(const std::unique_ptr<Output> output, Output::Open(o.output));
                    RETURN_IF_ERROR(output->Append(AsSpan(json)));
                    if (!json.ends_with('\n')) RETURN_IF_ERROR(output->Append(AsSpan("\n")));
                    return output->Finish();
                  });
}

class Tree {
 public:
  Tree(const Context& context, BlockGetter& getter, bool recursive)
      : context_(context), getter_(getter), recursive_(recursive) {}

  // Without recursion: a DAG may be deeper than a stack.
  absl::Status Print(const Cid& root) {
    std::vector<Folder> stack;
    ASSIGN_OR_RETURN(Folder first, Read(root, ""));
    stack.push_back(std::move(first));
    while (!stack.empty()) {
      Folder& folder = stack.back();
      if (folder.next == folder.entries.size()) {
        stack.pop_back();
        continue;
      }
      const Entry entry = std::move(folder.entries[folder.next++]);
      const std::string name = folder.prefix + entry.name;
      RETURN_IF_ERROR(work_.Check());
      const std::optional<NodeInfo> node = Look(entry.cid);
      if (!PrintEntry(entry, name, node)) return Cancelled("stdout is closed");
      if (!recursive_ || !IsFolder(node)) continue;
      if (stack.size() >= kTreeDepthMax)
        return ResourceExhausted("folders are nested deeper than {}", kTreeDepthMax);
      ASSIGN_OR_RETURN(Folder below, Read(entry.cid, name + "/"));
      stack.push_back(std::move(below));
    }
    return absl::OkStatus();
  }

 private:
  struct Entry {
    std::string name = {};
    Cid cid = {};
    std::optional<uint64_t> tsize = {};
  };
  struct Folder {
    std::string prefix = {};
    std::vector<Entry> entries = {};
    size_t next = 0;
  };

  absl::StatusOr<Folder> Read(const Cid& cid, const std::string& prefix) {
    constexpr size_t kEntriesMax = 10'000'000;  // held in memory, to be sorted
    Folder folder{prefix, {}, 0};
    ListOptions options;
    options.work = work_;
    RETURN_IF_ERROR(ListDirectory(getter_, cid.view(), options, [&](const DirEntry& entry) {
      folder.entries.push_back({std::string(entry.name), Cid(entry.cid), entry.tsize});
      return folder.entries.size() <= kEntriesMax;
    }));
    if (folder.entries.size() > kEntriesMax)
      return ResourceExhausted("a folder has more than {} entries", kEntriesMax);
    std::sort(folder.entries.begin(), folder.entries.end(),
              [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return folder;
  }

  // Nothing if the block is not here, or is no UnixFS.
  std::optional<NodeInfo> Look(const Cid& cid) {
    const absl::StatusOr<BlockData> block = GetBlock(getter_, cid.view());
    if (!block.ok()) return std::nullopt;
    absl::StatusOr<NodeInfo> node = InspectUnixFs(cid.view(), block->bytes());
    return node.ok() ? std::optional<NodeInfo>(*std::move(node)) : std::nullopt;
  }
  static bool IsFolder(const std::optional<NodeInfo>& node) {
    return node.has_value() &&
           (node->kind == UnixFsKind::kDirectory || node->kind == UnixFsKind::kHamtShard);
  }

  // False once stdout is gone.
  bool PrintEntry(const Entry& entry, const std::string& name,
                  const std::optional<NodeInfo>& node) {
    const bool folder = IsFolder(node);
    const bool link = node.has_value() && node->kind == UnixFsKind::kSymlink;
    const std::string_view kind = !node.has_value() ? "unknown"
                                  : folder          ? "directory"
                                  : link            ? "symlink"
                                                    : "file";
    if (context_.json) {
      Json line = {{"name", name}, {"kind", kind}, {"cid", entry.cid.ToText()}};
      if (kind == "file") line["size"] = node->size;
      if (link) line["target"] = node->target;
      return PrintLine(line);
    }
    const std::string size = kind == "file"      ? std::to_string(node->size)
                             : kind == "unknown" ? "?"
                                                 : "-";
    return cli::Print(fmt::format("{}  {:>12}  {}{}{}\n", entry.cid.ToText(), size, LineText(name),
                                  folder ? "/" : "", link ? " -> " + LineText(node->target) : ""));
  }

  const Context& context_;
  BlockGetter& getter_;
  const bool recursive_;
  const WorkContext work_ = InterruptibleWork();
};

int RunTree(const Context& context, const Options& o) {
  return WithPath(
      context, "tree", o,
      [&](BlockGetter& getter, const DagPath&, const ResolvedPath& resolved) -> absl::Status {
        if (!resolved.remainder.empty())
          return FailedPrecondition("the path ends inside a block: use `dagstore dag`");
        return Tree(context, getter, o.recursive).Print(resolved.terminus().cid);
      });
}

}  // namespace

void DefineBlockCommands(CLI::App& app, Context& context) {
  const auto define = [&](const char* name, const char* help, const char* target,
                          int (*run)(const Context&, const Options&)) {
    auto o = std::make_shared<Options>();
    CLI::App* command = app.add_subcommand(name, help);
    command
        ->add_option(
            target, o->target,
            std::string_view(target) == "CID" ? "CID of the block" : "CID, or CID/path/to/it")
        ->required()
        ->type_name("");
    command->callback(
        [&context, o, run] { context.command = [&context, o, run] { return run(context, *o); }; });
    return std::pair(command, o);
  };
  const auto output = [](CLI::App* command, const std::shared_ptr<Options>& o) {
    command
        ->add_option("-o,--output", o->output,
                     "File to write, which appears when it is complete (default: stdout)")
        ->type_name("FILE");
  };
  const char* const kRange =
      "FROM:TO in bytes, both included; either may be left out; negative counts from the end,\n"
      "and a negative TO is left out itself: 0:-1 is all but the last byte";

  const auto [get, get_options] =
      define("get", "The bytes of a block, checked against its CID", "CID", RunGet);
  output(get, get_options);
  get->footer(
      "Example:\n  dagstore get bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e -o "
      "block\n");

  define("has", "Whether a block is here: yes or no, exit code 0 or 3", "CID", RunHas);
  define("size", "Length of a block in bytes, without reading it", "CID", RunSize);
  const auto [find, find_options] =
      define("find", "Keys of the shards that hold a block, or have it as a root, one a line",
             "CID", RunFind);
  find->add_option("--limit", find_options->limit,
                   "So many keys at most; where to go on is said on stderr (default: all)")
      ->check(CLI::Range(1, 1'000'000'000).description(""))
      ->type_name("N");
  find->add_option("--after", find_options->after, "Go on where a call with --limit ended")
      ->type_name("N");

  const auto [cat, cat_options] = define("cat", "The bytes of a UnixFS file", "CID[/path]", RunCat);
  cat->add_option("--range", cat_options->range, kRange)->type_name("R");
  output(cat, cat_options);
  cat->footer(
      "Examples:\n"
      "  dagstore cat bafybei.../docs/README.md\n"
      "  dagstore cat --range 0:99 bafybei.../video.mp4\n");

  const auto [exporting, export_options] =
      define("export", "A DAG as a CARv1, depth first", "CID[/path]", RunExport);
  exporting
      ->add_option("--dag-scope", export_options->scope,
                   "block, entity (one file or directory) or all (default: all)")
      ->check(CLI::IsMember({"block", "entity", "all"}).description(""))
      ->type_name("S");
  exporting
      ->add_option("--entity-bytes", export_options->entity_bytes,
                   std::string("Of a file only the blocks of ") + kRange)
      ->type_name("R");
  exporting
      ->add_option("--dups", export_options->dups,
                   "y: a block as often as it is met; n: once (default: n)")
      ->check(CLI::IsMember({"y", "n"}).description(""))
      ->type_name("y|n");
  output(exporting, export_options);
  exporting->footer("Example:\n  dagstore export bafybei.../photos -o photos.car\n");

  const auto [dag, dag_options] =
      define("dag", "A node as dag-json (dag-pb, dag-cbor, dag-json)", "CID[/path]", RunDag);
  output(dag, dag_options);

  const auto [tree, tree_options] =
      define("tree", "Entries of a UnixFS directory: CID, size, name", "CID[/path]", RunTree);
  tree->add_flag("-r,--recursive", tree_options->recursive, "And of the directories in it");
}

}  // namespace dagstore::cli
