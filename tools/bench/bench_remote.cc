// Remote sources, against nginx on loopback behind a proxy that delays: what the first block costs, how fast a whole
// copy is beside curl, how many transfers many readers cause, and whether the quota holds.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/hashing.h"
#include "base/varint.h"
#include "dagstore/dagstore.h"
#include "index/car_index.h"
#include "mount/file_mount.h"
#include "mount/network_mounts.h"
#include "shard/car_writer.h"
#include "tools/bench/bench.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr uint64_t kBlockBytes = 256 << 10;
constexpr uint64_t kMiB = 1 << 20;
// How often a child and a folder are looked at from outside.
constexpr auto kLook = std::chrono::milliseconds(2);
// How often the threads of the proxy look whether it ends.
constexpr int kStopLookMillis = 50;
// Bytes on their way through one direction of a connection: 50 Mbit/s for ten seconds.
constexpr size_t kUnderWayBytesMax = 64 << 20;

template <typename T>
T Must(absl::StatusOr<T> value) {
  DAGSTORE_CHECK_OK(value.status());
  return *std::move(value);
}
void Must(const absl::Status& status) { DAGSTORE_CHECK_OK(status); }

// ---- Server ----

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// A socket that listens, on a port that is free.
int Listen(uint16_t* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  DAGSTORE_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(fd, 128) == 0 &&
                 getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  *port = ntohs(address.sin_port);
  return fd;
}

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

// nginx with what is in the folder www of `folder`. Ends with this object, and with this process.
class Nginx {
 public:
  explicit Nginx(const std::string& folder) {
    close(Listen(&port_));
    const std::string conf = folder + "/nginx.conf";
    std::ofstream(conf) << fmt::format(R"(
daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
  fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  server {{ listen 127.0.0.1:{1}; root {0}/www; }}
}}
)",
                                       folder, port_);
    const std::string log = folder + "/error.log";
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      execl("/usr/sbin/nginx", "nginx", "-e", log.c_str(), "-c", conf.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    for (int i = 0; i < 200 && !ready_; ++i) {
      const int probe = Connect(port_);
      ready_ = probe >= 0;
      if (ready_) close(probe);
      if (!ready_) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // there is nothing to wait on
    }
  }
  ~Nginx() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Nginx(const Nginx&) = delete;
  bool ready() const { return ready_; }
  std::string Url(std::string_view file) const { return fmt::format("http://127.0.0.1:{}/{}", port_, file); }
  uint16_t port() const { return port_; }

 private:
  uint16_t port_ = 0;
  pid_t pid_ = -1;
  bool ready_ = false;
};

// Hands bytes on half a round trip later, in both directions, as if the link had no other limit; a connection that is
// made costs a round trip as well. Counts what passes.
class DelayProxy {
 public:
  DelayProxy(uint16_t to, absl::Duration round_trip)
      : to_(to), half_(absl::ToChronoMicroseconds(round_trip / 2)), listener_(Listen(&port_)) {
    thread_ = std::thread([this] { Accept(); });
  }
  ~DelayProxy() {
    stop_ = true;
    thread_.join();
    for (std::thread& pipe : pipes_) pipe.join();
    close(listener_);
  }
  DelayProxy(const DelayProxy&) = delete;

  std::string Url(std::string_view file) const { return fmt::format("http://127.0.0.1:{}/{}", port_, file); }
  uint64_t connections() const { return connections_; }
  uint64_t requests() const { return requests_; }
  uint64_t bytes() const { return bytes_; }  // of answers, headers included

 private:
  struct Piece {
    steady_clock::time_point due = {};
    std::string bytes = {};
  };
  struct Sockets {
    int client = -1, server = -1;
    ~Sockets() {
      close(client);
      close(server);
    }
  };

  void Accept() {
    while (!stop_) {
      pollfd wait{listener_, POLLIN, 0};
      if (poll(&wait, 1, kStopLookMillis) <= 0) continue;
      auto sockets = std::make_shared<Sockets>();
      sockets->client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      sockets->server = Connect(to_);
      if (sockets->client < 0 || sockets->server < 0) continue;
      for (const int fd : {sockets->client, sockets->server}) {
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      }
      ++connections_;
      const auto begin = steady_clock::now() + 2 * half_;
      pipes_.emplace_back([this, sockets, begin] { Pipe(sockets->client, sockets->server, begin, /*up=*/true); });
      pipes_.emplace_back([this, sockets, begin] { Pipe(sockets->server, sockets->client, begin, /*up=*/false); });
    }
  }

  void Pipe(int from, int to, steady_clock::time_point begin, bool up) {
    std::mutex mu;
    std::condition_variable changed;
    std::deque<Piece> queue;
    size_t queued = 0;
    bool ended = false;
    std::thread sender([&] {
      for (;;) {
        std::unique_lock lock(mu);
        changed.wait(lock, [&] { return !queue.empty() || ended; });
        if (queue.empty()) break;
        const Piece piece = std::move(queue.front());
        queue.pop_front();
        queued -= piece.bytes.size();
        changed.notify_all();
        lock.unlock();
        std::this_thread::sleep_until(piece.due);
        for (size_t done = 0; done < piece.bytes.size() && !stop_;) {
          const ssize_t n = send(to, piece.bytes.data() + done, piece.bytes.size() - done, MSG_NOSIGNAL);
          if (n <= 0) break;
          done += static_cast<size_t>(n);
        }
      }
      shutdown(to, SHUT_WR);
    });
    std::string buffer(256 << 10, '\0');
    while (!stop_) {
      pollfd wait{from, POLLIN, 0};
      if (poll(&wait, 1, kStopLookMillis) <= 0) continue;
      const ssize_t n = recv(from, buffer.data(), buffer.size(), 0);
      if (n <= 0) break;
      Piece piece{std::max(begin, steady_clock::now()) + half_, buffer.substr(0, static_cast<size_t>(n))};
      if (up && piece.bytes.ends_with("\r\n\r\n")) ++requests_;  // ours have no body, and fit a segment
      if (!up) bytes_ += piece.bytes.size();
      std::unique_lock lock(mu);
      changed.wait(lock, [&] { return queued <= kUnderWayBytesMax || stop_; });
      queued += piece.bytes.size();
      queue.push_back(std::move(piece));
      changed.notify_all();
    }
    {
      const std::lock_guard lock(mu);
      ended = true;
    }
    changed.notify_all();
    if (stop_) shutdown(to, SHUT_RDWR);
    sender.join();
  }

  const uint16_t to_;
  const std::chrono::microseconds half_;
  uint16_t port_ = 0;
  const int listener_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> connections_{0}, requests_{0}, bytes_{0};
  std::list<std::thread> pipes_;  // of the accepting thread
  std::thread thread_;
};

// ---- Files ----

// CAR files of which each block is its number and then zeros: they have holes, and cost no disk.
class CarFiles {
 public:
  CarFiles(std::string folder, uint64_t blocks_max) : folder_(std::move(folder)) {
    Bytes block(kBlockBytes);
    for (uint64_t i = 0; i < blocks_max; ++i) {
      Store64(block.data(), i);
      cids_.push_back(Must(Cid::Of(kCodecRaw, kSha2_256, block)));
    }
  }
  const Cid& cid(uint64_t i) const { return cids_[i]; }

  // Returns the bytes of the file. With an index it is a CARv2.
  uint64_t Make(const std::string& name, uint64_t blocks, bool indexed) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream file(path, std::ios::binary);
    uint64_t at = indexed ? kCarV2HeaderBytes : 0;
    const uint64_t begin = at;
    const auto put = [&](Span part) {
      file.seekp(static_cast<std::streamoff>(at));
      file.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(part.size()));
      at += part.size();
    };
    put(EncodeCarHeader({cids_[0]}));
    std::vector<std::pair<Span, uint64_t>> entries;
    for (uint64_t i = 0; i < blocks; ++i) {
      entries.emplace_back(cids_[i].hash().digest, at - begin);
      Bytes section = EncodeSectionHead(cids_[i].view().bytes, kBlockBytes);
      Append64(section, i);
      put(section);
      at += kBlockBytes - 8;  // a hole
    }
    const uint64_t payload = at - begin;
    if (indexed) {
      std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
        return std::lexicographical_compare(a.first.begin(), a.first.end(), b.first.begin(), b.first.end());
      });
      Bytes listed;
      for (const auto& [digest, offset] : entries) {
        AppendBytes(listed, digest);
        Append64(listed, offset);
      }
      CarIndexView index;
      index.codec = kCodecCarMultihashIndexSorted;
      index.entries = blocks;
      index.buckets = {{.code = kSha2_256, .digest_size = 32, .count = blocks, .entries = listed}};
      put(EncodeCarIndex(index));
      const uint64_t end = at;
      at = 0;
      put(EncodeCarV2Header({.data_offset = begin, .data_size = payload, .index_offset = begin + payload}));
      at = end;
    }
    file.close();
    fs::resize_file(path, at);
    return at;
  }

 private:
  const std::string folder_;
  std::vector<Cid> cids_;
};

// ---- Stores ----

struct Store {
  explicit Store(const std::string& dir, uint64_t quota = UINT64_MAX) {
    NetworkMountConfig config;
    config.network.addresses = std::make_shared<const AddressPolicy>(Must(AddressPolicy::Allowing({"127.0.0.1"})));
    clients = Must(NetworkClients::Make(config));
    auto registry = std::make_shared<MountRegistry>(DefaultMounts(FileMountConfig()));
    Must(RegisterNetworkMounts(config, clients, *registry));
    Options options;
    options.dir = dir;
    options.mounts = registry;
    options.copies.bytes_max = quota;
    store = Must(DagStore::Open(options));
  }
  void Register(const std::string& key, const std::string& url, bool lazy = false) const {
    RegisterOptions options;
    options.lazy = lazy;
    Must(store->RegisterShardSync(key, Must(store->mounts().Make(Must(Url::Parse(url)))), options));
  }
  Accessor Acquire(const std::string& key) const { return Must(store->AcquireShardSync(key)); }

  NetworkClients clients;  // new ones: no connection is there yet
  std::unique_ptr<DagStore> store;
};

uint64_t BytesOnDisk(const std::string& folder) {
  uint64_t bytes = 0;
  const absl::StatusOr<std::vector<std::string>> names = Io::Posix().List(folder);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    const absl::StatusOr<FileStat> stat = Io::Posix().Stat(fmt::format("{}/{}", folder, name), Follow::kNever);
    if (stat.ok() && stat->is_regular) bytes += stat->allocated;
  }
  return bytes;
}

struct ChildRun {
  double seconds = 0;
  uint64_t peak_bytes = 0;  // VmHWM, as it was last seen
};

// Runs a program to its end.
ChildRun RunChild(std::vector<std::string> command) {
  std::vector<char*> argv;
  for (std::string& argument : command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  ChildRun run;
  run.seconds = Seconds([&] {
    int started[2];
    DAGSTORE_CHECK(pipe2(started, O_CLOEXEC) == 0);
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
      execvp(argv[0], argv.data());
      _exit(127);
    }
    close(started[1]);
    char none;
    (void)!read(started[0], &none, 1);  // ends when it is the program; until then it is a copy of this one
    close(started[0]);
    const std::string path = fmt::format("/proc/{}/status", pid);
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      std::ifstream file(path);
      for (std::string line; std::getline(file, line);) {
        if (line.starts_with("VmHWM:"))
          run.peak_bytes = std::max<uint64_t>(run.peak_bytes, std::stoull(line.substr(6)) << 10);
      }
      std::this_thread::sleep_for(kLook);
    }
    DAGSTORE_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  });
  return run;
}

// ---- What is measured ----

// From a cold start (no connection, nothing known) to the first block. The time is that of round trips and of work;
// what a longer round trip adds tells them apart.
void FirstBlock(const BenchConfig& config, const CarFiles& cars, uint16_t server, uint64_t blocks,
                uint64_t file_bytes) {
  constexpr absl::Duration kTrips[] = {absl::Milliseconds(50), absl::Milliseconds(150)};
  std::vector<double> cold[2], warm[2], requests, connections;
  uint64_t bytes = 0;
  int n = 0;
  for (int i = 0; i < config.repeats(); ++i) {
    for (int t = 0; t < 2; ++t) {
      const DelayProxy proxy(server, kTrips[t]);
      const Store s(fmt::format("{}/first{}", config.dir, n++));
      Block block;
      cold[t].push_back(Seconds([&] {
        s.Register("a", proxy.Url("indexed.car"));
        Must(s.Acquire("a").NewBlockstore()->Get(cars.cid(blocks / 2).view(), block));
      }));
      requests.push_back(static_cast<double>(proxy.requests()));
      connections.push_back(static_cast<double>(proxy.connections()));
      const Accessor accessor = s.Acquire("a");
      const auto store = accessor.NewBlockstore();
      warm[t].push_back(Seconds([&] { Must(store->Get(cars.cid(blocks / 3).view(), block)); }));
      std::mt19937_64 random(7);
      for (int r = 0; r < 10; ++r) Must(store->Get(cars.cid(random() % blocks).view(), block));
      bytes = std::max(bytes, proxy.bytes());
    }
  }
  const auto trips = [&](const std::vector<double>(&times)[2]) {
    return (Median(times[1]) - Median(times[0])) / absl::ToDoubleSeconds(kTrips[1] - kTrips[0]);
  };
  PrintFigure("first block, cold: round trips one after another", trips(cold), "", "<= 4");
  PrintFigure("  time at 50 ms", Median(cold[0]) * 1e3, "ms");
  PrintFigure("  requests, samples of the index included", Median(requests), "");
  PrintFigure("  connections", Median(connections), "");
  PrintFigure("a block after registration: round trips", trips(warm), "", "<= 1");
  PrintFigure("  time at 50 ms", Median(warm[0]) * 1e3, "ms");
  PrintFigure("fetched for all that and 10 random blocks", 100 * static_cast<double>(bytes) /
                                                               static_cast<double>(file_bytes),
              "% of file", "<= 1");
}

// The program itself, as anyone would run it, beside curl.
void WholeCopy(const BenchConfig& config, const std::string& url, uint64_t file_bytes) {
  BenchConfig few = config;
  few.quick = true;  // 3 repeats: gigabytes are written in each
  const std::string settings = config.dir + "/bench.toml";
  std::ofstream(settings) << "[network]\nallow = [\"127.0.0.1\"]\n";
  const double mib = static_cast<double>(file_bytes) / static_cast<double>(kMiB);
  uint64_t peak_bytes = 0;
  int n = 0;
  ComparePair(
      few, {"whole copy: fetched, hashed, indexed, durable", "MiB/s", "dagstore add", "curl -o", ">= 0.85"},
      [&] {
        const std::string dir = fmt::format("{}/whole{}", config.dir, n++);
        const ChildRun run = RunChild({"/proc/self/exe", "--repo", dir, "--config", settings, "--quiet", "add", url});
        peak_bytes = std::max(peak_bytes, run.peak_bytes);
        fs::remove_all(dir);
        return mib / run.seconds;
      },
      [&] {
        const std::string path = config.dir + "/curl.car";
        const ChildRun run = RunChild({"curl", "-s", "-o", path, url});
        fs::remove(path);
        return mib / run.seconds;
      });
  PrintFigure(fmt::format("  memory of it, copy of {:.0f} MiB", mib), static_cast<double>(peak_bytes) /
                                                                         static_cast<double>(kMiB),
              "MiB", "<= 64");
}

void ManyReaders(const BenchConfig& config, const CarFiles& cars, uint16_t server, uint64_t file_bytes) {
  const DelayProxy proxy(server, absl::ZeroDuration());
  const Store s(config.dir + "/many");
  s.Register("a", proxy.Url("small.car"), /*lazy=*/true);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 32; ++i) {
    threads.emplace_back([&, i] {
      Block block;
      Must(s.Acquire("a").NewBlockstore()->Get(cars.cid(i).view(), block));
    });
  }
  for (std::thread& thread : threads) thread.join();
  PrintFigure("32 readers of a cold shard: bytes, of the file",
              static_cast<double>(proxy.bytes()) / static_cast<double>(file_bytes), "transfers", "<= 1.01");
  PrintFigure("  requests", static_cast<double>(proxy.requests()), "");
}

void Quota(const BenchConfig& config, const CarFiles& cars, const Nginx& nginx, uint64_t file_bytes, uint64_t blocks) {
  constexpr int kShards = 8;
  const uint64_t quota = config.quick ? 2 * file_bytes : uint64_t{1} << 30;
  const std::string dir = config.dir + "/quota";
  const Store s(dir, quota);
  uint64_t most = 0;
  std::atomic<bool> done = false;
  std::thread watch([&] {
    while (!done) {
      most = std::max(most, BytesOnDisk(dir + "/transients"));
      std::this_thread::sleep_for(kLook);
    }
  });
  Block block;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < kShards; ++i) {
      const std::string key = std::to_string(i);
      if (round == 0) s.Register(key, nginx.Url(fmt::format("small.car?n={}", i)));
      const Accessor accessor = s.Acquire(key);
      const auto store = accessor.NewBlockstore();
      for (uint64_t b = 0; b < blocks; ++b) Must(store->Get(cars.cid(b).view(), block));
    }
  }
  done = true;
  watch.join();
  const CopyCacheStats copies = Must(s.store->Stats()).copies;
  PrintFigure(fmt::format("quota of {} MiB, {} MiB read: most on disk", quota / kMiB, kShards * file_bytes / kMiB),
              static_cast<double>(most) / static_cast<double>(quota), "of quota", "<= 1");
  PrintFigure("  most accounted for", static_cast<double>(copies.bytes_peak) / static_cast<double>(quota), "of quota",
              "<= 1");
  PrintFigure("  copies given up", static_cast<double>(copies.evictions), "");
}

}  // namespace

void BenchRemote(const BenchConfig& config) {
  const std::string www = config.dir + "/www";
  fs::create_directories(www);
  const uint64_t blocks = config.quick ? 2048 : 16384;  // 4 GiB
  const uint64_t small_blocks = blocks / 8;
  const CarFiles cars(www, blocks);
  const uint64_t indexed_bytes = cars.Make("indexed.car", blocks, /*indexed=*/true);
  const uint64_t plain_bytes = cars.Make("plain.car", blocks, /*indexed=*/false);
  const uint64_t small_bytes = cars.Make("small.car", small_blocks - 1, /*indexed=*/false);  // two fit a quota of two
  const Nginx nginx(config.dir);
  if (!nginx.ready()) {
    fmt::print("nginx does not start here: not run\n");
    return;
  }
  FirstBlock(config, cars, nginx.port(), blocks, indexed_bytes);
  WholeCopy(config, nginx.Url("plain.car"), plain_bytes);
  ManyReaders(config, cars, nginx.port(), small_bytes);
  Quota(config, cars, nginx, small_bytes, small_blocks - 1);
}

}  // namespace dagstore
