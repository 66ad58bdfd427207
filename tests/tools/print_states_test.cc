// docs/architecture.md holds the transition table as the program has it.
#include "shard/transition.h"
#include "tests/tools/process.h"

namespace dagstore {
namespace {

constexpr char kBegin[] = "<!-- states: begin -->\n";
constexpr char kEnd[] = "<!-- states: end -->";

TEST_CASE("print_states: prints the table, and replaces it between the markers of a document") {
  CHECK_EQ(RunProgram({DAGSTORE_PRINT_STATES}).out, TransitionTableMarkdown());
  const TempDir dir;
  const std::string path = dir.File("page.md");
  WriteTextFile(path, std::string("before\n") + kBegin + "old\n" + kEnd + "\nafter\n");
  for (int twice = 0; twice < 2; ++twice) {
    CHECK_EQ(RunProgram({DAGSTORE_PRINT_STATES, "--write", path}).code, 0);
    CHECK_EQ(ReadTextFile(path),
             std::string("before\n") + kBegin + TransitionTableMarkdown() + kEnd + "\nafter\n");
  }
  WriteTextFile(path, "no markers\n");
  CHECK_EQ(RunProgram({DAGSTORE_PRINT_STATES, "--write", path}).code, 1);
  CHECK_EQ(ReadTextFile(path), "no markers\n");
  CHECK_EQ(RunProgram({DAGSTORE_PRINT_STATES, "--frobnicate"}).code, 2);
}

TEST_CASE(
    "architecture page: its table of states is the one of the program (tools/print_states --write "
    "mends it)") {
  const std::string page = ReadTextFile(std::string(DAGSTORE_SOURCE_DIR) + "/docs/architecture.md");
  const size_t begin = page.find(kBegin);
  const size_t end = page.find(kEnd);
  REQUIRE(begin != std::string::npos);
  REQUIRE(end != std::string::npos);
  const size_t from = begin + sizeof(kBegin) - 1;
  CHECK_EQ(page.substr(from, end - from), TransitionTableMarkdown());
}

}  // namespace
}  // namespace dagstore
