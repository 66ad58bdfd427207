// `dagstore car`: a tool for CAR files. Needs no repository.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/hashing.h"
#include "index/car_index.h"
#include "tools/dagstore/cli.h"
#include "tools/dagstore/pack.h"

namespace dagstore::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kIndexBytesMax = 2ull << 30;  // read whole to be inspected: 50 million entries
constexpr size_t kCopyBytes = 1 << 20;

struct CarCommandOptions {
  std::string file = {};
  std::string cid = {};
  std::string output = {};
  std::string codec = "0x0401";
  bool wrap = false;
  bool identities = false;
  std::vector<std::string> inputs = {};
};
using Options = CarCommandOptions;

struct OpenCar {
  std::unique_ptr<RandomFile> file;
  std::unique_ptr<CarReader> reader;
  const CarHeader& header() const { return reader->header(); }
};

absl::StatusOr<OpenCar> Open(const std::string& path) {
  OpenCar car;
  ASSIGN_OR_RETURN(car.file, Io::Posix().Open(path));
  ASSIGN_OR_RETURN(car.reader, CarReader::Open(*car.file));
  return car;
}

// NotFound is about CIDs; a file that is missing has failed.
int FailFile(const char* verb, const std::string& path, const absl::Status& status) {
  Fail(fmt::format("car {} {}", verb, path), status);
  return kExitFailed;
}

absl::Status Walk(CarReader& reader, bool heads_only, Progress& progress,
                  absl::FunctionRef<absl::Status(const CarSection&)> visit) {
  const WorkContext work = InterruptibleWork();
  CarSection section;
  while (true) {
    RETURN_IF_ERROR(work.Check());
    ASSIGN_OR_RETURN(const bool more, heads_only ? reader.NextHead(section) : reader.Next(section));
    if (!more) return absl::OkStatus();
    RETURN_IF_ERROR(visit(section));
    progress.Update(0, 0, "", reader.position(), reader.header().payload_size);
  }
}

// ---- inspect ----

struct IndexKind {
  std::string text = "none";
  uint64_t entries = 0;
};

IndexKind LookAtIndex(const OpenCar& car) {
  IndexKind kind;
  const uint64_t offset = car.header().index_offset;
  if (offset == 0) return kind;
  const uint64_t size = car.file->Size() - offset;
  if (size > kIndexBytesMax)
    return {fmt::format("of {} (too large to be looked at)", HumanBytes(size)), 0};
  Bytes bytes(size);
  absl::Status status = car.file->Read(offset, size, bytes.data());
  if (status.ok()) {
    const absl::StatusOr<CarIndexView> view = ParseCarIndex(bytes, car.header().payload_size);
    if (view.ok()) {
      return {view->codec == kCodecCarIndexSorted ? "IndexSorted (0x0400)"
                                                  : "MultihashIndexSorted (0x0401)",
              view->entries};
    }
    status = view.status();
  }
  return {fmt::format("unreadable: {}", Message(status)), 0};
}

int RunInspect(const Context& context, const Options& o) {
  absl::StatusOr<OpenCar> car = Open(o.file);
  if (!car.ok()) return FailFile("inspect", o.file, car.status());
  std::map<std::string, uint64_t> codecs, hashes;
  uint64_t blocks = 0, bytes = 0, identities = 0, min = UINT64_MAX, max = 0;
  Progress progress(context, "reading");
  const absl::Status walked =
      Walk(*car->reader, /*heads_only=*/true, progress, [&](const CarSection& section) {
        ++blocks;
        bytes += section.data_size;
        min = std::min<uint64_t>(min, section.data_size);
        max = std::max<uint64_t>(max, section.data_size);
        identities += section.cid.IsIdentity();
        ++codecs[CodecName(section.cid.codec)];
        ++hashes[HashName(section.cid.hash.code)];
        return absl::OkStatus();
      });
  progress.Clear();
  if (!walked.ok()) return FailFile("inspect", o.file, walked);
  if (blocks == 0) min = 0;
  const CarHeader& header = car->header();
  const IndexKind index = LookAtIndex(*car);
  if (context.json) {
    Json json = {{"version", header.version},
                 {"roots", Json::array()},
                 {"blocks", blocks},
                 {"block_bytes", bytes},
                 {"block_bytes_min", min},
                 {"block_bytes_avg", blocks == 0 ? 0 : bytes / blocks},
                 {"block_bytes_max", max},
                 {"codecs", codecs},
                 {"hashes", hashes},
                 {"identity_blocks", identities},
                 {"file_bytes", car->file->Size()},
                 {"payload_offset", header.payload_offset},
                 {"payload_bytes", header.payload_size},
                 {"padding_bytes", car->reader->padding()},
                 {"index", index.text},
                 {"index_offset", header.index_offset},
                 {"index_entries", index.entries},
                 {"fully_indexed", header.fully_indexed}};
    for (const Cid& root : header.roots) json["roots"].push_back(root.ToText());
    PrintLine(json);
    return kExitOk;
  }
  const auto row = [](std::string_view name, std::string_view value) {
    Print(fmt::format("{:<10} {}\n", name, value));
  };
  const auto histogram = [](const std::map<std::string, uint64_t>& counts) {
    std::vector<std::pair<std::string, uint64_t>> sorted(counts.begin(), counts.end());
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::string text;
    for (const auto& [name, n] : sorted)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, n);
    return text.empty() ? std::string("-") : text;
  };
  row("version", std::to_string(header.version));
  for (size_t i = 0; i < header.roots.size(); ++i)
    row(i == 0 ? "roots" : "", header.roots[i].ToText());
  if (header.roots.empty()) row("roots", "none");
  row("blocks", std::to_string(blocks));
  row("bytes", fmt::format("{} in blocks (least {}, average {}, most {})", bytes, min,
                           blocks == 0 ? 0 : bytes / blocks, max));
  row("codecs", histogram(codecs));
  row("hashes", histogram(hashes));
  row("file", fmt::format("{} bytes", car->file->Size()));
  row("payload", fmt::format("{} bytes at {}", header.payload_size, header.payload_offset));
  row("padding", fmt::format("{} bytes", car->reader->padding()));
  row("index", index.entries == 0 ? index.text
                                  : fmt::format("{}, {} entries at {}{}", index.text, index.entries,
                                                header.index_offset,
                                                header.fully_indexed ? ", fully indexed" : ""));
  return kExitOk;
}

int RunList(const Context& context, const Options& o) {
  absl::StatusOr<OpenCar> car = Open(o.file);
  if (!car.ok()) return FailFile("ls", o.file, car.status());
  Progress progress(context, "reading");
  const absl::Status walked =
      Walk(*car->reader, /*heads_only=*/true, progress, [&](const CarSection& section) {
        const std::string cid = Cid(section.cid).ToText();
        const uint64_t offset = car->header().payload_offset + section.offset + section.head_size;
        const bool printed =
            context.json
                ? PrintLine({{"cid", cid}, {"offset", offset}, {"size", section.data_size}})
                : Print(fmt::format("{} {} {}\n", cid, offset, section.data_size));
        return printed ? absl::OkStatus() : Cancelled("stdout is closed");
      });
  progress.Clear();
  return walked.ok() ? int{kExitOk} : FailFile("ls", o.file, walked);
}

int RunRoot(const Context& context, const Options& o) {
  const absl::StatusOr<OpenCar> car = Open(o.file);
  if (!car.ok()) return FailFile("root", o.file, car.status());
  for (const Cid& root : car->header().roots) {
    if (context.json)
      PrintLine({{"cid", root.ToText()}});
    else
      Print(root.ToText() + "\n");
  }
  return kExitOk;
}

// ---- verify ----

int RunCarVerify(const Context& context, const Options& o) {
  absl::StatusOr<OpenCar> car = Open(o.file);
  if (!car.ok()) return FailFile("verify", o.file, car.status());
  uint64_t blocks = 0, bad = 0, unverifiable = 0;
  Progress progress(context, "verifying");
  const WorkContext work = InterruptibleWork();
  std::vector<CarSection> sections;
  std::vector<HashJob> jobs;
  const absl::Status walked = [&]() -> absl::Status {
    while (true) {
      RETURN_IF_ERROR(work.Check());
      ASSIGN_OR_RETURN(const bool more, car->reader->NextBatch(sections));
      if (!more) return absl::OkStatus();
      jobs.clear();
      for (const CarSection& section : sections) jobs.push_back({section.cid.hash, section.data});
      VerifyBlocks(jobs);
      for (size_t i = 0; i < jobs.size(); ++i) {
        ++blocks;
        unverifiable += jobs[i].result == HashCheck::kUnverifiable;
        if (jobs[i].result != HashCheck::kMismatch) continue;
        ++bad;
        progress.Clear();
        const uint64_t offset = car->header().payload_offset + sections[i].offset;
        const std::string cid = Cid(sections[i].cid).ToText();
        if (context.json)
          PrintLine(
              {{"cid", cid}, {"offset", offset}, {"problem", "the bytes do not match the CID"}});
        else
          Print(fmt::format("{} at {}: the bytes do not match the CID\n", cid, offset));
      }
      progress.Update(0, 0, "", car->reader->position(), car->header().payload_size);
    }
  }();
  absl::Status embedded = absl::OkStatus();
  if (walked.ok() && car->header().index_offset != 0) {
    IndexBuildOptions build;
    build.verify = false;
    embedded = UseEmbeddedIndex(*car->file, build, IndexOutput(), work).status();
  }
  progress.Clear();
  if (!walked.ok()) return FailFile("verify", o.file, walked);
  const bool sound = bad == 0 && embedded.ok();
  if (context.json) {
    Json json = {{"blocks", blocks},
                 {"bad_blocks", bad},
                 {"unverifiable_blocks", unverifiable},
                 {"sound", sound}};
    if (!embedded.ok()) json["index_problem"] = ToString(embedded);
    PrintLine(json);
  } else if (!context.quiet) {
    std::string line = fmt::format("{}: ", Count(blocks, "block"));
    line += bad == 0 ? "all sound" : fmt::format("{} bad", bad);
    if (unverifiable != 0) line += fmt::format(" ({} of unknown hash functions)", unverifiable);
    Print(line + "\n");
  }
  if (!embedded.ok()) return FailFile("verify", o.file, Annotate(embedded, "embedded index"));
  return sound ? kExitOk : kExitFailed;
}

// ---- index ----

class OutputSink final : public IndexSink {
 public:
  explicit OutputSink(Output& output) : output_(output) {}
  absl::Status Append(Span bytes) override { return output_.Append(bytes); }

 private:
  Output& output_;
};

absl::Status CopyRange(const RandomReader& from, uint64_t offset, uint64_t size, Output& to) {
  Bytes buffer(kCopyBytes);
  const WorkContext work = InterruptibleWork();
  while (size != 0) {
    RETURN_IF_ERROR(work.Check());
    const size_t n = std::min<uint64_t>(size, buffer.size());
    RETURN_IF_ERROR(from.Read(offset, n, buffer.data()));
    RETURN_IF_ERROR(to.Append(Span(buffer.data(), n)));
    offset += n;
    size -= n;
  }
  return absl::OkStatus();
}

absl::Status WriteIndex(const Context& context, const Options& o) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RandomFile> file, Io::Posix().Open(o.file));
  IndexBuildOptions build;
  Progress progress(context, "indexing");
  ASSIGN_OR_RETURN(BuiltIndex built, BuildIndex(*file, build, IndexOutput(), InterruptibleWork(),
                                                [&](uint64_t done, uint64_t total, uint64_t) {
                                                  progress.Update(0, 0, "", done, total);
                                                }));
  progress.Clear();
  const uint64_t payload_offset = built.summary.payload_offset;
  const uint64_t payload_size = built.summary.payload_size;
  ASSIGN_OR_RETURN(const std::shared_ptr<const ShardIndex> index,
                   OpenNativeIndex(std::move(built.heap)));
  ASSIGN_OR_RETURN(const std::unique_ptr<Output> output, Output::Open(o.output));
  if (o.wrap) {
    CarV2Layout layout;
    layout.data_size = payload_size;
    layout.index_offset = layout.data_offset + payload_size;
    layout.fully_indexed = o.identities;
    RETURN_IF_ERROR(output->Append(EncodeCarV2Header(layout)));
    RETURN_IF_ERROR(CopyRange(*file, payload_offset, payload_size, *output));
  }
  OutputSink sink(*output);
  const uint64_t codec = o.codec == "0x0400" ? kCodecCarIndexSorted : kCodecCarMultihashIndexSorted;
  RETURN_IF_ERROR(WriteCarIndex(*index, codec,
                                o.identities ? Identities::kInclude : Identities::kLeaveOut, sink));
  return output->Finish();
}

int RunIndex(const Context& context, const Options& o) {
  if (o.output.empty() && StdoutIsTerminal()) {
    return UsageError(
        "an index is no text for a terminal: use -o FILE, or send stdout to a file or program");
  }
  const absl::Status status = WriteIndex(context, o);
  return status.ok() ? int{kExitOk} : FailFile("index", o.file, status);
}

// ---- get, create ----

int RunCarGet(const Context& context, const Options& o) {
  const absl::StatusOr<Cid> cid = Cid::FromText(o.cid);
  if (!cid.ok()) return UsageError(fmt::format("\"{}\": {}", o.cid, Message(cid.status())));
  absl::StatusOr<OpenCar> car = Open(o.file);
  if (!car.ok()) return FailFile("get", o.file, car.status());
  Progress progress(context, "searching");
  const WorkContext work = InterruptibleWork();
  bool found = false;
  const absl::Status status = [&]() -> absl::Status {
    CarSection section;
    while (true) {
      RETURN_IF_ERROR(work.Check());
      ASSIGN_OR_RETURN(const bool more, car->reader->NextHead(section));
      if (!more) return absl::OkStatus();
      progress.Update(0, 0, "", car->reader->position(), car->header().payload_size);
      if (!(section.cid.hash == cid->hash())) continue;
      Bytes data(
          section.data_size);  // at most CarOptions::section_bytes_max, and wholly inside the file
      RETURN_IF_ERROR(
          car->file->Read(car->header().payload_offset + section.offset + section.head_size,
                          data.size(), data.data()));
      if (VerifyBlock(cid->hash(), data) == HashCheck::kMismatch) {
        return DataLoss("the bytes at payload byte {} do not match {}", section.offset,
                        cid->ToText());
      }
      found = true;
      ASSIGN_OR_RETURN(const std::unique_ptr<Output> output, Output::Open(o.output));
      RETURN_IF_ERROR(output->Append(data));
      return output->Finish();
    }
  }();
  progress.Clear();
  if (!status.ok()) return FailFile("get", o.file, status);
  if (found) return kExitOk;
  return Fail(fmt::format("car get {}", o.file), NotFound("no block {}", cid->ToText()));
}

absl::Status Create(const Context& context, const Options& o, Cid& root, PackStats& stats) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Output> output, Output::Open(o.file));
  if (!output->is_file())
    return InvalidArgument("the CAR must go to a file: its header is written last");
  // The root is known at the end; its header is as long as that of any other CID of the same kind.
  ASSIGN_OR_RETURN(const Cid placeholder, Cid::Of(kCodecRaw, kSha2_256, Span()));
  const size_t header_size = EncodeCarHeader({placeholder}).size();
  RETURN_IF_ERROR(output->Append(EncodeCarHeader({placeholder})));
  Progress progress(context, "packing");
  ASSIGN_OR_RETURN(root, Pack(
                             o.inputs,
                             [&](Span bytes) {
                               progress.Update(stats.files, 0, "files", output->bytes(), 0);
                               return output->Append(bytes);
                             },
                             [&](const FileStat& file) { return output->IsOurs(file); },
                             InterruptibleWork(), stats));
  const Bytes header = EncodeCarHeader({root});
  DAGSTORE_CHECK(header.size() == header_size);
  RETURN_IF_ERROR(output->WriteAt(0, header));
  return output->Finish();
}

int RunCreate(const Context& context, const Options& o) {
  Cid root;
  PackStats stats;
  const absl::Status status = Create(context, o, root, stats);
  if (!status.ok()) return FailFile("create", o.file, status);
  if (context.json) {
    PrintLine({{"root", root.ToText()},
               {"blocks", stats.blocks},
               {"files", stats.files},
               {"folders", stats.folders},
               {"file_bytes", stats.file_bytes}});
    return kExitOk;
  }
  Print(root.ToText() + "\n");
  if (!context.quiet) {
    Complain(fmt::format("{}, {} in {}", Count(stats.files, "file"), HumanBytes(stats.file_bytes),
                         Count(stats.blocks, "block")));
  }
  return kExitOk;
}

}  // namespace

void DefineCarCommands(CLI::App& app, Context& context) {
  CLI::App* car =
      app.add_subcommand("car", "Look into CAR files and make them; needs no repository");
  car->require_subcommand(1);
  const auto define = [&](const char* name, const char* help, const char* file_help,
                          int (*run)(const Context&, const Options&)) {
    auto o = std::make_shared<Options>();
    CLI::App* command = car->add_subcommand(name, help);
    command->add_option("FILE", o->file, file_help)->required()->type_name("");
    command->callback(
        [&context, o, run] { context.command = [&context, o, run] { return run(context, *o); }; });
    return std::pair(command, o);
  };
  const char* const kFile = "CAR file, version 1 or 2";
  define("inspect", "Version, roots, counts of blocks by codec and hash, sizes, index, padding",
         kFile, RunInspect);
  define("ls", "Every block: CID, place of its bytes in the file, size", kFile, RunList);
  define("root", "The roots, one a line", kFile, RunRoot);
  define("verify",
         "Hash every block, and check the index of a CARv2; exit code 1 if anything is wrong",
         kFile, RunCarVerify);

  const auto [index, index_options] =
      define("index", "Write the index of a CAR as CARv2 files carry it", kFile, RunIndex);
  index
      ->add_option("--codec", index_options->codec,
                   "0x0400 IndexSorted, 0x0401 MultihashIndexSorted (default: 0x0401)")
      ->check(CLI::IsMember({"0x0400", "0x0401"}).description(""))
      ->type_name("CODEC");
  index->add_flag("--wrap", index_options->wrap, "Write a whole CARv2: header, payload, index");
  index->add_flag("--identities", index_options->identities,
                  "List identity CIDs too, which mark a CARv2 as fully indexed");
  index->add_option("-o,--output", index_options->output, "File to write (default: stdout)")
      ->type_name("FILE");
  index->footer("Example:\n  dagstore car index --wrap chain.car -o chain-v2.car\n");

  const auto [get, get_options] =
      define("get", "The bytes of one block, checked against its CID", kFile, RunCarGet);
  get->add_option("CID", get_options->cid, "CID of the block")->required()->type_name("");
  get->add_option("-o,--output", get_options->output, "File to write (default: stdout)")
      ->type_name("FILE");

  const auto [create, create_options] = define(
      "create", "Pack files and folders as UnixFS; prints the root", "CAR to write", RunCreate);
  create
      ->add_option("INPUT", create_options->inputs,
                   "Files and folders; several get a folder around them. The CAR itself is left\n"
                   "out of the folder it is written to")
      ->required()
      ->type_name("");
  create->footer("Example:\n  dagstore car create photos.car photos/\n");
}

}  // namespace dagstore::cli
