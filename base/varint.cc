#include "base/varint.h"

namespace dagstore {

absl::Status VarintStatus(VarintError error) {
  switch (error) {
    case VarintError::kNone:
      return absl::OkStatus();
    case VarintError::kTruncated:
      return DataLoss("varint is truncated");
    case VarintError::kOverflow:
      return DataLoss("varint is longer than 9 bytes");
    case VarintError::kNotMinimal:
      return DataLoss("varint is not minimal");
  }
  return absl::OkStatus();
}

absl::StatusOr<Varint> ReadVarint(Span bytes) {
  Varint out;
  RETURN_IF_ERROR(VarintStatus(DecodeVarint(bytes, out)));
  return out;
}

}  // namespace dagstore
