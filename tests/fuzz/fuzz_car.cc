// Any bytes as a CAR file. Properties: the three ways of reading, from memory and as a file with a
// small window, agree on every section and on the outcome; every section lies inside the payload,
// holds the bytes of the file, and has the CID that ParseCid finds; position and padding add up.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "shard/car_reader.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

// Memory that hides that it is memory.
class AsFile final : public RandomReader {
 public:
  explicit AsFile(Span bytes) : bytes_(bytes) {}
  uint64_t Size() const override { return bytes_.size(); }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= bytes_.size()) return size_t{0};
    const size_t n = std::min<uint64_t>(size, bytes_.size() - offset);
    std::memcpy(out, bytes_.data() + offset, n);
    return n;
  }

 private:
  const Span bytes_;
};

struct Place {
  uint64_t offset;
  uint32_t head_size;
  uint32_t data_size;
  friend bool operator==(const Place&, const Place&) = default;
};

struct Outcome {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::vector<Place> places = {};
  uint64_t position = 0;
  uint64_t padding = 0;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

enum class Way { kNext, kNextHead, kNextBatch };

Outcome Walk(Span bytes, const RandomReader& source, Way way, const CarOptions& options) {
  Outcome out;
  const auto reader = CarReader::Open(source, options);
  if (!reader.ok()) {
    out.code = reader.status().code();
    return out;
  }
  const CarHeader& header = (*reader)->header();
  DAGSTORE_CHECK(header.payload_offset <= bytes.size());
  const Span payload = bytes.subspan(header.payload_offset).first(header.payload_size);
  uint64_t expected_offset = header.first_section;
  std::vector<CarSection> sections(1);
  for (;;) {
    const auto found = way == Way::kNextBatch  ? (*reader)->NextBatch(sections)
                       : way == Way::kNextHead ? (*reader)->NextHead(sections[0])
                                               : (*reader)->Next(sections[0]);
    if (!found.ok()) out.code = found.status().code();
    if (!found.ok() || !*found) break;
    DAGSTORE_CHECK(!sections.empty());
    for (const CarSection& section : sections) {
      DAGSTORE_CHECK(section.offset == expected_offset);
      DAGSTORE_CHECK(section.size() <= payload.size() - section.offset);
      const Span whole = payload.subspan(section.offset, section.size());
      const Span body = whole.subspan(section.head_size - section.cid.bytes.size());
      const auto cid = ParseCid(body);
      DAGSTORE_CHECK(cid.ok() && SameBytes(cid->bytes, section.cid.bytes) &&
                     cid->version == section.cid.version);
      DAGSTORE_CHECK(cid->codec == section.cid.codec && cid->hash == section.cid.hash);
      if (way == Way::kNextHead) {
        DAGSTORE_CHECK(section.data.empty());
      } else {
        DAGSTORE_CHECK(SameBytes(section.data, whole.subspan(section.head_size)));
      }
      out.places.push_back({section.offset, section.head_size, section.data_size});
      expected_offset += section.size();
    }
  }
  out.position = (*reader)->position();
  out.padding = (*reader)->padding();
  DAGSTORE_CHECK(out.position == expected_offset);
  if (out.code == absl::StatusCode::kOk)
    DAGSTORE_CHECK(out.position + out.padding == header.payload_size);
  return out;
}

}  // namespace

void FuzzOne(Span input) {
  const auto memory = NewMemoryReader(input);
  const AsFile file(input);
  for (const bool lenient : {true, false}) {
    const CarOptions options = {.section_bytes_max = 4096,
                                .zero_length_as_end = lenient,
                                .strict_header = !lenient,
                                .window_bytes = 200};
    const Outcome first = Walk(input, *memory, Way::kNext, options);
    for (const Way way : {Way::kNext, Way::kNextHead, Way::kNextBatch}) {
      DAGSTORE_CHECK(Walk(input, *memory, way, options) == first);
      DAGSTORE_CHECK(Walk(input, file, way, options) == first);
    }
  }
}

}  // namespace dagstore
