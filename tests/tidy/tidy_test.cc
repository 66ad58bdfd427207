// Goal: what the style asks for and no compiler checks stays true of the whole tree.
// Method: each rule is a function from a tree of files to complaints. It is run on the real tree, where it must find
// nothing, and on a planted one, where it must find what was planted, so that no rule can fall asleep.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

using Complaints = std::vector<std::string>;
using Names = std::vector<std::string>;

constexpr size_t kColumnsMax = 120;

// Path from the root of the tree -> text. Of test data the names only.
using Tree = std::map<std::string, std::string>;

// ---- Text ----

std::vector<std::string_view> LinesOf(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

bool IsWordCharacter(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// `word` stands in `text`, and not as the end or the beginning of a longer name. Its own ends count if they are no word
// characters: "rand(" does not stand in "Grand(", and does in "std::rand(7)".
bool HasWord(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || !IsWordCharacter(word.front()) || !IsWordCharacter(text[at - 1]);
    const bool ends = end == text.size() || !IsWordCharacter(word.back()) || !IsWordCharacter(text[end]);
    if (begins && ends) return true;
  }
  return false;
}

// The words of a CMakeLists.txt: what stands between blanks and parentheses. Comments are left out.
Names CMakeWords(std::string_view text) {
  Names words;
  for (const std::string_view line : LinesOf(text)) {
    std::string word;
    for (const char c : line.substr(0, line.find('#'))) {
      const bool separates = std::isspace(static_cast<unsigned char>(c)) != 0 || c == '(' || c == ')';
      // A variable holds its braces, a call ends its name: foreach(x a b) is "foreach", "x", "a", "b".
      if (!separates) {
        word += c;
      } else if (!word.empty()) {
        words.push_back(std::exchange(word, {}));
      }
    }
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

// The same, with the variables of foreach loops replaced by each of their values.
std::set<std::string> ListedIn(std::string_view cmake) {
  std::map<std::string, Names> loops;
  for (const std::string_view line : LinesOf(cmake)) {
    Names words = CMakeWords(line);
    if (words.size() < 3 || words[0] != "foreach") continue;
    loops["${" + words[1] + "}"] = Names(words.begin() + 2, words.end());
  }
  std::set<std::string> listed;
  for (const std::string& word : CMakeWords(cmake)) {
    listed.insert(word);
    for (const auto& [variable, values] : loops) {
      const size_t at = word.find(variable);
      if (at == word.npos) continue;
      for (const std::string& value : values) listed.insert(std::string(word).replace(at, variable.size(), value));
    }
  }
  return listed;
}

// C++ with comments, strings and character literals blanked out; lines stay where they are.
std::string CodeOnly(std::string_view text) {
  std::string out;
  size_t i = 0;
  const auto blank_to = [&](size_t end) {
    for (end = std::min(end, text.size()); i < end; ++i) out += text[i] == '\n' ? '\n' : ' ';
  };
  while (i < text.size()) {
    const std::string_view rest = text.substr(i);
    if (rest.starts_with("//")) {
      blank_to(text.find('\n', i));
    } else if (rest.starts_with("/*")) {
      const size_t end = text.find("*/", i + 2);
      blank_to(end == text.npos ? text.size() : end + 2);
    } else if (rest.starts_with("R\"") && (i == 0 || !IsWordCharacter(text[i - 1]))) {
      const size_t open = std::min(text.find('(', i), text.size());
      const std::string close = ")" + std::string(text.substr(i + 2, open - i - 2)) + "\"";
      const size_t end = text.find(close, open);
      blank_to(end == text.npos ? text.size() : end + close.size());
    } else if (rest[0] == '"' || (rest[0] == '\'' && (i == 0 || !IsWordCharacter(text[i - 1])))) {
      size_t end = i + 1;  // a quote after a digit separates thousands
      while (end < text.size() && text[end] != rest[0] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
      blank_to(end + 1);
    } else {
      out += text[i++];
    }
  }
  return out;
}

// ---- Files ----

bool EndsWith(std::string_view text, std::string_view end) { return text.ends_with(end); }
bool IsCpp(std::string_view path) { return EndsWith(path, ".h") || EndsWith(path, ".cc"); }
std::string FolderOf(std::string_view path) { return std::string(path.substr(0, path.find('/'))); }
std::string ParentOf(const std::string& path) { return fs::path(path).parent_path().string(); }

// The tree that the test belongs to: our folders, and the documents at its root.
Tree RealTree() {
  const fs::path root = DAGSTORE_SOURCE_DIR;
  const auto read = [](const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), "cannot read ", path.string());
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  Tree tree;
  for (const char* folder : {"base", "shard", "mount", "index", "dag", "net", "dagstore", "gateway", "tools", "tests",
                             "docs", "examples", "cmake"}) {
    if (!fs::exists(root / folder)) continue;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string path = entry.path().lexically_relative(root).generic_string();
      const bool is_data = path.starts_with("tests/data/") && path != "tests/data/README.md";
      tree[path] = is_data ? std::string() : read(entry.path());
    }
  }
  for (const char* name : {"CMakeLists.txt", "README.md", "CONTRIBUTING.md"}) {
    if (fs::exists(root / name)) tree[name] = read(root / name);
  }
  return tree;
}

const Tree& Real() {
  static const Tree tree = RealTree();
  return tree;
}

// ---- Includes ----

struct Include {
  std::string file = {};
  size_t line = 0;
  std::string name = {};  // what is included
  bool quoted = false;    // ours
};

std::vector<Include> IncludesOf(const Tree& tree) {
  std::vector<Include> includes;
  for (const auto& [path, text] : tree) {
    if (!IsCpp(path)) continue;
    size_t number = 0;
    for (std::string_view line : LinesOf(text)) {
      ++number;
      if (!line.starts_with("#include ")) continue;
      line.remove_prefix(9);
      const size_t end = line.find_first_of("\">", 1);
      if (line.empty() || end == line.npos) continue;
      includes.push_back({path, number, std::string(line.substr(1, end - 1)), line[0] == '"'});
    }
  }
  return includes;
}

// Who may include whom. An arrow may be followed, never reversed; index and dag may use shard, mount and net may not.
const std::map<std::string, std::set<std::string>>& MayInclude() {
  static const std::map<std::string, std::set<std::string>> allowed = {
      {"base", {"base"}},
      {"shard", {"shard", "base"}},
      {"mount", {"mount", "base"}},
      {"index", {"index", "shard", "base"}},
      {"dag", {"dag", "shard", "base"}},
      {"net", {"net", "base"}},
      {"dagstore", {"dagstore", "net", "dag", "index", "mount", "shard", "base"}},
      {"gateway", {"gateway", "dagstore", "net", "dag", "index", "mount", "shard", "base"}},
      {"examples", {"gateway", "dagstore", "net", "dag", "index", "mount", "shard", "base"}},
      {"tools", {"tools", "gateway", "dagstore", "net", "dag", "index", "mount", "shard", "base"}},
      {"tests", {"tests", "tools", "gateway", "dagstore", "net", "dag", "index", "mount", "shard", "base"}},
  };
  return allowed;
}

Complaints IncludesAgainstTheArrows(const Tree& tree) {
  Complaints found;
  for (const Include& include : IncludesOf(tree)) {
    if (!include.quoted) continue;
    const auto allowed = MayInclude().find(FolderOf(include.file));
    if (allowed == MayInclude().end()) continue;
    if (allowed->second.contains(FolderOf(include.name))) continue;
    found.push_back(
        fmt::format("{}:{}: {} may not include {}", include.file, include.line, allowed->first, include.name));
  }
  return found;
}

// Libraries that are kept in one place: they cost compile time in each file that sees them, and bring rules along.
struct Confined {
  const char* prefix;
  std::set<std::string> files;  // or folders, with a slash at the end
};
Complaints LibrariesOutOfPlace(const Tree& tree) {
  static const Confined kConfined[] = {
      {"rocksdb/", {"base/kv_rocks.cc", "tools/bench/rocks_lookup.cc"}},
      {"curl/", {"base/http_curl.cc"}},
      {"nfsc/", {"mount/nfs_mount.cc"}},
      {"uv.h", {"dagstore/loop_uv.cc", "net/"}},
      {"spdlog/", {"dagstore/log.cc"}},
      {"prometheus/", {"dagstore/metrics.cc"}},
  };
  Complaints found;
  for (const Include& include : IncludesOf(tree)) {
    for (const Confined& library : kConfined) {
      if (!include.name.starts_with(library.prefix)) continue;
      if (library.files.contains(include.file) || library.files.contains(FolderOf(include.file) + "/")) continue;
      found.push_back(fmt::format("{}:{}: {} belongs to {} alone", include.file, include.line, include.name,
                                  *library.files.begin()));
    }
  }
  return found;
}

// ---- CMake ----

// The nearest CMakeLists.txt above a file; empty if there is none.
std::string CMakeListsOf(const Tree& tree, const std::string& path) {
  for (std::string folder = ParentOf(path);; folder = ParentOf(folder)) {
    const std::string lists = folder.empty() ? "CMakeLists.txt" : folder + "/CMakeLists.txt";
    if (lists != path && tree.contains(lists)) return lists;
    if (folder.empty()) return {};
  }
}

// A source that no target names is only a document, and so is a folder that nobody adds.
Complaints NotBuilt(const Tree& tree) {
  Complaints found;
  for (const auto& [path, text] : tree) {
    const bool is_source = EndsWith(path, ".cc");
    const bool is_folder = EndsWith(path, "/CMakeLists.txt") && FolderOf(path) != "examples";  // a project of its own
    if (!is_source && !is_folder) continue;
    const std::string lists = CMakeListsOf(tree, path);
    const std::string what = is_source ? path : ParentOf(path);
    const std::string name = fs::path(what).lexically_relative(fs::path(lists).parent_path().empty()
                                                                   ? fs::path(".")
                                                                   : fs::path(lists).parent_path())
                                 .generic_string();
    if (lists.empty() || !ListedIn(tree.at(lists)).contains(name)) {
      found.push_back(fmt::format("{}: {} is not listed", lists.empty() ? "no CMakeLists.txt" : lists, name));
    }
  }
  return found;
}

// ---- Code ----

Complaints LongLines(const Tree& tree) {
  Complaints found;
  for (const auto& [path, text] : tree) {
    if (!IsCpp(path)) continue;
    size_t number = 0;
    bool exempt = false;  // tables that are laid out by hand
    for (const std::string_view line : LinesOf(text)) {
      ++number;
      if (line.find("// clang-format off") != line.npos) exempt = true;
      if (line.find("// clang-format on") != line.npos) exempt = false;
      const auto columns = static_cast<size_t>(
          std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
      if (!exempt && columns > kColumnsMax) found.push_back(fmt::format("{}:{}: {} columns", path, number, columns));
    }
  }
  return found;
}

// What the simulator must be able to replace, and what the analyses cannot see into. The store's folders reach time and
// chance through base/clock.h and values that are passed in.
struct Seam {
  const char* word;
  std::map<std::string, const char*> allowed;  // file -> why
};
const std::vector<Seam>& Seams() {
  static const std::vector<Seam> seams = {
      {"::now(", {{"base/mutex.h", "a timed wait of the standard library, in its own clock"}}},
      {"absl::Now(", {{"base/clock.cc", "the real wall clock"}}},
      {"clock_gettime(", {{"base/clock.cc", "the real monotonic clock"}}},
      {"gettimeofday(", {}},
      {"rand(", {}},
      {"random_device",
       {{"dagstore/repository.cc", "the identity and the secret of a new repository, the name of this boot"}}},
      {"getenv(", {{"base/mutant.cc", "which defect to put in, in a build for that"}}},
      {"absl::Mutex", {}},      // base/mutex.h: ThreadSanitizer does not see into abseil's
      {"absl::MutexLock", {}},
      {"absl::CondVar", {}},
  };
  return seams;
}

Complaints PastTheSeams(const Tree& tree) {
  static const std::set<std::string> kFolders = {"base", "shard", "mount", "index", "dag", "dagstore"};
  Complaints found;
  for (const auto& [path, text] : tree) {
    if (!IsCpp(path) || !kFolders.contains(FolderOf(path))) continue;
    const std::string code = CodeOnly(text);
    size_t number = 0;
    for (const std::string_view line : LinesOf(code)) {
      ++number;
      for (const Seam& seam : Seams()) {
        if (!HasWord(line, seam.word) || seam.allowed.contains(path)) continue;
        found.push_back(fmt::format("{}:{}: {} goes past the seams of base/", path, number, seam.word));
      }
    }
  }
  return found;
}

// An exception that is no longer needed is a hole.
Complaints UnusedExceptions(const Tree& tree) {
  Complaints found;
  for (const Seam& seam : Seams()) {
    for (const auto& [path, why] : seam.allowed) {
      const auto file = tree.find(path);
      if (file != tree.end() && HasWord(CodeOnly(file->second), seam.word)) continue;
      found.push_back(fmt::format("{} need not be allowed {} ({})", path, seam.word, why));
    }
  }
  return found;
}

Complaints HeadersWithoutComment(const Tree& tree) {
  Complaints found;
  for (const auto& [path, text] : tree) {
    if (EndsWith(path, ".h") && !text.starts_with("// ")) found.push_back(path + ": the first line says nothing");
  }
  return found;
}

Complaints LeftForLater(const Tree& tree) {
  static const std::string kMarks[] = {std::string("TO") + "DO", std::string("FIX") + "ME"};  // not this line
  Complaints found;
  for (const auto& [path, text] : tree) {
    for (const std::string& mark : kMarks) {
      if (HasWord(text, mark)) found.push_back(fmt::format("{}: {}", path, mark));
    }
  }
  return found;
}

// ---- Documents ----

// As GitHub makes it of a heading.
std::string AnchorOf(std::string_view heading) {
  std::string anchor;
  for (const char c : heading) {
    if (c == ' ') anchor += '-';
    if (c == '-' || IsWordCharacter(c)) anchor += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return anchor;
}

std::set<std::string> AnchorsOf(std::string_view markdown) {
  std::set<std::string> anchors;
  bool code = false;
  for (std::string_view line : LinesOf(markdown)) {
    if (line.starts_with("```")) code = !code;
    const size_t level = std::min(line.find_first_not_of('#'), line.size());
    if (code || level == 0 || level == line.size() || line[level] != ' ') continue;
    anchors.insert(AnchorOf(line.substr(level + 1)));
  }
  return anchors;
}

// "docs/<name>.md#<anchor>" in sources.
Complaints AnchorsThatAreMissing(const Tree& tree) {
  Complaints found;
  for (const auto& [path, text] : tree) {
    if (!IsCpp(path) || path.starts_with("tests/tidy/")) continue;
    for (size_t at = text.find("docs/"); at != text.npos; at = text.find("docs/", at + 1)) {
      size_t end = at;
      const auto is_part = [&](char c) { return IsWordCharacter(c) || c == '/' || c == '.' || c == '#' || c == '-'; };
      while (end < text.size() && is_part(text[end])) ++end;
      const std::string reference = text.substr(at, end - at);
      const size_t hash = reference.find(".md#");
      if (hash == reference.npos) continue;
      const auto document = tree.find(reference.substr(0, hash + 3));
      std::string anchor = reference.substr(hash + 4);
      while (!anchor.empty() && anchor.back() == '.') anchor.pop_back();  // the end of a sentence
      if (document != tree.end() && AnchorsOf(document->second).contains(anchor)) continue;
      found.push_back(fmt::format("{}: {} is not there", path, reference));
    }
  }
  return found;
}

// Links of documents to each other, to their own sections, and to files of the tree.
Complaints LinksThatAreMissing(const Tree& tree) {
  Complaints found;
  for (const auto& [path, text] : tree) {
    if (!EndsWith(path, ".md")) continue;
    for (size_t at = text.find("]("); at != text.npos; at = text.find("](", at + 1)) {
      const size_t end = text.find(')', at);
      if (end == text.npos) break;
      const std::string target = text.substr(at + 2, end - at - 2);
      if (target.find("://") != target.npos || target.find_first_of(" \n") != target.npos) continue;
      const size_t hash = std::min(target.find('#'), target.size());
      const std::string file =
          hash == 0 ? path
                    : (fs::path(path).parent_path() / target.substr(0, hash)).lexically_normal().generic_string();
      const auto document = tree.find(file);
      const bool is_folder = std::any_of(tree.begin(), tree.end(),
                                         [&](const auto& other) { return other.first.starts_with(file + "/"); });
      const bool is_there = document != tree.end() || is_folder || fs::exists(fs::path(DAGSTORE_SOURCE_DIR) / file);
      const bool has_anchor = hash == target.size() ||
                              (document != tree.end() && AnchorsOf(document->second).contains(target.substr(hash + 1)));
      if (!is_there || !has_anchor) found.push_back(fmt::format("{}: link to {}", path, target));
    }
  }
  return found;
}

// Members of `struct name` in a header, those that have an initial value: all, as the style wants it.
Names MembersOf(std::string_view header, std::string_view name) {
  Names members;
  bool inside = false;
  const std::string code = CodeOnly(header);
  for (const std::string_view line : LinesOf(code)) {
    if (line.starts_with(fmt::format("struct {} {{", name))) inside = true;
    if (line.starts_with("};")) inside = false;
    const size_t equals = line.find(" = ");
    if (!inside || equals == line.npos) continue;
    const size_t begin = line.rfind(' ', equals - 1) + 1;
    members.emplace_back(line.substr(begin, equals - begin));
  }
  return members;
}

Complaints OptionsWithoutWords(const Tree& tree) {
  struct Documented {
    const char* header;
    const char* name;
    const char* prefix;
  };
  static constexpr Documented kDocumented[] = {
      {"dagstore/options.h", "Options", ""},
      {"shard/car_reader.h", "CarOptions", "car."},
      {"dagstore/span.h", "TraceOptions", "trace."},
      {"mount/copy_cache.h", "CopyCacheOptions", "copies."},
      {"mount/sources.h", "SourceLimits", "sources."},
      {"mount/partial_copy.h", "PartialLimits", "partial."},
  };
  static const std::string kDocument = "docs/operations.md";
  Complaints found;
  for (const Documented& options : kDocumented) {
    const auto header = tree.find(options.header);
    const auto document = tree.find(kDocument);
    if (header == tree.end() || document == tree.end()) continue;
    for (const std::string& member : MembersOf(header->second, options.name)) {
      static const std::set<std::string> kNested = {"car", "copies", "sources", "partial", "trace"};
      if (kNested.contains(member)) continue;  // their own members are
      if (document->second.find(fmt::format("`{}{}`", options.prefix, member)) != std::string::npos) continue;
      found.push_back(fmt::format("{}: nothing of {}{}", kDocument, options.prefix, member));
    }
  }
  return found;
}

// ---- Mutants ----

// What base/mutant_list.h lists is put in somewhere, and what is put in is listed; a number is used in one file.
Complaints MutantsAgainstTheList(const Tree& tree) {
  static const std::set<std::string> kFolders = {"base", "shard", "mount",    "index",
                                                 "dag",  "net",   "dagstore", "gateway"};
  static constexpr std::string_view kCall = "Mutant(kMutant";
  Complaints found;
  const auto list = tree.find("base/mutant_list.h");
  if (list == tree.end()) return found;
  std::map<std::string, std::set<std::string>> used;  // name -> files
  for (const auto& [path, text] : tree) {
    if (!IsCpp(path) || !kFolders.contains(FolderOf(path)) || path.starts_with("base/mutant")) continue;
    const std::string code = CodeOnly(text);
    for (size_t at = code.find(kCall); at != code.npos; at = code.find(kCall, at + 1)) {
      const size_t begin = at + kCall.size();
      used[code.substr(begin, code.find(')', begin) - begin)].insert(path);
    }
  }
  for (const std::string_view line : LinesOf(list->second)) {
    const size_t end = line.find(',');
    if (!line.starts_with("  X(") || end == line.npos || !std::isalpha(static_cast<unsigned char>(line[4]))) continue;
    const std::string name(line.substr(4, end - 4));
    if (used.erase(name) == 0) found.push_back("base/mutant_list.h: " + name + " is nowhere put in");
  }
  for (const auto& [name, files] : used) found.push_back(fmt::format("{}: {} is not listed", *files.begin(), name));
  return found;
}

// ---- Test data ----

// Each folder of tests/data has a section of README.md that says where it comes from, and each section a folder.
Complaints DataOfUnknownOrigin(const Tree& tree) {
  static const std::string kData = "tests/data/";
  std::set<std::string> named, present;
  Complaints found;
  if (const auto readme = tree.find(kData + "README.md"); readme != tree.end()) {
    std::string section;
    bool licensed = true;
    const auto close = [&] {
      if (!licensed) found.push_back(fmt::format("{}README.md: no licence for {}", kData, section));
    };
    for (std::string_view line : LinesOf(readme->second)) {
      if (line.starts_with("## ")) {
        close();
        section = std::string(line.substr(3));
        licensed = false;
        if (EndsWith(section, "/")) named.insert(section.substr(0, section.size() - 1));
      }
      if (line.find("licence") != line.npos) licensed = true;
    }
    close();
  }
  for (const auto& [path, text] : tree) {
    if (!path.starts_with(kData) || path == kData + "README.md" || path == kData + "fixtures.csv") continue;
    const std::string inside = path.substr(kData.size());
    const std::string folder = inside.find('/') == inside.npos ? std::string() : FolderOf(inside);
    present.insert(folder);
    if (!named.contains(folder)) found.push_back(fmt::format("{}: README.md does not say where it comes from", path));
  }
  for (const std::string& folder : named) {
    if (!present.contains(folder)) found.push_back(fmt::format("{}README.md: {}/ is not there", kData, folder));
  }
  return found;
}

// ---- Tests ----

struct Rule {
  std::string name = {};
  Complaints (*find)(const Tree&);
  Tree planted;             // violates the rule, next to what does not
  Complaints wanted = {};   // what each complaint begins with
};

const std::vector<Rule>& Rules() {
  static const std::string kLong(kColumnsMax + 1, 'x');
  static const std::string kFits(kColumnsMax, 'x');
  static const std::string kMark = std::string("TO") + "DO";
  static const std::vector<Rule> rules = {
      {"includes follow the arrows",
       IncludesAgainstTheArrows,
       {{"base/a.h", "// A.\n#include \"dagstore/engine.h\"\n#include \"base/b.h\"\n#include <vector>\n"},
        {"mount/m.cc", "#include \"shard/key.h\"\n"},
        {"index/i.cc", "#include \"shard/key.h\"\n#include \"i.h\"\n"},
        {"tests/t.cc", "#include \"dagstore/engine.h\"\n#include \"tests/testing.h\"\n"},
        {"dagstore/d.cc", "#include \"tests/testing.h\"\n"}},
       {"base/a.h:2:", "dagstore/d.cc:1:", "index/i.cc:2:", "mount/m.cc:1:"}},
      {"rocksdb/ and uv.h have one place each",
       LibrariesOutOfPlace,
       {{"base/kv_rocks.cc", "#include <rocksdb/db.h>\n"},
        {"base/kv.h", "// Kv.\n#include <rocksdb/db.h>\n"},
        {"net/transport.cc", "#include <uv.h>\n"},
        {"dagstore/engine.cc", "#include <uv.h>\n"}},
       {"base/kv.h:2:", "dagstore/engine.cc:1:"}},
      {"every source and every folder is built",
       NotBuilt,
       {{"CMakeLists.txt", "add_subdirectory(base)\n# add_subdirectory(dag)\n"},
        {"base/CMakeLists.txt", "dagstore_library(base SOURCES a.cc sub/b.cc # c.cc\n  d.cc)\n"},
        {"base/a.cc", ""},
        {"base/sub/b.cc", ""},
        {"base/c.cc", ""},
        {"base/d.cc", ""},
        {"dag/CMakeLists.txt", "foreach(name e f)\n  add_executable(${name} x_${name}.cc)\nendforeach()\n"},
        {"dag/x_e.cc", ""},
        {"dag/x_g.cc", ""}},
       {"base/CMakeLists.txt: c.cc", "CMakeLists.txt: dag", "dag/CMakeLists.txt: x_g.cc"}},
      {"lines have at most 120 columns",
       LongLines,
       {{"base/a.h", "// A.\n" + kLong + "\n" + kFits + "\n"},
        {"base/b.cc", "// clang-format off\n" + kLong + "\n// clang-format on\n" + kLong},
        {"base/c.cc", kFits.substr(1) + "\xc3\xa4\n"},  // two bytes, one column
        {"docs/d.md", kLong}},
       {"base/a.h:2:", "base/b.cc:4:"}},
      {"time, chance and locks go through base/",
       PastTheSeams,
       {{"base/clock.cc", "absl::Time t = absl::Now();\n"},
        {"shard/s.cc", "auto t = absl::Now();\nint r = std::rand();\nbool grand(int);\n// getenv(x)\n"},
        {"mount/m.cc", "auto t = std::chrono::steady_clock::now();\nabsl::Mutex mu;\nconst char* s = \"rand(\";\n"},
        {"dag/d.cc", "int n = 1'000; auto e = getenv(\"HOME\");\nauto s = R\"x(rand()\" getenv()x\";\n"},
        {"tools/t.cc", "auto e = getenv(\"HOME\");\n"}},
       {"dag/d.cc:1:", "mount/m.cc:1:", "mount/m.cc:2:", "shard/s.cc:1:", "shard/s.cc:2:"}},
      {"headers say first what they are",
       HeadersWithoutComment,
       {{"base/a.h", "#pragma once\n"}, {"base/b.h", "// B.\n"}, {"base/c.cc", "int c;\n"}, {"base/d.h", ""}},
       {"base/a.h", "base/d.h"}},
      {"nothing is left for later",
       LeftForLater,
       {{"base/a.cc", "// " + kMark + ": more\n"}, {"docs/b.md", "to do, TODOS\n"}},
       {"base/a.cc: "}},
      {"sections that sources name are there",
       AnchorsThatAreMissing,
       {{"docs/format.md", "# Formats\n## Top-level index\n```\n## Code\n```\n"},
        {"index/a.h", "// A: docs/format.md#top-level-index.\n"},
        {"index/b.cc", "// docs/format.md#code, docs/format.md\n"},
        {"index/c.cc", "// docs/other.md#formats\n"}},
       {"index/b.cc", "index/c.cc"}},
      {"links of documents lead somewhere",
       LinksThatAreMissing,
       {{"docs/a.md", "# A b\n[x](#a-b) [y](#c) [z](b.md#b) [w](../README.md) [v](gone.md) [u](https://e.org/#x)\n"},
        {"docs/b.md", "## B\n[a](a.md#b)\n"},
        {"README.md", "[docs](docs)\n"}},
       {"docs/a.md: link to #c", "docs/a.md: link to gone.md", "docs/b.md: link to a.md#b"}},
      {"options are in the operations manual",
       OptionsWithoutWords,
       {{"dagstore/options.h", "struct Options {\n  size_t a_max = 1;  // b = 2\n  T<int> c = {};\n};\nint d = 0;\n"},
        {"shard/car_reader.h", "struct CarOptions {\n  bool e = true;\n  bool f = true;\n};\n"},
        {"docs/operations.md", "| `a_max` | `car.e` |\n"}},
       {"docs/operations.md: nothing of c", "docs/operations.md: nothing of car.f"}},
      {"mutants are listed and put in",
       MutantsAgainstTheList,
       {{"base/mutant_list.h", "// L.\n  X(A, 1, 0, \"x\", \"y\") \\\n  X(B, 2, 0, \"x\", \"y\")\n  X(4, \"why\")\n"},
        {"base/mutant.h", "// M.\nbool Mutant(kMutantId);\n"},
        {"shard/s.cc", "if (Mutant(kMutantA)) f();  // Mutant(kMutantB)\nif (g && Mutant(kMutantC)) f();\n"},
        {"tests/t.cc", "CHECK(Mutant(kMutantD));\n"}},
       {"base/mutant_list.h: B", "shard/s.cc: C"}},
      {"test data have an origin and a licence",
       DataOfUnknownOrigin,
       {{"tests/data/README.md", "# Data\n## a/\n- x, licence MIT\n## b/\n- y\n## c/\n- z, licence MIT\n"},
        {"tests/data/a/1.car", ""},
        {"tests/data/b/2.car", ""},
        {"tests/data/d/3.car", ""},
        {"tests/data/4.car", ""},
        {"tests/data/fixtures.csv", ""}},
       {"tests/data/4.car", "tests/data/README.md: c/", "tests/data/README.md: no licence for b/",
        "tests/data/d/3.car"}},
  };
  return rules;
}

TEST_CASE("tidy: the tree keeps every rule") {
  CHECK(Real().size() > 100);  // it was found
  CHECK(MembersOf(Real().at("dagstore/options.h"), "Options").size() > 10);
  for (const Rule& rule : Rules()) {
    const Complaints found = rule.find(Real());
    std::string text;
    for (const std::string& complaint : found) text += "\n  " + complaint;
    CHECK_MESSAGE(found.empty(), rule.name, ": ", found.size(), " violations", text);
  }
}

TEST_CASE("tidy: every rule finds what was planted, and nothing else") {
  for (const Rule& rule : Rules()) {
    CAPTURE(rule.name);
    Complaints found = rule.find(rule.planted);
    std::sort(found.begin(), found.end());
    REQUIRE_EQ(found.size(), rule.wanted.size());
    Complaints wanted = rule.wanted;
    std::sort(wanted.begin(), wanted.end());
    for (size_t i = 0; i < found.size(); ++i)
      CHECK_MESSAGE(found[i].starts_with(wanted[i]), found[i], " for ", wanted[i]);
  }
}

TEST_CASE("tidy: exceptions of the rules are still needed") {
  CHECK_EQ(UnusedExceptions(Real()), Complaints());
  CHECK_FALSE(UnusedExceptions(Tree()).empty());
}

}  // namespace
}  // namespace dagstore
