#include "base/sha256_lanes.h"

#include <memory>
#include <random>

#include "base/hashing.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// Messages in allocations of their own, so that a read beyond one is seen by the address sanitizer.
class Messages {
 public:
  void Add(size_t size) {
    auto bytes = std::make_unique<uint8_t[]>(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(random_());
    jobs_.push_back({Span(bytes.get(), size), {}});
    expected_.emplace_back();
    Sha256(jobs_.back().data, expected_.back().data());
    owned_.push_back(std::move(bytes));
  }

  size_t size() const { return jobs_.size(); }
  std::mt19937& random() { return random_; }

  // How many digests differ from those of OpenSSL.
  size_t Wrong(Sha256Kernel kernel) {
    for (Sha256Job& job : jobs_) job.digest = {};
    Sha256Many(jobs_, kernel);
    size_t wrong = 0;
    for (size_t i = 0; i < jobs_.size(); ++i) wrong += jobs_[i].digest != expected_[i] ? 1 : 0;
    return wrong;
  }

 private:
  static constexpr uint32_t kSeed = 20260801;
  std::mt19937 random_{kSeed};
  std::vector<std::unique_ptr<uint8_t[]>> owned_;
  std::vector<Sha256Job> jobs_;
  std::vector<std::array<uint8_t, 32>> expected_;
};

template <typename Body>
void ForEachKernel(Body body) {
  for (const Sha256Kernel kernel : kSha256Kernels) {
    if (!CanRun(kernel)) continue;
    CAPTURE(static_cast<int>(kernel));
    body(kernel);
  }
}

TEST_CASE("sha256 lanes: every kernel agrees with OpenSSL for every length up to 300, alone and together") {
  Messages together;
  for (size_t size = 0; size <= 300; ++size) {
    CAPTURE(size);
    Messages alone;
    alone.Add(size);
    together.Add(size);
    ForEachKernel([&](Sha256Kernel kernel) { CHECK_EQ(alone.Wrong(kernel), 0); });
  }
  ForEachKernel([&](Sha256Kernel kernel) { CHECK_EQ(together.Wrong(kernel), 0); });
}

TEST_CASE("sha256 lanes: any number of messages of one length") {
  for (const size_t size : {0, 55, 56, 64, 119, 120, 128, 4096}) {
    CAPTURE(size);
    Messages messages;
    for (size_t count = 1; count <= 40; ++count) {
      messages.Add(size);
      CAPTURE(count);
      ForEachKernel([&](Sha256Kernel kernel) { CHECK_EQ(messages.Wrong(kernel), 0); });
    }
  }
}

TEST_CASE("sha256 lanes: batches of mixed lengths, around the window in which they are sorted") {
  for (const size_t count : {2, 3, 9, 10, 15, 16, 17, 31, 33, 255, 256, 257, 600}) {
    CAPTURE(count);
    Messages messages;
    while (messages.size() < count) {
      const uint32_t kind = messages.random()() % 16;
      const uint32_t limit = kind == 0 ? 70000 : kind < 4 ? 9000 : 260;
      messages.Add(messages.random()() % limit);
    }
    ForEachKernel([&](Sha256Kernel kernel) { CHECK_EQ(messages.Wrong(kernel), 0); });
  }
}

TEST_CASE("sha256 lanes: one long message among short ones, wherever it stands") {
  for (const size_t at : {0, 7, 15, 16, 39}) {
    CAPTURE(at);
    Messages messages;
    for (size_t i = 0; i < 40; ++i) messages.Add(i == at ? 300001 : 100 + i);
    ForEachKernel([&](Sha256Kernel kernel) { CHECK_EQ(messages.Wrong(kernel), 0); });
  }
}

TEST_CASE("sha256 lanes: nothing to do is done") {
  ForEachKernel([](Sha256Kernel kernel) { Sha256Many({}, kernel); });
  Sha256Many({});
  CHECK(CanRun(Sha256Kernel::kOneByOne));
  CHECK(CanRun(BestSha256Kernel()));
}

}  // namespace
}  // namespace dagstore
