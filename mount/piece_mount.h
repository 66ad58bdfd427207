// piece: mounts: Filecoin pieces by their CID, from servers that speak FRC-0066 (GET <endpoint>/piece/<CID>).
//
//   piece:baga6ea4seaq...      a piece CID, version 1 (fil-commitment-unsealed) or 2 (raw with fr32-sha256-trunc254)
//
// Which servers are asked, in which order, and with which token, is configuration; the next is asked when one does not
// serve. A piece never changes, so its validator is its size alone. Pieces are padded with zeros behind the CAR: a
// section of length zero ends its payload (CarOptions::zero_length_as_end).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/http.h"
#include "mount/credentials.h"
#include "mount/registry.h"

namespace dagstore {

struct PieceEndpoint {
  std::string url = {};         // http(s)://host[:port][/path]
  std::string credential = {};  // an id; empty: none
};

// InvalidArgument from the factory: what is no piece CID. FailedPrecondition from the mount: no endpoints.
MountFactory PieceMountFactory(std::shared_ptr<HttpClient> client, std::shared_ptr<const Credentials> credentials,
                               const std::vector<PieceEndpoint>& endpoints);

}  // namespace dagstore
