#include "tests/sim/runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "base/check.h"

namespace dagstore::sim {
namespace {

constexpr unsigned kSecondsMax = 30;  // of one run; the longest take a tenth of a second

void WriteAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n <= 0) _exit(3);
    at += static_cast<size_t>(n);
  }
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[1 << 14];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<size_t>(n));
  return text;
}

Outcome Apart(const std::function<Tape()>& make, RunOptions options, bool print) {
  int ends[2];
  DAGSTORE_CHECK(pipe(ends) == 0);
  std::fflush(stdout);
  const pid_t child = fork();
  DAGSTORE_CHECK(child >= 0);
  if (child == 0) {
    close(ends[0]);
    if (print) {
      options.listener = [](std::string line) {
        std::puts(line.c_str());
        std::fflush(stdout);
      };
    } else if (std::freopen("/dev/null", "w", stderr) == nullptr) {
      _exit(3);
    }
    alarm(kSecondsMax);
    Tape tape = make();
    const RunResult result = RunWorld(tape, options);
    WriteAll(ends[1], fmt::format("{}\n{}\n{}\n{}\n{}", result.oracle, result.hash, result.steps,
        EncodeTape(tape.Used()),
                                  result.what));
    std::fflush(stdout);
    _exit(0);
  }
  close(ends[1]);
  const std::string text = ReadAll(ends[0]);
  close(ends[0]);
  int status = 0;
  DAGSTORE_CHECK(waitpid(child, &status, 0) == child);
  Outcome outcome;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    outcome.result.oracle = signal == SIGABRT ? "check" : signal == SIGALRM ? "hang" : "signal";
    outcome.result.what = fmt::format("the process ends with {} {}", signal != 0 ? "signal" : "status",
                                      signal != 0 ? signal : WEXITSTATUS(status));
    return outcome;
  }
  size_t at = 0;
  const auto line = [&] {
    const size_t end = text.find('\n', at);
    std::string out = text.substr(at, end - at);
    at = end + 1;
    return out;
  };
  outcome.result.oracle = line();
  outcome.result.hash = std::strtoull(line().c_str(), nullptr, 10);
  outcome.result.steps = std::strtoull(line().c_str(), nullptr, 10);
  std::string tape;
  for (size_t s = 0; s < kStreams; ++s) tape += line() + "\n";
  (void)line();
  outcome.result.what = text.substr(std::min(at, text.size()));
  absl::StatusOr<TapeWords> words = DecodeTape(tape);
  DAGSTORE_CHECK_OK(words.status());
  outcome.tape = *std::move(words);
  return outcome;
}

size_t Size(const TapeWords& tape) {
  size_t n = 0;
  for (const auto& words : tape) n += words.size();
  return n;
}

}  // namespace

Outcome RunApart(const TapeWords& tape, const RunOptions& options, bool print) {
  return Apart([&] { return Tape(tape); }, options, print);
}
Outcome RunApart(uint64_t seed, const RunOptions& options, bool print) {
  return Apart([&] { return Tape(seed); }, options, print);
}

TapeWords Shrink(TapeWords best, const std::string& oracle, const RunOptions& options, const ShrinkOptions& limits) {
  const auto begin = std::chrono::steady_clock::now();
  int runs = 0;
  const auto over = [&] {
    return runs >= limits.runs_max ||
           std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > limits.seconds_max;
  };
  // Takes the try if it breaks the same rule.
  const auto attempt = [&](const TapeWords& words) {
    if (over()) return false;
    ++runs;
    Outcome outcome = RunApart(words, options, /*print=*/false);
    if (outcome.result.oracle != oracle) return false;
    best = Size(outcome.tape) == 0 ? words : std::move(outcome.tape);
    return true;
  };
  (void)attempt(best);  // what was not reached goes
  for (bool better = true; better && !over();) {
    better = false;
    for (size_t s = 0; s < kStreams; ++s) {  // a whole stream at rest
      if (best[s].empty()) continue;
      TapeWords words = best;
      words[s].clear();
      better = attempt(words) || better;
    }
    for (size_t s = 0; s < kStreams; ++s) {
      for (size_t size = std::max<size_t>(1, best[s].size() / 2); size >= 1 && !over(); size /= 2) {
        for (size_t at = 0; at < best[s].size() && !over();) {
          const auto first = static_cast<std::ptrdiff_t>(at);
          const auto last = static_cast<std::ptrdiff_t>(std::min(at + size, best[s].size()));
          TapeWords words = best;
          words[s].erase(words[s].begin() + first, words[s].begin() + last);
          if (attempt(words)) {
            better = true;
            continue;
          }
          words = best;
          if (std::any_of(words[s].begin() + first, words[s].begin() + last, [](uint32_t w) { return w != 0; })) {
            std::fill(words[s].begin() + first, words[s].begin() + last, 0);
            better = attempt(words) || better;
          }
          at += size;
        }
        if (size == 1) break;
      }
    }
  }
  return best;
}

}  // namespace dagstore::sim
