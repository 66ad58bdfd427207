// Runs a fuzz target without libFuzzer: over files and over every file below folders, and then over inputs that are
// made from them, always the same ones.
//   fuzz_TARGET [--mutations N] [--seed S] FILE|FOLDER...
// An input that breaks the target is left in ./finding-<target>.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kMutatedBytesMax = 16 << 10;  // a run of the top-level index has three pages at least

std::string finding_path;
const Input* current = nullptr;

void KeepFinding() {
  if (current == nullptr) return;
  const Input* input = std::exchange(current, nullptr);
  if (FILE* file = std::fopen(finding_path.c_str(), "wb")) {
    (void)!std::fwrite(input->data(), 1, input->size(), file);
    std::fclose(file);
    std::fprintf(stderr, "the input is in %s\n", finding_path.c_str());
  }
}
void OnSignal(int number) {
  KeepFinding();
  signal(number, SIG_DFL);
  raise(number);
}

void Run(const Input& input) {
  current = &input;
  // A copy of exactly its size, so that reading past its end is seen.
  const Input exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  current = nullptr;
}

bool Load(const std::filesystem::path& path, std::vector<Input>& inputs) {
  std::ifstream file(path, std::ios::binary);
  if (!file.good()) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  inputs.emplace_back(bytes.begin(), bytes.end());
  return true;
}

// The usual changes: a bit, a byte, a number at an edge, something cut out, doubled, or taken from another input.
void Mutate(Input& input, const std::vector<Input>& seeds, std::mt19937_64& random) {
  static constexpr uint64_t kEdges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, INT32_MAX, UINT32_MAX, INT64_MAX,
                                        UINT64_MAX};
  const auto at = [&](size_t size) { return size == 0 ? 0 : static_cast<size_t>(random() % size); };
  const size_t place = at(input.size());
  switch (random() % 8) {
    case 0:
      if (!input.empty()) input[place] ^= static_cast<uint8_t>(1u << (random() % 8));
      break;
    case 1:
      if (!input.empty()) input[place] = static_cast<uint8_t>(random());
      break;
    case 2: {
      const uint64_t edge = kEdges[random() % std::size(kEdges)];
      const size_t size = std::min<size_t>(size_t{1} << (random() % 4), input.size() - place);
      if (size != 0) std::memcpy(input.data() + place, &edge, size);
      break;
    }
    case 3: input.resize(place); break;
    case 4: {
      const size_t end = place + at(std::min<size_t>(input.size() - place, 64));
      input.erase(input.begin() + static_cast<ptrdiff_t>(place), input.begin() + static_cast<ptrdiff_t>(end));
      break;
    }
    case 5: input.insert(input.begin() + static_cast<ptrdiff_t>(place), static_cast<uint8_t>(random())); break;
    case 6: {
      const Input part(input.begin() + static_cast<ptrdiff_t>(place),
                       input.begin() + static_cast<ptrdiff_t>(place + std::min<size_t>(input.size() - place, 64)));
      input.insert(input.begin() + static_cast<ptrdiff_t>(at(input.size())), part.begin(), part.end());
      break;
    }
    case 7: {
      const Input& other = seeds[at(seeds.size())];
      const size_t from = at(other.size());
      const size_t size = std::min<size_t>(other.size() - from, 1 + random() % 64);
      input.insert(input.begin() + static_cast<ptrdiff_t>(place), other.begin() + static_cast<ptrdiff_t>(from),
                   other.begin() + static_cast<ptrdiff_t>(from + size));
      break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t mutations = 0, seed = 1;
  std::vector<Input> inputs;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if ((word == "--mutations" || word == "--seed") && i + 1 < argc) {
      (word == "--seed" ? seed : mutations) = std::strtoull(argv[++i], nullptr, 10);
    } else if (!std::filesystem::is_directory(word)) {
      if (!Load(word, inputs)) return 1;
    } else {
      std::vector<std::filesystem::path> paths;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(word)) {
        if (entry.is_regular_file()) paths.push_back(entry.path());
      }
      std::sort(paths.begin(), paths.end());  // so that a seed makes the same inputs on every file system
      for (const auto& path : paths) {
        if (!Load(path, inputs)) return 1;
      }
    }
  }
  if (inputs.empty()) {
    std::fprintf(stderr, "usage: %s [--mutations N] [--seed S] <file or folder>...\n", argv[0]);
    return 1;
  }
  finding_path = "finding-" + std::filesystem::path(argv[0]).filename().string();
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(KeepFinding);
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(number, OnSignal);

  Run({});
  for (const Input& input : inputs) Run(input);
  std::vector<Input> seeds;
  for (Input& input : inputs) {
    if (input.size() <= kMutatedBytesMax) seeds.push_back(std::move(input));
  }
  if (seeds.empty()) seeds.push_back({});
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < mutations; ++i) {
    Input input = seeds[random() % seeds.size()];
    for (uint64_t changes = 1 + random() % 4; changes != 0; --changes) Mutate(input, seeds, random);
    if (input.size() > kMutatedBytesMax) input.resize(kMutatedBytesMax);
    Run(input);
  }
  std::printf("%zu files and %llu mutations of them\n", inputs.size(), static_cast<unsigned long long>(mutations));
  return 0;
}
