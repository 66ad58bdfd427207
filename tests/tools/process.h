// Runs programs in tests.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "tests/testing.h"

extern char** environ;

namespace dagstore {

struct Outcome {
  int code = -1;  // exit code; -1 if it did not exit by itself
  std::string out = {};
  std::string err = {};
};

inline std::string ReadTextFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
inline void WriteTextFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A running program. Its stdout is `out_fd` of the caller; stdin and stderr are files.
inline pid_t Spawn(const std::vector<std::string>& command, int out_fd, const std::string& in,
                   const std::string& err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  REQUIRE_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

// Waits for its end.
inline int Wait(pid_t pid) {
  int status = 0;
  REQUIRE_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

inline Outcome RunProgram(const std::vector<std::string>& command, const std::string& input = {}) {
  const TempDir dir;
  WriteTextFile(dir.File("in"), input);
  const int out = open(dir.File("out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(out >= 0);
  Outcome outcome;
  outcome.code = Wait(Spawn(command, out, dir.File("in"), dir.File("err")));
  close(out);
  outcome.out = ReadTextFile(dir.File("out"));
  outcome.err = ReadTextFile(dir.File("err"));
  return outcome;
}

}  // namespace dagstore
