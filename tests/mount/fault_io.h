// Real files, with one operation that fails, and a record of what was done.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/io.h"

namespace dagstore {

class FaultIo final : public Io {
 public:
  // The `n`th operation from now on, counted from 1, fails with `error`; 0: none.
  void FailNth(size_t n, absl::Status error) {
    fail_at_ = n == 0 ? 0 : done_.size() + n;
    error_ = std::move(error);
  }
  // "sync a.tmp", in order, the failed one included. Reads are not in it.
  const std::vector<std::string>& done() const { return done_; }

  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow follow) override {
    RETURN_IF_ERROR(Step("open", path));
    return base_.Open(path, follow);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    RETURN_IF_ERROR(Step("create", path));
    ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, base_.Create(path));
    return std::make_unique<File>(*this, path, std::move(file));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    RETURN_IF_ERROR(Step("open for writing", path));
    return base_.OpenForWriting(path);
  }
  absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow) override {
    RETURN_IF_ERROR(Step("stat", path));
    return base_.Stat(path, follow);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Step("rename", to));
    return base_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(Step("remove", path));
    return base_.Remove(path);
  }
  absl::Status MakeDir(const std::string& path) override {
    RETURN_IF_ERROR(Step("make folder", path));
    return base_.MakeDir(path);
  }
  absl::Status SyncDir(const std::string& path) override {
    RETURN_IF_ERROR(Step("sync folder", path));
    return base_.SyncDir(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    RETURN_IF_ERROR(Step("list", path));
    return base_.List(path);
  }

 private:
  class File final : public WritableFile {
   public:
    File(FaultIo& io, std::string path, std::unique_ptr<WritableFile> base)
        : io_(io), path_(std::move(path)), base_(std::move(base)) {}
    absl::Status Append(Span data) override {
      RETURN_IF_ERROR(io_.Step("append", path_));
      return base_->Append(data);
    }
    absl::Status WriteAt(uint64_t offset, Span data) override {
      RETURN_IF_ERROR(io_.Step("write", path_));
      return base_->WriteAt(offset, data);
    }
    absl::Status Sync() override {
      RETURN_IF_ERROR(io_.Step("sync", path_));
      return base_->Sync();
    }
    absl::Status Close() override {
      RETURN_IF_ERROR(io_.Step("close", path_));
      return base_->Close();
    }

   private:
    FaultIo& io_;
    const std::string path_;
    const std::unique_ptr<WritableFile> base_;
  };

  absl::Status Step(const std::string& verb, const std::string& path) {
    done_.push_back(verb + " " + path.substr(path.rfind('/') + 1));
    return done_.size() == fail_at_ ? error_ : absl::OkStatus();
  }

  Io& base_ = Io::Posix();
  std::vector<std::string> done_;
  size_t fail_at_ = 0;
  absl::Status error_;
};

}  // namespace dagstore
