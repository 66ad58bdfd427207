// AWS Signature Version 4 for S3: the header form, with a body that is empty or small.
//
// Ours, because libcurl 7.88 signs paths and queries without the encoding and order that S3 demands (mended later).
// Spec: docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Pure.
#pragma once

#include <absl/time/time.h>

#include <string>

#include "base/http.h"

namespace dagstore {

struct SigV4Key {
  std::string access_key_id = {};
  Secret secret_access_key = {};
  Secret session_token = {};  // may be empty
  std::string region = {};
  std::string service = "s3";
};

// Adds X-Amz-Date, X-Amz-Content-Sha256 (S3 only), X-Amz-Security-Token and Authorization as private headers. Signs
// what is in request.headers then, and the host: nothing may be added afterwards. The target's path and query must be
// in their final encoding (all but unreserved characters and '/' escaped, once).
void SignV4(HttpRequest* request, const SigV4Key& key, absl::Time now);

// The parts, for tests against published vectors.
std::string SigV4CanonicalRequest(const HttpRequest& request, const std::string& payload_sha256,
                                  std::string* signed_headers);

// The encoding of keys and query values: all but A-Z a-z 0-9 - . _ ~ escaped; '/' too, unless it is to be kept.
std::string AwsEncode(std::string_view text, bool keep_slash);

}  // namespace dagstore
