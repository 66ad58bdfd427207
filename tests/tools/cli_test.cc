// Goal: the dagstore command does what its help says, with the exit codes scripts rely on.
// Method: runs the built program on copies of real CARs, in folders of its own.
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "dagstore/dagstore.h"
#include "mount/file_mount.h"
#include "tests/made_cars.h"
#include "tests/tools/process.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::json;

constexpr char kSimpleRoot[] = "QmPLPpnptHc1DMhJAWNYMTqBTqqRQNy5WsY7F9pZgsBfMT";

// A repository in a folder of its own.
class Repo {
 public:
  std::string path() const { return dir_.File("repo"); }
  std::string File(const std::string& name) const { return dir_.File(name); }
  Outcome Run(std::vector<std::string> arguments, const std::string& input = {}) const {
    arguments.insert(arguments.begin(), {DAGSTORE_BINARY, "--repo", path()});
    return RunProgram(arguments, input);
  }
  std::string Copy(const std::string& data, const std::string& name) const {
    fs::create_directories(fs::path(File(name)).parent_path());
    fs::copy_file(TestDataPath(data), File(name));
    return File(name);
  }

 private:
  TempDir dir_;
};

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<Json> JsonLines(const std::string& text) {
  std::vector<Json> out;
  for (const std::string& line : Lines(text)) {
    out.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
    INFO(line);
    CHECK(!out.back().is_discarded());
  }
  return out;
}

std::set<std::string> Keys(const Outcome& ls) {
  std::set<std::string> keys;
  for (const Json& line : JsonLines(ls.out)) keys.insert(line["key"].get<std::string>());
  return keys;
}

// One line on stderr that has `words`.
void CheckError(const Outcome& outcome, int code, const std::string& words) {
  INFO(outcome.err);
  CHECK_EQ(outcome.code, code);
  CHECK_EQ(Lines(outcome.err).size(), 1);
  CHECK(outcome.err.starts_with("dagstore: "));
  CHECK(outcome.err.find(words) != std::string::npos);
}

void CheckOk(const Outcome& outcome) {
  INFO(outcome.err);
  CHECK_EQ(outcome.code, 0);
}

// A CAR of `blocks` raw blocks that no other `seed` has.
void WriteCar(const std::string& path, int seed, int blocks) {
  std::vector<TestBlock> made;
  for (int i = 0; i < blocks; ++i) {
    const std::string content = fmt::format("block {} of car {}", i, seed);
    made.push_back(RawBlock(Bytes(content.begin(), content.end())));
  }
  WriteTextFile(path, std::string(AsText(CarOf(made))));
}

TEST_CASE("cli: a folder is added, listed and read") {
  const Repo repo;
  repo.Copy("go-car/simple-unixfs.car", "cars/simple-unixfs.car");
  repo.Copy("boxo/hello.car", "cars/sub/hello.car");
  repo.Copy("go-car/sample-wrapped-v2.car", "cars/sub/sample.car");
  WriteTextFile(repo.File("cars/readme.txt"), "not a CAR");

  const Outcome add = repo.Run({"--json", "add", repo.File("cars")});
  CheckOk(add);
  const std::vector<Json> added = JsonLines(add.out);
  REQUIRE_EQ(added.size(), 3);
  for (const Json& line : added) CHECK_EQ(line["state"], "Available");

  const Outcome ls = repo.Run({"ls"});
  CheckOk(ls);
  CHECK_EQ(Lines(ls.out).size(), 3);
  CHECK(Lines(ls.out)[0].starts_with("hello.car "));
  CHECK_EQ(Keys(repo.Run({"ls", "--json", "--prefix", "s"})),
           std::set<std::string>{"sample.car", "simple-unixfs.car"});
  CHECK_EQ(Keys(repo.Run({"ls", "--json", "--limit", "1", "--after", "hello.car"})),
           std::set<std::string>{"sample.car"});
  CHECK_EQ(repo.Run({"ls", "--state", "errored"}).out, "");

  const std::string block = "bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw";
  const Bytes expected = ReadTestData("go-car/" + block + ".block");
  const Outcome get = repo.Run({"get", block});
  CheckOk(get);
  CHECK(SameBytes(AsSpan(get.out), expected));
  CheckOk(repo.Run({"get", block, "-o", repo.File("block")}));
  CHECK(SameBytes(AsSpan(ReadTextFile(repo.File("block"))), expected));
  CHECK_EQ(repo.Run({"size", block}).out, fmt::format("{}\n", expected.size()));
  CHECK_EQ(repo.Run({"has", block}).out, "yes\n");
  CHECK_EQ(repo.Run({"find", block}).out, "sample.car\n");
  // In pages.
  CheckOk(repo.Run({"add", "--key", "again", TestDataPath("go-car/sample-v1.car")}));
  CHECK_EQ(Keys(repo.Run({"find", "--json", block})), std::set<std::string>{"again", "sample.car"});
  const Outcome page = repo.Run({"find", "--limit", "1", block});
  CHECK_EQ(page.out, "sample.car\n");
  const size_t next = page.err.find("--after ");
  REQUIRE(next != std::string::npos);
  const std::string after = std::to_string(std::stoul(page.err.substr(next + 8)));
  CHECK_EQ(repo.Run({"find", "--after", after, block}).out, "again\n");
  CHECK_EQ(repo.Run({"find", "--limit", "0", block}).code, 2);
  CheckOk(repo.Run({"rm", "again"}));

  CHECK_EQ(repo.Run({"cat", std::string(kSimpleRoot) + "/a/2/B.txt"}).out, "a2B\n");
  CHECK_EQ(repo.Run({"cat", "--range", "1:1", std::string(kSimpleRoot) + "/a/2/B.txt"}).out, "2");
  CHECK_EQ(repo.Run({"cat", "--range", "-2:", std::string(kSimpleRoot) + "/a/2/B.txt"}).out, "B\n");
  CheckError(repo.Run({"cat", kSimpleRoot}), 1, "dagstore tree");
  CHECK_EQ(Lines(repo.Run({"tree", kSimpleRoot}).out).size(), 3);
  const Outcome tree = repo.Run({"--json", "tree", "-r", kSimpleRoot});
  CHECK_EQ(JsonLines(tree.out).size(), 21);
  const Outcome dag = repo.Run({"dag", kSimpleRoot});
  CHECK_EQ(JsonLines(dag.out).at(0)["Links"].size(), 3);

  for (const char* command : {"info", "stats"}) {
    for (const bool json : {false, true}) {
      std::vector<std::string> arguments = {command};
      if (std::string(command) == "info") arguments.push_back("sample.car");
      if (json) arguments.push_back("--json");
      const Outcome outcome = repo.Run(arguments);
      CheckOk(outcome);
      if (json)
        CHECK_EQ(JsonLines(outcome.out).size(), 1);
      else
        CHECK(outcome.out.find("blocks") != std::string::npos);
    }
  }
}

TEST_CASE("cli: exit codes tell usage, not found and failure apart") {
  const Repo repo;
  CheckError(repo.Run({"ls"}), 1, "add a CAR with `dagstore add`");
  CHECK(!fs::exists(repo.path()));
  CheckError(repo.Run({"add", repo.File("nothing.car")}), 1, "no such file");
  CHECK(!fs::exists(repo.path()));
  CheckOk(repo.Run({"add", TestDataPath("boxo/hello.car")}));

  const std::string absent = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  CheckError(repo.Run({"get", absent}), 3, absent);
  CheckError(repo.Run({"size", absent}), 3, absent);
  CheckError(repo.Run({"find", absent}), 3, absent);
  CheckError(repo.Run({"cat", absent}), 3, absent);
  CheckError(repo.Run({"export", absent}), 3, absent);
  CheckError(repo.Run({"info", "nothing"}), 3, "nothing");
  CheckError(repo.Run({"rm", "nothing"}), 3, "nothing");
  CheckError(repo.Run({"recover", "nothing"}), 3, "nothing");
  const Outcome has = repo.Run({"has", absent});
  CHECK_EQ(has.code, 3);
  CHECK_EQ(has.out, "no\n");

  // Of what is there, but has nowhere to go.
  const std::string nowhere = repo.File("no/such/folder/f");
  const std::string hello = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
  CheckOk(repo.Run({"add", TestDataPath("go-car/simple-unixfs.car")}));
  for (const std::string command : {"get", "cat", "export", "dag"}) {
    CAPTURE(command);
    CheckError(repo.Run({command, command == "dag" ? kSimpleRoot : hello, "-o", nowhere}), 1, nowhere);
  }

  CheckError(repo.Run({"get", "no-cid"}), 2, "no-cid");
  CheckError(repo.Run({"get"}), 2, "CID");
  CheckError(repo.Run({"frobnicate"}), 2, "frobnicate");
  CheckError(repo.Run({"car", "frobnicate"}), 2, "frobnicate");
  CheckError(repo.Run({"ls", "--frobnicate"}), 2, "--frobnicate");
  CheckError(repo.Run({"ls", "--state", "sleepy"}), 2, "sleepy");
  CheckError(repo.Run({"verify"}), 2, "--all");
  CheckError(repo.Run({"recover"}), 2, "--errored");
  CheckError(repo.Run({"cat", kSimpleRoot, "--range", "5"}), 2, "--range");
  CheckError(repo.Run({"add", "--key", "k", TestDataPath("boxo/hello.car"),
                       TestDataPath("go-car/sample-v1.car")}),
             2, "--key");
  CHECK_EQ(RunProgram({DAGSTORE_BINARY}).code, 2);
  CheckOk(repo.Run({"--version"}));

  const TempDir stranger;
  WriteTextFile(stranger.File("diary.txt"), "dear diary");
  for (const char* command : {"ls", "fsck"}) {
    CheckError(RunProgram({DAGSTORE_BINARY, "--repo", stranger.path(), command}), 1,
               "no dagstore repository");
  }
  CheckError(RunProgram({DAGSTORE_BINARY, "--repo", stranger.path(), "add",
                         TestDataPath("boxo/hello.car")}),
             1, "no dagstore repository");
  CHECK_EQ(std::distance(fs::directory_iterator(stranger.path()), fs::directory_iterator()), 1);
}

TEST_CASE("cli: a bad CAR is kept with its cause, and the others are added") {
  const Repo repo;
  const Outcome add = repo.Run(
      {"add", TestDataPath("boxo/hello.car"), TestDataPath("nft.storage/corrupt.car"),
       TestDataPath("go-car/sample-rootless-v42.car"), TestDataPath("go-car/simple-unixfs.car")});
  CHECK_EQ(add.code, 1);
  CHECK_EQ(Lines(add.out).size(), 2);
  CHECK(add.err.find("corrupt.car") != std::string::npos);
  const std::vector<Json> errored = JsonLines(repo.Run({"--json", "ls", "--state", "Errored"}).out);
  REQUIRE_EQ(errored.size(), 2);
  CHECK_EQ(errored[0]["key"], "corrupt.car");
  CHECK(errored[0]["error"].get<std::string>().starts_with("DATA_LOSS"));
  CHECK(repo.Run({"ls"}).out.find("version 42") != std::string::npos);
  CheckOk(repo.Run({"fsck"}));
}

TEST_CASE("cli: what is added in later runs is found by CID, too") {
  const Repo repo;
  for (int i = 0; i < 9; ++i) {  // past the sizes at which tables of ordinals grow
    CAPTURE(i);
    const std::string name = fmt::format("{}.car", i);
    WriteCar(repo.File(name), i, 2);
    CheckOk(repo.Run({"add", repo.File(name)}));
    const Outcome root = repo.Run({"car", "root", repo.File(name)});
    CHECK_EQ(repo.Run({"find", root.out.substr(0, root.out.size() - 1)}).out, name + "\n");
  }
  CheckOk(repo.Run({"fsck"}));
}

TEST_CASE("cli: adding again changes nothing, and finishes what failed") {
  const Repo repo;
  const std::string path = repo.Copy("nft.storage/corrupt.car", "x.car");
  repo.Copy("boxo/hello.car", "y.car");
  CHECK_EQ(repo.Run({"add", repo.File("x.car"), repo.File("y.car")}).code, 1);
  const Outcome again = repo.Run({"--json", "add", repo.File("y.car")});
  CheckOk(again);
  REQUIRE_EQ(JsonLines(again.out).size(), 1);
  CHECK_EQ(JsonLines(again.out)[0]["exists"], true);
  fs::copy_file(TestDataPath("go-car/simple-unixfs.car"), path,
                fs::copy_options::overwrite_existing);
  CheckOk(repo.Run({"add", repo.path() + "/../x.car"}));
  CHECK_EQ(repo.Run({"ls", "--state", "errored"}).out, "");
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})), std::set<std::string>{"x.car", "y.car"});
}

TEST_CASE("cli: keys are file names, with folders before them where another has the name") {
  const Repo repo;
  repo.Copy("boxo/hello.car", "cars/a/x.car");
  repo.Copy("go-car/simple-unixfs.car", "cars/b/x.car");
  repo.Copy("go-car/sample-unixfs-v2.car", "cars/deep/b/x.car");
  CheckOk(repo.Run({"add", repo.File("cars")}));
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})),
           std::set<std::string>{"x.car", "b/x.car", "deep/b/x.car"});
  // A list on stdin, the same files by other names: nothing new.
  CheckOk(repo.Run({"add", "-"}, "file://" + repo.File("cars/a/x.car") + "\n\n" +
                                     repo.File("cars/b/../b/x.car") + "\n"));
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})).size(), 3);
  CheckOk(repo.Run({"add", "--key", "mine \n", TestDataPath("beetle/big-foo.car")}));
  CHECK(Keys(repo.Run({"--json", "ls"})).contains("mine \n"));
  CHECK(repo.Run({"ls"}).out.find("mine \\x0a ") != std::string::npos);
  CheckError(repo.Run({"--quiet", "add", "--key", "x.car", TestDataPath("beetle/big-foo.car")}), 1,
             "x.car");
  CheckOk(repo.Run({"add", repo.File("cars/*/x.car")}));
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})).size(), 4);
  CheckOk(repo.Run({"add", "bytes:AAAA", "bytes:AAAB", "--lazy"}));
  CHECK_EQ(Keys(repo.Run({"--json", "ls", "--state", "new"})).size(), 2);
}

TEST_CASE("cli: --also is of one CAR, takes one URL at a time, and is not lost in silence") {
  const Repo repo;
  const std::string a = repo.Copy("boxo/hello.car", "a.car");
  const std::string b = repo.Copy("go-car/sample-v1.car", "b.car");
  const std::string also = "file://" + repo.Copy("boxo/hello.car", "mirror/a.car");
  CheckError(repo.Run({"add", a, b, "--also", also}), 2, "there are 2 CARs");
  CheckError(repo.Run({"add", "--also", also, a, b}), 2, "there are 2 CARs");
  CHECK(!fs::exists(repo.path()));
  CheckOk(repo.Run({"add", "--also", also, a}));
  CHECK(repo.Run({"info", "a.car"}).out.find("mirror/a.car") != std::string::npos);
  // With these it is there; with others it is not what was asked for.
  CHECK(repo.Run({"add", "--also", also, a}).err.find("--also") == std::string::npos);
  const Outcome again = repo.Run({"add", a, "--also", also, "--also", "file://" + b});
  CHECK_EQ(again.code, 0);
  CHECK(again.err.find("\"a.car\" is there already: --also is not taken") != std::string::npos);
}

TEST_CASE("cli: add says what it cannot look at, and goes on") {
  const Repo repo;
  fs::create_symlink("l.car", repo.File("l.car"));
  CheckError(repo.Run({"add", repo.File("*.car")}), 1, "Too many levels of symbolic links");
  CheckError(repo.Run({"add", repo.File("l.car")}), 1, "Too many levels of symbolic links");
  CheckError(repo.Run({"add", repo.File("no.car")}), 1, "no such file or folder");
  repo.Copy("boxo/hello.car", "m.car");
  const Outcome add = repo.Run({"add", repo.File("*.car")});
  CHECK_EQ(add.code, 1);
  CHECK(add.err.find("l.car: Too many") != std::string::npos);
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})), std::set<std::string>{"m.car"});
}

// As a run whose reader has gone: `| head`.
Outcome RunUnread(const Repo& repo, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {DAGSTORE_BINARY, "--repo", repo.path()});
  int pipe_fds[2];
  REQUIRE_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  close(pipe_fds[0]);
  const pid_t pid = Spawn(arguments, pipe_fds[1], "/dev/null", repo.File("err"));
  close(pipe_fds[1]);
  Outcome outcome;
  outcome.code = Wait(pid);
  outcome.err = ReadTextFile(repo.File("err"));
  return outcome;
}

TEST_CASE("cli: tree and find end when nobody reads them any more") {
  const Repo repo;
  fs::create_directories(repo.File("cars"));
  fs::create_directories(repo.File("in"));
  constexpr int kNames = 150;  // more than stdout's buffer holds
  for (int i = 0; i < kNames; ++i) {
    const std::string name = fmt::format("{:0100}", i);
    WriteTextFile(repo.File("in/" + name), "");
    WriteCar(repo.File("cars/" + name + ".car"), 1, 1);
  }
  const Outcome create = repo.Run({"--quiet", "car", "create", repo.File("tree.car"), repo.File("in")});
  CheckOk(create);
  CheckOk(repo.Run({"add", repo.File("cars"), repo.File("tree.car")}));
  CheckError(RunUnread(repo, {"tree", create.out.substr(0, create.out.size() - 1)}), 1, "stdout is closed");
  const std::string held = repo.Run({"car", "root", repo.File("cars/" + fmt::format("{:0100}", 0) + ".car")}).out;
  const Outcome find = RunUnread(repo, {"find", held.substr(0, held.size() - 1), "--limit", "149"});
  CHECK_EQ(find.code, 1);
  CHECK_EQ(find.err, "");  // not where to go on
}

TEST_CASE("cli: export of a shuffled CAR gives the CAR in order") {
  const Repo repo;
  CheckOk(repo.Run({"add", TestDataPath("kubo/lotus_devnet_genesis_shuffled_noroots.car")}));
  const Outcome root = repo.Run({"car", "root", TestDataPath("kubo/lotus_devnet_genesis.car")});
  const std::string cid = root.out.substr(0, root.out.size() - 1);
  const Bytes expected = ReadTestData("kubo/lotus_devnet_genesis.car");
  const Outcome piped = repo.Run({"export", cid});
  CheckOk(piped);
  CHECK(SameBytes(AsSpan(piped.out), expected));
  CheckOk(repo.Run({"export", cid, "-o", repo.File("out.car")}));
  CHECK(SameBytes(AsSpan(ReadTextFile(repo.File("out.car"))), expected));
  CheckOk(repo.Run({"export", cid, "--dag-scope", "block", "-o", repo.File("out.car")}));
  CHECK_EQ(Lines(repo.Run({"car", "ls", repo.File("out.car")}).out).size(), 1);
}

TEST_CASE("cli: a root without a block is found") {
  const Repo repo;
  CheckOk(repo.Run({"add", TestDataPath("kubo/combined_naked_roots_genesis_and_128.car")}));
  const Outcome roots =
      repo.Run({"car", "root", TestDataPath("kubo/combined_naked_roots_genesis_and_128.car")});
  REQUIRE_EQ(Lines(roots.out).size(), 2);
  for (const std::string& root : Lines(roots.out)) {
    CHECK_EQ(repo.Run({"find", root}).out, "combined_naked_roots_genesis_and_128.car\n");
    CHECK_EQ(repo.Run({"get", root}).code, 3);
  }
}

TEST_CASE("cli: verify finds a flipped byte, and recover works once it is mended") {
  const Repo repo;
  const std::string path = repo.Copy("go-car/simple-unixfs.car", "cars/s.car");
  repo.Copy("boxo/hello.car", "cars/h.car");
  CheckOk(repo.Run({"add", repo.File("cars")}));
  const Outcome sound = repo.Run({"verify", "--all"});
  CheckOk(sound);
  CHECK_EQ(Lines(sound.out).size(), 2);

  const std::string good = ReadTextFile(path);
  std::string bad = good;
  bad.back() ^= 1;
  WriteTextFile(path, bad);
  const Outcome found = repo.Run({"--json", "verify", "--all"});
  CHECK_EQ(found.code, 1);
  for (const Json& line : JsonLines(found.out)) {
    const bool is_bad = line["key"] == "s.car";
    CHECK_EQ(line["verdict"], is_bad ? "bad" : "ok");
    CHECK_EQ(line["bad_blocks"], is_bad ? 1 : 0);
  }
  const std::vector<Json> errored = JsonLines(repo.Run({"--json", "ls", "--state", "errored"}).out);
  REQUIRE_EQ(errored.size(), 1);
  CHECK_EQ(errored[0]["key"], "s.car");
  CHECK_EQ(repo.Run({"recover", "s.car"}).code, 1);
  CHECK_EQ(repo.Run({"verify", "--repair", "s.car"}).code, 1);

  WriteTextFile(path, good);
  CheckOk(repo.Run({"recover", "--errored"}));
  CheckOk(repo.Run({"verify", "--all"}));
  CheckOk(repo.Run({"fsck"}));

  // Cut off in the middle, then mended: --repair does both steps.
  fs::resize_file(path, good.size() / 2);
  CHECK_EQ(repo.Run({"verify", "s.car"}).code, 1);
  WriteTextFile(path, good);
  const Outcome repaired = repo.Run({"verify", "--repair", "--all"});
  CheckOk(repaired);
  CHECK(repaired.out.find("repaired") != std::string::npos);
}

TEST_CASE("cli: verify --repair does not call a shard repaired of which nobody has read the bytes again") {
  const Repo repo;
  const std::string path = repo.Copy("go-car/simple-unixfs.car", "s.car");
  const std::string good = ReadTextFile(path);
  std::string bad = good;
  bad.back() ^= 1;
  WriteTextFile(path, bad);
  // Neither this nor what recovers it hashes blocks.
  CheckOk(repo.Run({"add", "--no-verify", path}));
  for (const std::string_view state : {"available", "errored"}) {
    CAPTURE(state);
    CHECK_EQ(JsonLines(repo.Run({"--json", "ls", "--state", std::string(state)}).out).size(), 1);
    const Outcome still = repo.Run({"--json", "verify", "--repair", "--all"});
    CHECK_EQ(still.code, 1);
    const std::vector<Json> lines = JsonLines(still.out);
    REQUIRE_EQ(lines.size(), 1);
    CHECK_EQ(lines[0]["verdict"], "bad");
    CHECK_EQ(lines[0]["bad_blocks"], 1);
  }
  WriteTextFile(path, good);
  const Outcome repaired = repo.Run({"verify", "--repair", "--all"});
  CheckOk(repaired);
  CHECK(repaired.out.find("repaired") != std::string::npos);
  CheckOk(repo.Run({"verify", "--all"}));
}

TEST_CASE("cli: rm removes shards and leaves their files") {
  const Repo repo;
  const std::string path = repo.Copy("boxo/hello.car", "h.car");
  repo.Copy("go-car/simple-unixfs.car", "s.car");
  CheckOk(repo.Run({"add", repo.File("h.car"), repo.File("s.car")}));
  CHECK_EQ(repo.Run({"rm", "h.car", "nothing"}).code, 3);
  CHECK(fs::exists(path));
  CHECK_EQ(Keys(repo.Run({"--json", "ls"})), std::set<std::string>{"s.car"});
  CHECK_EQ(repo.Run({"has", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"}).code,
           3);
  CheckOk(repo.Run({"fsck"}));
  CheckOk(repo.Run({"gc"}));
}

// The file that holds the index of the one large shard.
std::string OnlyIndexFile(const Repo& repo) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(repo.path() + "/indexes")) {
    if (entry.path().extension() == ".idx") files.push_back(entry.path().string());
  }
  REQUIRE_EQ(files.size(), 1);
  return files[0];
}

TEST_CASE("cli: fsck finds an index that is missing or damaged, and verify builds it again") {
  const Repo repo;
  CheckOk(repo.Run({"add", TestDataPath("beetle/big-foo.car"), TestDataPath("boxo/hello.car")}));
  CheckOk(repo.Run({"fsck"}));
  for (const bool remove : {true, false}) {
    CAPTURE(remove);
    const std::string index = OnlyIndexFile(repo);
    if (remove) {
      fs::remove(index);
    } else {
      std::string bytes = ReadTextFile(index);
      bytes[bytes.size() - 100] ^= 1;
      WriteTextFile(index, bytes);
    }
    const Outcome fsck = repo.Run({"--json", "fsck"});
    CHECK_EQ(fsck.code, 1);
    const std::vector<Json> lines = JsonLines(fsck.out);
    REQUIRE_EQ(lines.size(), 2);
    CHECK_EQ(lines[0]["part"], "index");
    CHECK_EQ(lines[0]["key"], "big-foo.car");
    CHECK_EQ(lines[1]["problems"], 1);
    CheckOk(repo.Run({"verify", "--all"}));
    CheckOk(repo.Run({"fsck"}));
  }
}

TEST_CASE("cli: rebuild makes the lookups again") {
  const Repo repo;
  CheckOk(repo.Run(
      {"add", TestDataPath("beetle/big-foo.car"), TestDataPath("go-car/simple-unixfs.car")}));
  std::vector<std::string> runs;
  for (const auto& entry : fs::directory_iterator(repo.path() + "/top"))
    runs.push_back(entry.path().string());
  REQUIRE(!runs.empty());
  CheckOk(repo.Run({"rebuild"}));
  CheckOk(repo.Run({"fsck"}));
  CHECK_EQ(repo.Run({"find", kSimpleRoot}).out, "simple-unixfs.car\n");
  // Also if they are damaged in the middle.
  for (const auto& entry : fs::directory_iterator(repo.path() + "/top")) {
    std::string bytes = ReadTextFile(entry.path().string());
    bytes[bytes.size() / 2] ^= 1;
    WriteTextFile(entry.path().string(), bytes);
  }
  CheckOk(repo.Run({"rebuild"}));
  CheckOk(repo.Run({"fsck"}));
  CHECK_EQ(repo.Run({"has", kSimpleRoot}).out, "yes\n");
}

TEST_CASE("cli: a repository that is in use says so") {
  const Repo repo;
  CheckOk(repo.Run({"add", TestDataPath("boxo/hello.car")}));
  Options options;
  options.dir = repo.path();
  options.mounts = std::make_shared<const MountRegistry>(DefaultMounts(FileMountConfig()));
  auto store = ValueOf(DagStore::Open(options));
  CheckError(repo.Run({"ls"}), 1, "another process");
  CheckError(repo.Run({"add", TestDataPath("go-car/sample-v1.car")}), 1, "another process");
  store.reset();
  CheckOk(repo.Run({"ls"}));
}

// Goal: whatever was reported as added survives, and adding again finishes the rest.
// Method: the program is killed as soon as its n-th line was read.
TEST_CASE("cli: a kill in the middle of add loses nothing") {
  constexpr int kCars = 200;
  const Repo repo;
  fs::create_directories(repo.File("cars"));
  for (int i = 0; i < kCars; ++i)
    WriteCar(repo.File(fmt::format("cars/{:03}.car", i)), i, 1 + i % 7);
  for (const int lines : {1, 20, 50, 150}) {
    CAPTURE(lines);
    fs::remove_all(repo.path());
    int pipe_fds[2];
    REQUIRE_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    const pid_t pid =
        Spawn({DAGSTORE_BINARY, "--repo", repo.path(), "--json", "add", repo.File("cars")},
              pipe_fds[1], "/dev/null", "/dev/null");
    close(pipe_fds[1]);
    FILE* const out = fdopen(pipe_fds[0], "r");
    std::set<std::string> reported;
    char line[4096];
    for (int i = 0; i < lines; ++i) {
      REQUIRE(fgets(line, sizeof(line), out) != nullptr);
      reported.insert(Json::parse(line)["key"].get<std::string>());
    }
    kill(pid, SIGKILL);
    CHECK_EQ(Wait(pid), -1);
    fclose(out);

    const Outcome ls = repo.Run({"--json", "ls"});
    CheckOk(ls);
    const std::set<std::string> kept = Keys(ls);
    CHECK(std::includes(kept.begin(), kept.end(), reported.begin(), reported.end()));
    CheckOk(repo.Run({"add", repo.File("cars")}));
    CHECK_EQ(Keys(repo.Run({"--json", "ls", "--state", "available"})).size(), kCars);
    const Outcome fsck = repo.Run({"fsck"});
    CheckOk(fsck);
    CHECK(fsck.out.find("200 shards") != std::string::npos);
    CheckOk(repo.Run({"verify", "--all"}));
  }
}

TEST_CASE("cli: Ctrl-C ends add in order") {
  const Repo repo;
  fs::create_directories(repo.File("cars"));
  for (int i = 0; i < 100; ++i) WriteCar(repo.File(fmt::format("cars/{:03}.car", i)), i, 3);
  int pipe_fds[2];
  REQUIRE_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const pid_t pid =
      Spawn({DAGSTORE_BINARY, "--repo", repo.path(), "add", "--jobs", "1", repo.File("cars")},
            pipe_fds[1], "/dev/null", "/dev/null");
  close(pipe_fds[1]);
  FILE* const out = fdopen(pipe_fds[0], "r");
  char line[4096];
  REQUIRE(fgets(line, sizeof(line), out) != nullptr);
  kill(pid, SIGINT);
  const int code = Wait(pid);
  fclose(out);
  CHECK((code == 0 || code == 1));  // 0 if everything was done before the signal came
  CheckOk(repo.Run({"add", repo.File("cars")}));
  CHECK_EQ(Keys(repo.Run({"--json", "ls", "--state", "available"})).size(), 100);
  CheckOk(repo.Run({"fsck"}));
}

TEST_CASE("car tool: indexes and CARv2 files are those of go-car") {
  const TempDir dir;
  const auto car = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {DAGSTORE_BINARY, "car"});
    return RunProgram(arguments);
  };
  const std::string v1 = TestDataPath("go-car/sample-v1.car");
  CheckOk(car({"index", "--wrap", v1, "-o", dir.File("v2.car")}));
  CHECK(SameBytes(AsSpan(ReadTextFile(dir.File("v2.car"))),
                  ReadTestData("go-car/sample-wrapped-v2.car")));
  CHECK(SameBytes(AsSpan(car({"index", v1}).out),
                  ReadTestData("go-car/sample-multihash-index-sorted.carindex")));
  CHECK(SameBytes(AsSpan(car({"index", "--codec", "0x0400", "--identities", v1}).out),
                  ReadTestData("go-car/sample-index.carindex")));
  CheckOk(car({"verify", dir.File("v2.car")}));
  CheckOk(car({"verify", v1}));
  CHECK_EQ(car({"verify", TestDataPath("nft.storage/corrupt.car")}).code, 1);
  CheckError(car({"verify", dir.File("nothing")}), 1, "nothing");
  CheckError(car({"inspect", TestDataPath("go-car/sample-rootless-v42.car")}), 1, "version 42");

  const Outcome inspect = car({"--json", "inspect", dir.File("v2.car")});
  const Json facts = JsonLines(inspect.out).at(0);
  CHECK_EQ(facts["version"], 2);
  CHECK_EQ(facts["blocks"], 1049);
  CHECK_EQ(facts["codecs"]["dag-cbor"], 1043);
  CHECK_EQ(facts["identity_blocks"], 6);
  CHECK_EQ(facts["index_entries"], 1043);
  CHECK(car({"inspect", v1}).out.find("1049") != std::string::npos);

  const std::vector<std::string> blocks = Lines(car({"ls", dir.File("v2.car")}).out);
  CHECK_EQ(blocks.size(), 1049);
  const std::string cid = blocks[7].substr(0, blocks[7].find(' '));
  uint64_t offset = 0, size = 0;
  std::istringstream(blocks[7].substr(cid.size())) >> offset >> size;
  const std::string file = ReadTextFile(dir.File("v2.car"));
  CHECK_EQ(car({"get", dir.File("v2.car"), cid}).out, file.substr(offset, size));
  CHECK_EQ(car({"get", dir.File("v2.car"), kSimpleRoot}).code, 3);
}

TEST_CASE("car tool: create packs files as UnixFS, the same way each time") {
  const Repo repo;
  WriteTextFile(repo.File("hello.txt"), "hello world");
  const Outcome one =
      repo.Run({"--quiet", "car", "create", repo.File("one.car"), repo.File("hello.txt")});
  CheckOk(one);
  CHECK_EQ(one.out,
           "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e\n");  // as kubo's `add
                                                                              // --cid-version 1`

  fs::create_directories(repo.File("in/sub/empty"));
  std::string large;
  while (large.size() < (3 << 20) + 5) large += fmt::format("line {}\n", large.size());
  WriteTextFile(repo.File("in/large.bin"), large);
  WriteTextFile(repo.File("in/sub/nothing"), "");
  fs::create_symlink("../large.bin", repo.File("in/sub/link"));
  const Outcome first = repo.Run(
      {"--quiet", "car", "create", repo.File("a.car"), repo.File("in"), repo.File("hello.txt")});
  const Outcome second = repo.Run({"--quiet", "car", "create", repo.File("b.car"),
                                   repo.File("hello.txt"), repo.File("in") + "/"});
  CheckOk(first);
  CheckOk(second);
  CHECK_EQ(first.out, second.out);  // the order of the names does not matter to the root
  const std::string root = first.out.substr(0, first.out.size() - 1);
  CHECK_EQ(repo.Run({"car", "root", repo.File("a.car")}).out, first.out);
  CheckOk(repo.Run({"car", "verify", repo.File("a.car")}));

  CheckOk(repo.Run({"add", repo.File("a.car")}));
  CHECK_EQ(repo.Run({"cat", root + "/hello.txt"}).out, "hello world");
  CHECK(repo.Run({"cat", root + "/in/large.bin"}).out == large);
  CHECK_EQ(repo.Run({"cat", "--range", "1048570:1048585", root + "/in/large.bin"}).out,
           large.substr(1048570, 16));
  CHECK_EQ(repo.Run({"cat", root + "/in/sub/nothing"}).out, "");
  CHECK_EQ(Lines(repo.Run({"tree", "-r", root}).out).size(), 7);
  CHECK(repo.Run({"tree", root + "/in/sub"}).out.find("link -> ../large.bin") != std::string::npos);
  CheckOk(repo.Run({"export", root, "-o", repo.File("again.car")}));
  CHECK_EQ(Lines(repo.Run({"car", "ls", repo.File("again.car")}).out).size(),
           Lines(repo.Run({"car", "ls", repo.File("a.car")}).out).size());
  CheckError(repo.Run({"car", "create", repo.File("c.car"), repo.File("nothing")}), 1, "nothing");
  CHECK(!fs::exists(repo.File("c.car")));
  CheckError(repo.Run({"car", "create", repo.File("c.car"), repo.File("in"), repo.File("in")}), 1,
             "\"in\"");
}

TEST_CASE("car tool: create does not pack the CAR it writes, though it lies in the folder") {
  const Repo repo;
  fs::create_directories(repo.File("in"));
  WriteTextFile(repo.File("in/large.bin"), std::string((2 << 20) + 5, 'x'));
  const Outcome first =
      repo.Run({"--quiet", "car", "create", repo.File("in/z.car"), repo.File("in")});
  CheckOk(first);
  // Now there is an old one to be replaced.
  const Outcome second =
      repo.Run({"--quiet", "car", "create", repo.File("in/z.car"), repo.File("in")});
  CheckOk(second);
  CHECK_EQ(first.out, second.out);
  CheckOk(repo.Run({"add", repo.File("in/z.car")}));
  const Outcome tree = repo.Run({"tree", first.out.substr(0, first.out.size() - 1)});
  CHECK_EQ(Lines(tree.out).size(), 1);
  CHECK(tree.out.ends_with("  large.bin\n"));
  // Who names it means it.
  fs::rename(repo.File("in/z.car"), repo.File("z.car"));
  CheckOk(repo.Run({"--quiet", "car", "create", repo.File("z.car"), repo.File("z.car")}));
}

// The names in the list of commands that --help prints.
std::vector<std::string> Commands(const std::vector<std::string>& program) {
  std::vector<std::string> arguments = program;
  arguments.push_back("--help");
  const Outcome help = RunProgram(arguments);
  CheckOk(help);
  std::vector<std::string> names;
  bool listing = false;
  for (const std::string& line : Lines(help.out)) {
    if (line == "Subcommands:") {
      listing = true;
    } else if (listing && line.empty()) {
      break;
    } else if (listing) {
      names.push_back(line.substr(2, line.find(' ', 2) - 2));
    }
  }
  return names;
}

TEST_CASE("man page: has every command") {
  const std::string page = ReadTextFile(std::string(DAGSTORE_SOURCE_DIR) + "/tools/dagstore.1");
  const auto has = [&](const std::string& name) {
    for (const char* form : {"\n.B {}\n", "\n.BI \"{} ", "\n.BR \"{} ", "\n.BI {} "}) {
      if (page.find(fmt::format(fmt::runtime(form), name)) != std::string::npos) return true;
    }
    return false;
  };
  const std::vector<std::string> commands = Commands({DAGSTORE_BINARY});
  CHECK_EQ(commands.size(), 23);
  for (const std::string& name : commands) {
    CAPTURE(name);
    if (name == "car") continue;
    CHECK(has(name));
  }
  const std::vector<std::string> car = Commands({DAGSTORE_BINARY, "car"});
  CHECK_EQ(car.size(), 7);
  for (const std::string& name : car) {
    CAPTURE(name);
    CHECK(has("car " + name));
  }
  CHECK(!has("frobnicate"));
}

// Runs `command` in a shell with variables set: the tests' own environment stays as it is.
Outcome RunWith(const std::string& variables, const std::string& command) {
  return RunProgram({"/bin/sh", "-c", variables + " exec " + command});
}

TEST_CASE("cli: --trace appends the spans of a command, below one span of its own") {
  const Repo repo;
  const std::string car = repo.Copy("go-car/sample-v1.car", "a.car"), file = repo.File("spans");
  CheckOk(repo.Run({"--trace", file, "add", car}));
  const size_t lines = Lines(ReadTextFile(file)).size();
  CHECK_GE(lines, 1);
  std::map<std::string, Json> spans;
  for (const Json& line : JsonLines(ReadTextFile(file))) {
    for (const Json& span : line["resourceSpans"][0]["scopeSpans"][0]["spans"]) {
      spans[span["name"].get<std::string>()] = span;
    }
  }
  REQUIRE(spans.contains("dagstore.command"));
  const Json& root = spans["dagstore.command"];
  CHECK_FALSE(root.contains("parentSpanId"));
  const auto parent_of = [&](const std::string& name) {
    return spans.contains(name) ? spans[name]["parentSpanId"] : Json();
  };
  CHECK_EQ(parent_of("dagstore.register"), root["spanId"]);
  CHECK_EQ(parent_of("shard.initialize"), spans["dagstore.register"]["spanId"]);
  CHECK_EQ(parent_of("shard.index"), spans["shard.initialize"]["spanId"]);
  CHECK_EQ(parent_of("shard.fetch"), spans["shard.initialize"]["spanId"]);
  CheckOk(repo.Run({"ls", "--trace", file}));
  CHECK_GT(Lines(ReadTextFile(file)).size(), lines);
  CheckError(repo.Run({"--trace", repo.File("no/such/folder"), "ls"}), 2, "No such file");
}

TEST_CASE("cli: a command is a part of the trace that TRACEPARENT names, and OTEL variables are checked") {
  const Repo repo;
  CheckOk(repo.Run({"add", repo.Copy("go-car/sample-v1.car", "a.car")}));
  const std::string base = fmt::format("{} --repo {} --trace {} ls", DAGSTORE_BINARY, repo.path(), repo.File("spans"));
  CheckOk(RunWith("TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", base));
  const std::string spans = ReadTextFile(repo.File("spans"));
  CHECK(spans.find(R"("traceId":"0af7651916cd43dd8448eb211c80319c")") != std::string::npos);
  CHECK(spans.find(R"("parentSpanId":"b7ad6b7169203331")") != std::string::npos);
  CheckOk(RunWith("TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", base));
  CHECK_EQ(ReadTextFile(repo.File("spans")), spans);  // the caller does not want it recorded
  CheckError(RunWith("OTEL_TRACES_SAMPLER=sometimes", base), 2, "OTEL_TRACES_SAMPLER");
  // Nobody listens there: the command works, and says what was lost.
  const std::string list = fmt::format("{} --repo {} --quiet ls", DAGSTORE_BINARY, repo.path());
  const Outcome lost = RunWith("OTEL_BSP_EXPORT_TIMEOUT=100 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9", list);
  CheckOk(lost);
  CHECK(lost.err.find("spans are lost") != std::string::npos);
}

TEST_CASE("cli: stats shows what there is of local copies, and what was asked of sources") {
  const Repo repo;
  CheckOk(repo.Run({"add", repo.Copy("go-car/sample-v1.car", "a.car")}));
  const auto json = JsonLines(repo.Run({"--json", "--cache", "1048576", "stats"}).out).at(0);
  CHECK_EQ(json["copies_bytes_max"], 1 << 20);
  for (const char* name : {"copies", "copies_pinned", "copies_bytes", "copies_bytes_peak", "copies_evicted",
                           "copies_refused", "copies_partial_open", "copies_promoted", "copies_resumed",
                           "copies_bytes_not_kept", "source_requests", "source_retries", "source_bytes",
                           "source_prefetches", "source_locations_failed"}) {
    INFO(name);
    REQUIRE(json.contains(name));
    CHECK_EQ(json[name], 0);
  }
  const std::string text = repo.Run({"--cache", "1048576", "stats"}).out;
  CHECK(text.find("0 B of a quota of 1.0 MiB, 0 given up since open") != std::string::npos);
  CHECK(repo.Run({"stats"}).out.find("quota") == std::string::npos);
}

TEST_CASE("cli: stats --metrics prints what was counted, for Prometheus") {
  const Repo repo;
  CheckOk(repo.Run({"add", repo.Copy("go-car/sample-v1.car", "a.car")}));
  const Outcome metrics = repo.Run({"stats", "--metrics"});
  CheckOk(metrics);
  CHECK(metrics.out.find("# TYPE dagstore_shards gauge\n") != std::string::npos);
  CHECK(metrics.out.find("dagstore_shards{state=\"available\"} 1\n") != std::string::npos);
}

TEST_CASE("cli: --log appends what happens, from a level on") {
  const Repo repo;
  WriteTextFile(repo.File("bad.car"), "no CAR");
  CHECK_EQ(repo.Run({"--log", repo.File("log"), "add", repo.File("bad.car")}).code, 1);
  const std::string log = ReadTextFile(repo.File("log"));
  CHECK(log.find(" warning trace_id=") != std::string::npos);
  CHECK(log.find("-> Errored") != std::string::npos);
  CHECK(log.find(" info closing") != std::string::npos);
  CHECK_EQ(repo.Run({"--log", repo.File("log2"), "--log-level", "error", "ls"}).code, 0);
  CHECK_EQ(ReadTextFile(repo.File("log2")), "");
  CheckError(repo.Run({"--log", "-", "--log-level", "loud", "ls"}), 2, "--log-level loud");
}

}  // namespace
}  // namespace dagstore
