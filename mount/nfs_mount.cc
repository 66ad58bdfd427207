// The only file that includes libnfs.
#include "mount/nfs_mount.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <nfsc/libnfs.h>

#include <algorithm>
#include <charconv>
#include <list>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "mount/remote_url.h"

namespace dagstore {
namespace {

constexpr int kLookMillis = 20;  // as base/http_curl.cc
constexpr uint64_t kReadBytesMax = 1 << 20;

struct ContextDeleter {
  void operator()(nfs_context* context) const { nfs_destroy_context(context); }
};
using Context = std::unique_ptr<nfs_context, ContextDeleter>;

// What a call of libnfs has answered. Lives until its callback has run; destroying the context runs it too.
struct Answer {
  bool done = false;
  int result = 0;  // negative: an errno
  void* data = nullptr;
  // Where the bytes of a read go, before libnfs forgets them.
  uint8_t* out = nullptr;
  uint64_t out_size = 0;
  nfs_stat_64 stat = {};
  bool wants_stat = false;

  static void Done(int result, nfs_context*, void* data, void* self) {
    auto& answer = *static_cast<Answer*>(self);
    answer.done = true;
    answer.result = result;
    answer.data = data;
    if (result > 0 && answer.out != nullptr) {
      std::memcpy(answer.out, data, std::min<uint64_t>(answer.out_size, static_cast<uint64_t>(result)));
    }
    if (result == 0 && answer.wants_stat) answer.stat = *static_cast<nfs_stat_64*>(data);
  }
};

struct Location {
  std::string host = {};
  std::string nfs_port = {};
  std::string mount_port = {};
  std::string folder = {};  // what is mounted
  std::string name = {};    // in it
  std::string shown = {};   // the URL, for messages

  std::string Key() const { return fmt::format("{}\n{}\n{}\n{}", host, nfs_port, mount_port, folder); }
};

// A mounted export. One thread at a time.
class Session {
 public:
  Session(Context context, std::string key, absl::Duration stall_timeout)
      : context_(std::move(context)), key_(std::move(key)), stall_timeout_(stall_timeout) {}

  nfs_context* context() const { return context_.get(); }
  const std::string& key() const { return key_; }
  // No call may follow one that was given up: its answer would come to somebody else.
  bool broken() const { return context_ == nullptr; }

  // Waits for the answer to what `begin` has sent. On every error the session is broken, unless the server answered.
  template <typename Begin>
  absl::Status Call(const WorkContext& work, const std::string& what, Answer* answer, Begin begin) {
    if (broken()) return Unavailable("{}: the connection is lost", what);
    const absl::Status status = [&] {
      RETURN_IF_ERROR(work.Check());
      if (begin(context_.get()) < 0) return Unavailable("{}: {}", what, Error());
      return Drive(work, what, answer);
    }();
    if (!status.ok() && !answer->done) Break();
    RETURN_IF_ERROR(status);
    if (answer->result >= 0) return absl::OkStatus();
    const absl::Status error = ErrnoStatus(-answer->result, what);
    // The server's own trouble may pass; ours would be another kind.
    if (absl::IsDataLoss(error) || absl::IsResourceExhausted(error)) return Unavailable("{}", Message(error));
    return error;
  }

  void Break() { context_.reset(); }

 private:
  std::string Error() const {
    const char* error = nfs_get_error(context_.get());
    return error != nullptr && *error != '\0' ? error : "no connection";
  }

  absl::Status Drive(const WorkContext& work, const std::string& what, Answer* answer) {
    const Clock& clock = Clock::Real();
    MonotonicNanos heard_at = clock.Now();
    while (!answer->done) {
      RETURN_IF_ERROR(work.Check());
      pollfd fd = {.fd = nfs_get_fd(context_.get()), .events = 0, .revents = 0};
      if (fd.fd >= 0) fd.events = static_cast<short>(nfs_which_events(context_.get()));
      poll(&fd, 1, kLookMillis);
      if (fd.revents != 0) heard_at = clock.Now();
      if (clock.Now() - heard_at > absl::ToInt64Nanoseconds(stall_timeout_)) {
        return Unavailable("{}: no answer for {}", what, absl::FormatDuration(stall_timeout_));
      }
      if (nfs_service(context_.get(), fd.revents) < 0 && !answer->done) {
        return Unavailable("{}: {}", what, Error());
      }
    }
    return absl::OkStatus();
  }

  Context context_;
  const std::string key_;
  const absl::Duration stall_timeout_;
};

class LibNfsClient;

// An open file, with the session it is open in.
class NfsFile {
 public:
  NfsFile(std::shared_ptr<LibNfsClient> client, std::unique_ptr<Session> session, nfsfh* file, MountStat stat,
          std::string shown)
      : client_(std::move(client)),
        session_(std::move(session)),
        file_(file),
        stat_(std::move(stat)),
        shown_(std::move(shown)) {}
  ~NfsFile();

  const MountStat& stat() const { return stat_; }
  const std::string& shown() const { return shown_; }

  // Any thread. Fewer than `size` only at the end.
  absl::StatusOr<size_t> ReadSome(const WorkContext& work, uint64_t offset, size_t size, uint8_t* out);

 private:
  const std::shared_ptr<LibNfsClient> client_;
  Mutex mu_;
  std::unique_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  nfsfh* const file_;
  const MountStat stat_;
  const std::string shown_;
};

MountStat StatOf(const nfs_stat_64& found) {
  MountStat stat;
  stat.exists = true;
  stat.ready = true;
  stat.size = found.nfs_size;
  stat.size_known = true;
  stat.validator = fmt::format("{:x}-{:x}-{:x}.{:x}", found.nfs_ino, found.nfs_size, found.nfs_mtime,
                               found.nfs_mtime_nsec);
  return stat;
}

class LibNfsClient final : public NfsClient, public std::enable_shared_from_this<LibNfsClient> {
 public:
  explicit LibNfsClient(const NfsOptions& options) : options_(options) {}

  void CloseIdle() override {
    std::list<std::unique_ptr<Session>> closed;
    MutexLock lock(mu_);
    closed.swap(idle_);
  }

  uint64_t bytes_received() const override { return bytes_received_.load(std::memory_order_relaxed); }
  void Received(uint64_t bytes) { bytes_received_.fetch_add(bytes, std::memory_order_relaxed); }

  void Put(std::unique_ptr<Session> session) {
    if (session == nullptr || session->broken()) return;
    std::list<std::unique_ptr<Session>> closed;  // outside the lock
    MutexLock lock(mu_);
    idle_.push_front(std::move(session));
    if (idle_.size() > options_.idle_connections_max) closed.splice(closed.end(), idle_, std::prev(idle_.end()));
  }

  absl::StatusOr<MountStat> Stat(const Location& at, const WorkContext& work) {
    MountStat stat;
    const absl::Status status = WithSession(at, work, [&](std::unique_ptr<Session>& session) {
      return StatIn(*session, at, work, &stat);
    });
    if (absl::IsNotFound(status)) return MountStat();
    RETURN_IF_ERROR(status);
    return stat;
  }

  absl::StatusOr<std::shared_ptr<NfsFile>> Open(const Location& at, const WorkContext& work) {
    std::shared_ptr<NfsFile> opened;
    RETURN_IF_ERROR(WithSession(at, work, [&](std::unique_ptr<Session>& session) {
      // Looked at first: opening a FIFO or a folder is not for us.
      MountStat stat;
      RETURN_IF_ERROR(StatIn(*session, at, work, &stat));
      Answer answer;
      RETURN_IF_ERROR(session->Call(work, "open " + at.shown, &answer, [&](nfs_context* context) {
        return nfs_open_async(context, at.name.c_str(), O_RDONLY, &Answer::Done, &answer);
      }));
      auto* const file = static_cast<nfsfh*>(answer.data);
      // What is open is what is described.
      Answer described;
      described.wants_stat = true;
      const absl::Status status = session->Call(work, "open " + at.shown, &described, [&](nfs_context* context) {
        return nfs_fstat64_async(context, file, &Answer::Done, &described);
      });
      if (status.ok()) stat = StatOf(described.stat);
      opened = std::make_shared<NfsFile>(shared_from_this(), std::move(session), file, std::move(stat), at.shown);
      return status;
    }));
    return opened;
  }

 private:
  static absl::Status StatIn(Session& session, const Location& at, const WorkContext& work, MountStat* stat) {
    Answer answer;
    answer.wants_stat = true;
    RETURN_IF_ERROR(session.Call(work, "stat " + at.shown, &answer, [&](nfs_context* context) {
      return nfs_stat64_async(context, at.name.c_str(), &Answer::Done, &answer);
    }));
    if ((answer.stat.nfs_mode & S_IFMT) != S_IFREG) return InvalidArgument("{} is no regular file", at.shown);
    *stat = StatOf(answer.stat);
    return absl::OkStatus();
  }

  // In an idle session, if there is one; once more in a new one, if that turns out to be dead.
  template <typename Use>
  absl::Status WithSession(const Location& at, const WorkContext& work, Use use) {
    RETURN_IF_ERROR(work.Check());
    if (std::unique_ptr<Session> session = Take(at.Key())) {
      const absl::Status status = use(session);
      const bool was_dead = session != nullptr && session->broken();
      Put(std::move(session));
      if (!was_dead || !absl::IsUnavailable(status)) return status;
    }
    ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Connect(at, work));
    absl::Status status = use(session);
    Put(std::move(session));
    return status;
  }

  std::unique_ptr<Session> Take(const std::string& key) {
    MutexLock lock(mu_);
    const auto found = std::find_if(idle_.begin(), idle_.end(), [&](const auto& idle) { return idle->key() == key; });
    if (found == idle_.end()) return nullptr;
    std::unique_ptr<Session> session = std::move(*found);
    idle_.erase(found);
    return session;
  }

  absl::StatusOr<std::unique_ptr<Session>> Connect(const Location& at, const WorkContext& work) {
    ASSIGN_OR_RETURN(const std::vector<IpAddress> addresses,
                     ResolveChecked(*options_.resolver, *options_.addresses, at.host, work));
    absl::Status status;
    for (const IpAddress& address : addresses) {
      RETURN_IF_ERROR(work.Check());
      Context context(nfs_init_context());
      if (context == nullptr) return ResourceExhausted("{}: no memory for a connection", at.shown);
      SetUp(context.get(), at);
      auto session = std::make_unique<Session>(std::move(context), at.Key(), options_.stall_timeout);
      Answer answer;
      // An address, not the name: it is the one that was checked.
      status = session->Call(work, "mount " + at.shown, &answer, [&](nfs_context* nfs) {
        return nfs_mount_async(nfs, address.ToString().c_str(), at.folder.c_str(), &Answer::Done, &answer);
      });
      if (status.ok()) return session;
      session->Break();  // before the answer goes
      if (!absl::IsUnavailable(status)) break;
    }
    return status;
  }

  void SetUp(nfs_context* context, const Location& at) const {
    // Ports can only be set by parsing a URL.
    std::string settings = "nfs://0.0.0.0/?version=3&autoreconnect=0&auto-traverse-mounts=0";
    if (!at.nfs_port.empty()) settings += "&nfsport=" + at.nfs_port;
    if (!at.mount_port.empty()) settings += "&mountport=" + at.mount_port;
    if (nfs_url* url = nfs_parse_url_incomplete(context, settings.c_str())) nfs_destroy_url(url);
    if (options_.uid.has_value()) nfs_set_uid(context, *options_.uid);
    if (options_.gid.has_value()) nfs_set_gid(context, *options_.gid);
  }

  const NfsOptions options_;
  std::atomic<uint64_t> bytes_received_{0};
  Mutex mu_;
  std::list<std::unique_ptr<Session>> idle_ ABSL_GUARDED_BY(mu_);  // the latest first
};

NfsFile::~NfsFile() {
  std::unique_ptr<Session> session;
  {
    MutexLock lock(mu_);
    session = std::move(session_);
  }
  if (session == nullptr || session->broken()) return;
  // NFS 3 keeps no open files on the server: nothing is sent for it.
  Answer answer;
  const absl::Status closed = session->Call({}, "close", &answer, [&](nfs_context* context) {
    return nfs_close_async(context, file_, &Answer::Done, &answer);
  });
  if (closed.ok()) client_->Put(std::move(session));
}

absl::StatusOr<size_t> NfsFile::ReadSome(const WorkContext& work, uint64_t offset, size_t size, uint8_t* out) {
  MutexLock lock(mu_);
  size_t read = 0;
  while (read < size && offset + read < stat_.size) {
    const uint64_t max = std::clamp<uint64_t>(session_->broken() ? 0 : nfs_get_readmax(session_->context()), 4096,
                                              kReadBytesMax);
    Answer answer;
    answer.out = out + read;
    answer.out_size = std::min<uint64_t>({size - read, max, stat_.size - offset - read});
    RETURN_IF_ERROR(session_->Call(work, "read " + shown_, &answer, [&](nfs_context* context) {
      return nfs_pread_async(context, file_, offset + read, answer.out_size, &Answer::Done, &answer);
    }));
    if (answer.result == 0) break;  // it has become shorter
    read += std::min<uint64_t>(answer.out_size, static_cast<uint64_t>(answer.result));
  }
  client_->Received(read);
  return read;
}

class NfsReader final : public RandomReader {
 public:
  explicit NfsReader(std::shared_ptr<NfsFile> file) : file_(std::move(file)) {}
  uint64_t Size() const override { return file_->stat().size; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= Size()) return size_t{0};
    return file_->ReadSome({}, offset, size, out);
  }

 private:
  const std::shared_ptr<NfsFile> file_;
};

class NfsStream final : public ByteStream {
 public:
  NfsStream(std::shared_ptr<NfsFile> file, ByteRange range, const WorkContext& work)
      : file_(std::move(file)), offset_(range.offset), left_(range.size), work_(work) {}
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    const uint64_t there = offset_ >= file_->stat().size ? 0 : file_->stat().size - offset_;
    const uint64_t want = std::min<uint64_t>({size, left_, there, kReadBytesMax});
    if (want == 0) return size_t{0};
    ASSIGN_OR_RETURN(const size_t n, file_->ReadSome(work_, offset_, want, out));
    if (n == 0) return Unavailable("read {}: the file has become shorter", file_->shown());
    offset_ += n;
    left_ -= n;
    return n;
  }

 private:
  const std::shared_ptr<NfsFile> file_;
  uint64_t offset_;
  uint64_t left_;
  const WorkContext work_;
};

class NfsMount final : public Mount {
 public:
  NfsMount(std::shared_ptr<LibNfsClient> client, Url url, Location at)
      : client_(std::move(client)), url_(std::move(url)), at_(std::move(at)) {}

  MountTraits traits() const override { return {.local = false, .random = true, .stable = false}; }
  Url url() const override { return url_; }
  absl::StatusOr<MountStat> Stat(Io&, const WorkContext& work) const override { return client_->Stat(at_, work); }

  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io&, const WorkContext& work) const override {
    ASSIGN_OR_RETURN(std::shared_ptr<NfsFile> file, client_->Open(at_, work));
    return std::make_unique<NfsReader>(std::move(file));
  }
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandomIf(Io&, const WorkContext& work,
                                                             const std::string& validator) const override {
    ASSIGN_OR_RETURN(std::shared_ptr<NfsFile> file, OpenIf(work, validator));
    return std::make_unique<NfsReader>(std::move(file));
  }
  absl::StatusOr<MountRange> OpenRange(Io&, const WorkContext& work, ByteRange range,
                                       const std::string& validator) const override {
    ASSIGN_OR_RETURN(std::shared_ptr<NfsFile> file, OpenIf(work, validator));
    MountRange opened;
    opened.stat = file->stat();
    opened.stream = std::make_unique<NfsStream>(std::move(file), range, work);
    return opened;
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work,
                                                         uint64_t offset) const override {
    ASSIGN_OR_RETURN(std::shared_ptr<NfsFile> file, client_->Open(at_, work));
    return std::make_unique<NfsStream>(std::move(file), ByteRange{offset, UINT64_MAX}, work);
  }

 private:
  absl::StatusOr<std::shared_ptr<NfsFile>> OpenIf(const WorkContext& work, const std::string& validator) const {
    ASSIGN_OR_RETURN(std::shared_ptr<NfsFile> file, client_->Open(at_, work));
    if (!validator.empty() && file->stat().validator != validator) {
      return FailedPrecondition("open {}: the source has changed", at_.shown);
    }
    return file;
  }

  const std::shared_ptr<LibNfsClient> client_;
  const Url url_;
  const Location at_;
};

bool IsPort(const std::string& text) {
  unsigned port = 0;
  const char* end = text.data() + text.size();
  return std::from_chars(text.data(), end, port).ptr == end && port > 0 && port < 65536;
}

}  // namespace

std::shared_ptr<NfsClient> NewNfsClient(const NfsOptions& options) { return std::make_shared<LibNfsClient>(options); }

MountFactory NfsMountFactory(std::shared_ptr<NfsClient> client) {
  auto shared = std::dynamic_pointer_cast<LibNfsClient>(std::move(client));
  DAGSTORE_CHECK(shared != nullptr);
  return [shared = std::move(shared)](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    if (!url.userinfo.empty()) return InvalidArgument("nfs: URL with a user: who asks is configuration");
    ASSIGN_OR_RETURN(const HttpUrl host, ParseHost(url));
    Location at;
    at.host = host.host;
    at.nfs_port = url.port;
    for (const auto& item : url.query) {
      if (item.first != "mountport" || !at.mount_port.empty() || !IsPort(item.second)) {
        return InvalidArgument("nfs: URL with a query that is not one mountport=");
      }
      at.mount_port = item.second;
    }
    const size_t slash = url.path.rfind('/');
    if (slash == url.path.npos || slash + 1 == url.path.size()) return InvalidArgument("nfs: URL names no file");
    // The server walks it: what goes up, or hides behind a zero, is not what was listed.
    if (const absl::Status beneath = CheckBeneath(std::string_view(url.path).substr(1)); !beneath.ok()) {
      return Annotate(beneath, "nfs: URL");
    }
    at.folder = slash == 0 ? "/" : url.path.substr(0, slash);
    at.name = url.path.substr(slash);
    at.shown = url.Redacted();
    return std::make_unique<NfsMount>(shared, url, std::move(at));
  };
}

}  // namespace dagstore
