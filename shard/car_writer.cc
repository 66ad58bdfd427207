#include "shard/car_writer.h"

#include <string_view>

#include "base/check.h"
#include "shard/car_reader.h"

namespace dagstore {
namespace {

// The head of a CBOR item, in its shortest form.
void AppendCborHead(Bytes& out, uint8_t major, uint64_t value) {
  const uint8_t top = static_cast<uint8_t>(major << 5);
  const int size = value < 24            ? 0
                   : value <= 0xff       ? 1
                   : value <= 0xffff     ? 2
                   : value <= 0xffffffff ? 4
                                         : 8;
  const uint8_t info = size == 0   ? static_cast<uint8_t>(value)
                       : size == 1 ? 24
                       : size == 2 ? 25
                       : size == 4 ? 26
                                   : 27;
  out.push_back(top | info);
  for (int i = size - 1; i >= 0; --i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

void AppendCborText(Bytes& out, std::string_view text) {
  AppendCborHead(out, 3, text.size());
  AppendBytes(out, AsSpan(text));
}

}  // namespace

Bytes EncodeCarHeader(const std::vector<Cid>& roots) {
  Bytes map;
  AppendCborHead(map, 5, 2);
  AppendCborText(map, "roots");
  AppendCborHead(map, 4, roots.size());
  for (const Cid& root : roots) {
    DAGSTORE_CHECK(!root.empty());
    AppendCborHead(map, 6, 42);
    AppendCborHead(map, 2, root.bytes().size() + 1);
    map.push_back(0);
    AppendBytes(map, root.bytes());
  }
  AppendCborText(map, "version");
  AppendCborHead(map, 0, 1);

  Bytes out;
  out.reserve(map.size() + kVarintBytesMax);
  AppendVarint(out, map.size());
  AppendBytes(out, map);
  return out;
}

Bytes EncodeSectionHead(Span cid, uint64_t data_size) {
  Bytes out;
  out.reserve(kVarintBytesMax + cid.size());
  AppendVarint(out, cid.size() + data_size);
  AppendBytes(out, cid);
  return out;
}

Bytes EncodeCarV2Header(const CarV2Layout& layout) {
  Bytes out;
  out.reserve(kCarV2HeaderBytes);
  AppendBytes(out, kCarV2Pragma);
  Append64(out, layout.fully_indexed ? 0x80 : 0);  // characteristics: the first bit of 128
  Append64(out, 0);
  Append64(out, layout.data_offset);
  Append64(out, layout.data_size);
  Append64(out, layout.index_offset);
  return out;
}

absl::StatusOr<CarWriter> CarWriter::Start(ByteSink sink, const std::vector<Cid>& roots) {
  CarWriter writer(std::move(sink));
  RETURN_IF_ERROR(writer.Write(EncodeCarHeader(roots)));
  return writer;
}

absl::Status CarWriter::Put(Span cid, Span data) {
  DAGSTORE_CHECK(!cid.empty());
  RETURN_IF_ERROR(Write(EncodeSectionHead(cid, data.size())));
  return data.empty() ? absl::OkStatus() : Write(data);
}

absl::Status CarWriter::Write(Span bytes) {
  RETURN_IF_ERROR(sink_(bytes));
  written_ += bytes.size();
  return absl::OkStatus();
}

}  // namespace dagstore
