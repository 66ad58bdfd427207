#include "dag/block_getter.h"

namespace dagstore {

absl::StatusOr<BlockData> GetBlock(BlockGetter& getter, const CidView& cid) {
  if (!cid.IsIdentity()) return getter.Get(cid);
  const Span digest = cid.hash.digest;
  if (digest.size() > kIdentityDigestBytesMax) {
    return DataLoss("identity CID with {} bytes inside, at most {}", digest.size(),
                    kIdentityDigestBytesMax);
  }
  return BlockData(Bytes(digest.begin(), digest.end()));
}

std::string CidText(const CidView& cid) { return Cid(cid).ToText(); }

}  // namespace dagstore
