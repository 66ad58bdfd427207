// print_states: the transition table as Markdown, on stdout, or in place between the markers of a
// document.
#include <errno.h>
#include <stdio.h>

#include <string_view>

#include "base/io.h"
#include "shard/transition.h"

namespace dagstore {
namespace {

constexpr std::string_view kBegin = "<!-- states: begin -->\n";
constexpr std::string_view kEnd = "<!-- states: end -->";
constexpr size_t kDocumentBytesMax = 16 << 20;

absl::Status Replace(const std::string& path) {
  ASSIGN_OR_RETURN(const Bytes bytes, ReadSmallFile(Io::Posix(), path, kDocumentBytesMax));
  std::string text(AsText(bytes));
  const size_t begin = text.find(kBegin);
  const size_t end = text.find(kEnd);
  if (begin == std::string::npos || end == std::string::npos || end < begin) {
    return NotFound("{} has no markers for the states", path);
  }
  const size_t from = begin + kBegin.size();
  text.replace(from, end - from, TransitionTableMarkdown());
  FILE* const file = fopen(path.c_str(), "we");
  if (file == nullptr) return ErrnoStatus(errno, path);
  const bool written = fwrite(text.data(), 1, text.size(), file) == text.size();
  if (fclose(file) != 0 || !written) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

}  // namespace
}  // namespace dagstore

int main(int argc, char** argv) {
  if (argc == 1) {
    (void)fputs(dagstore::TransitionTableMarkdown().c_str(), stdout);
    return 0;
  }
  if (argc != 3 || std::string_view(argv[1]) != "--write") {
    (void)fputs("usage: print_states [--write FILE]\n", stderr);
    return 2;
  }
  const absl::Status status = dagstore::Replace(argv[2]);
  if (status.ok()) return 0;
  (void)fprintf(stderr, "print_states: %s\n", dagstore::ToString(status).c_str());
  return 1;
}
