// Real servers for the mounts' suite: nginx, an FTP server, an NFS server. Each runs on free ports of 127.0.0.1 with
// all its files in a folder of the test's, and dies with the test, however that ends.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing.h"

namespace dagstore {

inline sockaddr_in LoopbackAddress(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// Free now. Somebody else may take it before the server does: then the test says that the server did not start.
inline uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = LoopbackAddress(0);
  socklen_t size = sizeof(address);
  REQUIRE_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), size), 0);
  REQUIRE_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

inline void WriteContent(const std::string& path, Span content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  file.close();
  REQUIRE(file.good());
}

// A program that runs as long as this object.
class ServerProcess {
 public:
  // `environment`: besides that of the test, as NAME=VALUE. What it prints goes to the file `log`.
  ServerProcess(std::vector<std::string> command, std::vector<std::string> environment, const std::string& log)
      : log_(log) {
    std::vector<char*> argv, envp;
    for (std::string& argument : command) argv.push_back(argument.data());
    argv.push_back(nullptr);
    for (char** at = environ; *at != nullptr; ++at) envp.push_back(*at);
    for (std::string& variable : environment) envp.push_back(variable.data());
    envp.push_back(nullptr);
    const pid_t parent = getpid();
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      // Only what is safe after a fork of a process with threads.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(126);
      const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      dup2(out, 1);
      dup2(out, 2);
      execve(argv[0], argv.data(), envp.data());
      _exit(127);
    }
  }
  ~ServerProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  ServerProcess(const ServerProcess&) = delete;

  // Waits until it accepts connections; fails the test if it ends before, or takes too long.
  void AwaitPort(uint16_t port) {
    for (int i = 0; i < 1500; ++i) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = LoopbackAddress(port);
      const bool connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
      close(fd);
      if (connected) return;
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // for another process: there is nothing to wait on
    }
    std::ifstream log(log_);
    FAIL("the server on port ", port, " did not start: ", std::string(std::istreambuf_iterator<char>(log), {}));
  }

 private:
  const std::string log_;
  pid_t pid_ = -1;
};

// A key and a certificate for 127.0.0.1, signed by itself, in one file.
inline std::string MakeCertificate(const std::string& path) {
  const std::string command =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test "
      "-addext subjectAltName=IP:127.0.0.1 -keyout " + path + ".key -out " + path + ".crt 2>/dev/null && cat " +
      path + ".key " + path + ".crt > " + path;
  REQUIRE_EQ(system(command.c_str()), 0);
  return path;
}

// nginx, over HTTP and HTTPS. /private/ wants archive:canary-password, /token/ wants the bearer "canary-token".
class Nginx {
 public:
  Nginx() : http_port(FreePort()), https_port(FreePort()) {
    certificate = MakeCertificate(dir.File("cert.pem"));
    std::filesystem::create_directories(root());
    const std::string conf = dir.File("nginx.conf");
    std::ofstream(dir.File("passwords")) << "archive:{PLAIN}canary-password\n";
    std::ofstream(conf) << fmt::format(R"(
daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  server {{
    listen 127.0.0.1:{1}; listen 127.0.0.1:{2} ssl;
    ssl_certificate {3}; ssl_certificate_key {3};
    root {0}/root;
    location /private/ {{ alias {0}/root/; auth_basic x; auth_basic_user_file {0}/passwords; }}
    location /token/ {{ alias {0}/root/; if ($http_authorization != "Bearer canary-token") {{ return 403; }} }}
    location /piece/ {{ alias {0}/root/; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
  }}
}}
)",
                                       dir.path(), http_port, https_port, certificate);
    process_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"/usr/sbin/nginx", "-e", dir.File("error.log"), "-c", conf},
        std::vector<std::string>{}, dir.File("log"));
    process_->AwaitPort(http_port);
  }

  std::string root() const { return dir.File("root"); }
  std::string Url(std::string_view target) const { return fmt::format("http://127.0.0.1:{}{}", http_port, target); }
  std::string TlsUrl(std::string_view target) const {
    return fmt::format("https://127.0.0.1:{}{}", https_port, target);
  }

  TempDir dir;
  const uint16_t http_port;
  const uint16_t https_port;
  std::string certificate = {};

 private:
  std::unique_ptr<ServerProcess> process_;
};

class FtpServer {
 public:
  explicit FtpServer(bool tls) : port(FreePort()) {
    std::filesystem::create_directories(root());
    std::vector<std::string> command = {"/usr/bin/python3", TestDataPath("../fakes/ftp_server.py"),
                                        std::to_string(port), root()};
    if (tls) command.push_back(certificate = MakeCertificate(dir.File("cert.pem")));
    process_ = std::make_unique<ServerProcess>(command, std::vector<std::string>{}, dir.File("log"));
    process_->AwaitPort(port);
  }
  std::string root() const { return dir.File("root"); }

  TempDir dir;
  const uint16_t port;
  std::string certificate = {};

 private:
  std::unique_ptr<ServerProcess> process_;
};

// nfs-ganesha over a folder, NFS 3. Needs root: it opens files by handle.
class NfsServer {
 public:
  static bool CanRun() { return geteuid() == 0; }

  NfsServer() : port(FreePort()), mount_port(FreePort()) {
    std::filesystem::create_directories(root());
    const std::string conf = dir.File("ganesha.conf");
    std::ofstream(conf) << fmt::format(R"(
NFS_Core_Param {{ Bind_addr = 127.0.0.1; NFS_Port = {1}; MNT_Port = {2}; Protocols = 3; Enable_NLM = false;
  Enable_RQUOTA = false; Enable_UDP = false; fsid_device = true; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = {0}; Pseudo = /export; Access_Type = RO; Squash = None; SecType = sys;
  Transports = TCP; Protocols = 3; Attr_Expiration_Time = 0; FSAL {{ Name = VFS; }} }}
)",
                                       root(), port, mount_port);
    process_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"/usr/bin/ganesha.nfsd", "-F", "-L", dir.File("log"), "-f", conf, "-p",
                                 dir.File("pid"), "-N", "NIV_EVENT"},
        std::vector<std::string>{"LD_PRELOAD=" + Preloaded()}, dir.File("log"));
    process_->AwaitPort(port);
    process_->AwaitPort(mount_port);
  }
  std::string root() const { return dir.File("root"); }

  TempDir dir;
  const uint16_t port;
  const uint16_t mount_port;

 private:
  // Beside the test that runs: no path of a build is compiled in.
  static std::string Preloaded() {
    const std::filesystem::path test = std::filesystem::read_symlink("/proc/self/exe");
    const std::string library = test.parent_path().parent_path() / "fakes" / "libno_portmapper.so";
    REQUIRE(std::filesystem::exists(library));
    return library;
  }

  std::unique_ptr<ServerProcess> process_;
};

}  // namespace dagstore
