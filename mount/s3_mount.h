// s3: mounts, for AWS and everything that speaks like it.
//
//   s3://bucket/path/a.car                 at the endpoint named "default"
//   s3://bucket/path/a.car?endpoint=lab    at the endpoint named "lab"
//
// The endpoint's host, region, style and credential are configuration. The validator is the ETag. An object in an
// archive class that has not been restored exists and is not ready.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/http.h"
#include "mount/credentials.h"
#include "mount/registry.h"

namespace dagstore {

struct S3Endpoint {
  // http(s)://host[:port]. Empty: https://s3.<region>.amazonaws.com.
  std::string url = {};
  std::string region = "us-east-1";
  // https://host/bucket/key; else https://bucket.host/key, which AWS prefers.
  bool path_style = false;
  std::string credential = {};  // an id; empty: anonymous
};

struct S3Config {
  std::shared_ptr<HttpClient> client = {};
  std::shared_ptr<const Credentials> credentials = std::make_shared<Credentials>();
  // By name. "default" is there even if it is not here: AWS in us-east-1, anonymous.
  std::map<std::string, S3Endpoint> endpoints = {};
  const Clock* clock = &Clock::Real();  // signatures tell the wall time
};

// InvalidArgument from the factory: no bucket or key, a user, a port, a query other than one endpoint=.
// FailedPrecondition from the mount: the endpoint or its credential is not configured.
MountFactory S3MountFactory(const S3Config& config);

// Lists the objects below s3://bucket/prefix/, page by page.
MountLister S3MountLister(const S3Config& config);

}  // namespace dagstore
