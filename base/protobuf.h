// The protobuf wire format, as far as dag-pb, UnixFS and OTLP need it: fields of a message, one at a time, in place.
// Spec: protobuf.dev/programming-guides/encoding.
#pragma once

#include "base/bytes.h"

namespace dagstore {

enum class WireType : uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kFixed32 = 5,
};

struct ProtoField {
  uint64_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;  // kVarint, kFixed64, kFixed32
  Span bytes = {};     // kBytes
};

// Reads an ordinary protobuf varint (up to 10 bytes, not necessarily minimal) off the front of `rest`. False if it is
// truncated or does not fit 64 bits; `rest` is then unchanged.
inline bool TakeProtoVarint(Span& rest, uint64_t& value) {
  uint64_t result = 0;
  for (size_t i = 0; i < rest.size() && i < 10; ++i) {
    const uint8_t byte = rest[i];
    if (i == 9 && byte > 1) return false;
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      value = result;
      rest = rest.subspan(i + 1);
      return true;
    }
  }
  return false;
}

// Takes one field off the front of `rest`. False if it is malformed; groups and reserved wire types are.
inline bool TakeProtoField(Span& rest, ProtoField& field) {
  uint64_t tag = 0;
  if (!TakeProtoVarint(rest, tag)) return false;
  field = {.number = tag >> 3};
  if (field.number == 0) return false;
  switch (tag & 7) {
    case 0:
      field.type = WireType::kVarint;
      return TakeProtoVarint(rest, field.value);
    case 1:
      field.type = WireType::kFixed64;
      if (rest.size() < 8) return false;
      field.value = Load64(rest.data());
      rest = rest.subspan(8);
      return true;
    case 2: {
      field.type = WireType::kBytes;
      uint64_t size = 0;
      if (!TakeProtoVarint(rest, size) || size > rest.size()) return false;
      field.bytes = rest.first(size);
      rest = rest.subspan(size);
      return true;
    }
    case 5:
      field.type = WireType::kFixed32;
      if (rest.size() < 4) return false;
      field.value = Load32(rest.data());
      rest = rest.subspan(4);
      return true;
    default:
      return false;
  }
}

// Any 64-bit value, at most 10 bytes.
template <typename Out>
void AppendProtoVarint(Out& out, uint64_t value) {
  using Byte = typename Out::value_type;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<Byte>(value | 0x80));
  out.push_back(static_cast<Byte>(value));
}
inline void AppendProtoNumber(Bytes& out, uint64_t number, uint64_t value) {
  AppendProtoVarint(out, number << 3);
  AppendProtoVarint(out, value);
}
inline void AppendProtoBytes(Bytes& out, uint64_t number, Span bytes) {
  AppendProtoVarint(out, number << 3 | 2);
  AppendProtoVarint(out, bytes.size());
  AppendBytes(out, bytes);
}

}  // namespace dagstore
