// dag-json: a streaming reader, links, the value at a key or index, and rendering of dag-pb and dag-cbor blocks.
// Spec: ipld.io/specs/codecs/dag-json, RFC 8259; docs/format.md#dag-json.
//
// Threads: values over bytes that belong to someone else; a reader belongs to one thread.
// Limits: kJsonDepthMax open lists and maps. Memory: one decoded string.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "dag/dag_cbor.h"
#include "dag/links.h"

namespace dagstore {

inline constexpr int kJsonDepthMax = 1024;  // as go-ipld-prime; the reader keeps one bit each

enum class JsonKind : uint8_t {
  kMapBegin,
  kMapEnd,
  kListBegin,
  kListEnd,
  kKey,     // text; the value follows
  kString,  // text
  kNumber,  // text: as written
  kBool,    // value
  kNull,
  kLink,   // cid: the reserved form {"/": "..."}
  kBytes,  // text: the decoded bytes of the reserved form {"/": {"bytes": "..."}}
  kEnd,    // the one value is complete and nothing but white space followed
};

struct JsonEvent {
  JsonKind kind = JsonKind::kEnd;
  std::string_view text = {};  // valid until the next call
  bool value = false;
  CidView cid = {};            // valid until the next call
  size_t offset = 0;           // of the first byte of the event
};

// Reads one JSON value, event by event, without recursion. Strict JSON: UTF-8, no control characters in strings, no
// lone surrogates. A map whose first key is "/" with a string, or with a map whose first key is "bytes" with a
// string, must be a reserved form exactly; any other map is ordinary.
class DagJsonReader {
 public:
  explicit DagJsonReader(Span json) : json_(json) {}

  // After an error or kEnd the reader is of no more use.
  absl::StatusOr<JsonEvent> Next();
  // Reads one whole value (with all it contains); not at a key or an end.
  absl::Status Skip();
  size_t offset() const { return offset_; }
  int depth() const { return depth_; }

 private:
  enum class Expect : uint8_t { kValue, kFirstOrEnd, kCommaOrEnd, kEnd };

  absl::Status Error(std::string_view what) const;
  void SkipSpace();
  bool TakeChar(char c);
  bool InMap() const;
  absl::Status Open(bool map);
  void Close();
  absl::StatusOr<JsonEvent> ReadKey();
  absl::StatusOr<JsonEvent> ReadValue();
  // At '{': reads a reserved form whole, or leaves the position alone and returns false.
  absl::StatusOr<bool> TakeReserved(JsonEvent& event);
  absl::Status ReadString(std::string& out);
  absl::Status ReadEscape(std::string& out);
  absl::StatusOr<uint32_t> ReadHex4();
  absl::Status ReadNumber(JsonEvent& event);
  absl::Status ReadWord(std::string_view word);

  const Span json_;
  size_t offset_ = 0;
  int depth_ = 0;
  Expect expect_ = Expect::kValue;
  uint64_t maps_[kJsonDepthMax / 64] = {};  // bit d: the container at depth d is a map
  std::string text_;                        // the last string, decoded
  Cid cid_;                                 // the last link
};

// Every link, in encoded order.
absl::Status ForEachDagJsonLink(Span block, LinkVisitor visit);

// As LookupDagCbor and DagCborAsLink.
absl::StatusOr<NodeLookup> LookupDagJson(Span node, std::string_view segment);
absl::StatusOr<std::optional<Cid>> DagJsonAsLink(Span node);

// A dag-pb or dag-cbor block as canonical dag-json: no white space, keys sorted by their bytes. Bytes of a text that
// are not UTF-8 become U+FFFD, because JSON cannot hold them. DataLoss for what dag-json has no form for: NaN,
// infinities, tags but 42, map keys that are not text, a text at key "/" (it would read as a link). Unimplemented for
// other codecs; a dag-json block is returned as it is once it has been checked. ResourceExhausted above `size_max`
// bytes.
absl::StatusOr<std::string> ToDagJson(uint64_t codec, Span block, size_t size_max = 64 << 20);

// The dag-pb block of a dag-json document of the form {"Data": bytes, "Links": [{"Hash": link, "Name": string, "Tsize":
// int}...]}. InvalidArgument for any other form, and for links that are not sorted by name.
absl::StatusOr<Bytes> DagPbFromDagJson(Span json);

}  // namespace dagstore
