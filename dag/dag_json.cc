#include "dag/dag_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/cbor.h"
#include "base/check.h"
#include "base/text.h"
#include "base/utf8.h"
#include "dag/dag_pb.h"

namespace dagstore {
namespace {

constexpr uint64_t kCidTag = 42;

void AppendUtf8(std::string& out, uint32_t rune) {
  if (rune < 0x80) {
    out += static_cast<char>(rune);
  } else if (rune < 0x800) {
    out += static_cast<char>(0xc0 | rune >> 6);
    out += static_cast<char>(0x80 | (rune & 0x3f));
  } else if (rune < 0x10000) {
    out += static_cast<char>(0xe0 | rune >> 12);
    out += static_cast<char>(0x80 | (rune >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (rune & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | rune >> 18);
    out += static_cast<char>(0x80 | (rune >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (rune >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (rune & 0x3f));
  }
}

// Stands for itself in a string.
bool IsPlain(uint8_t c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

}  // namespace

absl::Status DagJsonReader::Error(std::string_view what) const {
  return DataLoss("dag-json: {} at byte {}", what, offset_);
}

void DagJsonReader::SkipSpace() {
  while (offset_ < json_.size() && (json_[offset_] == ' ' || json_[offset_] == '\t' ||
                                    json_[offset_] == '\n' || json_[offset_] == '\r')) {
    ++offset_;
  }
}

// Skips white space and takes `c` if it comes next.
bool DagJsonReader::TakeChar(char c) {
  SkipSpace();
  if (offset_ >= json_.size() || json_[offset_] != static_cast<uint8_t>(c)) return false;
  ++offset_;
  return true;
}

bool DagJsonReader::InMap() const {
  return depth_ > 0 && (maps_[(depth_ - 1) / 64] >> ((depth_ - 1) % 64) & 1) != 0;
}

absl::Status DagJsonReader::Open(bool map) {
  if (depth_ == kJsonDepthMax) return Error("nested too deep");
  const uint64_t bit = uint64_t{1} << (depth_ % 64);
  maps_[depth_ / 64] = map ? maps_[depth_ / 64] | bit : maps_[depth_ / 64] & ~bit;
  ++depth_;
  expect_ = Expect::kFirstOrEnd;
  return absl::OkStatus();
}

void DagJsonReader::Close() {
  --depth_;
  expect_ = depth_ == 0 ? Expect::kEnd : Expect::kCommaOrEnd;
}

absl::StatusOr<uint32_t> DagJsonReader::ReadHex4() {
  if (json_.size() - offset_ < 4) return Error("truncated \\u");
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const uint8_t c = json_[offset_];
    const int digit = IsDigit(c)               ? c - '0'
                      : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                      : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                               : -1;
    if (digit < 0) return Error("bad digit in \\u");
    value = value << 4 | static_cast<uint32_t>(digit);
    ++offset_;
  }
  return value;
}

// After the backslash.
absl::Status DagJsonReader::ReadEscape(std::string& out) {
  if (offset_ >= json_.size()) return Error("truncated string");
  switch (const uint8_t c = json_[offset_++]) {
    case '"':
    case '\\':
    case '/':
      out += static_cast<char>(c);
      return absl::OkStatus();
    case 'b': out += '\b'; return absl::OkStatus();
    case 'f': out += '\f'; return absl::OkStatus();
    case 'n': out += '\n'; return absl::OkStatus();
    case 'r': out += '\r'; return absl::OkStatus();
    case 't': out += '\t'; return absl::OkStatus();
    case 'u': break;
    default: return Error("unknown escape");
  }
  ASSIGN_OR_RETURN(uint32_t rune, ReadHex4());
  if (rune >= 0xdc00 && rune <= 0xdfff) return Error("lone surrogate");
  if (rune >= 0xd800 && rune <= 0xdbff) {
    if (json_.size() - offset_ < 2 || json_[offset_] != '\\' || json_[offset_ + 1] != 'u') {
      return Error("lone surrogate");
    }
    offset_ += 2;
    ASSIGN_OR_RETURN(const uint32_t low, ReadHex4());
    if (low < 0xdc00 || low > 0xdfff) return Error("lone surrogate");
    rune = 0x10000 + ((rune - 0xd800) << 10) + (low - 0xdc00);
  }
  AppendUtf8(out, rune);
  return absl::OkStatus();
}

// After the opening quote.
absl::Status DagJsonReader::ReadString(std::string& out) {
  out.clear();
  while (offset_ < json_.size()) {
    const uint8_t c = json_[offset_];
    if (c == '"') {
      ++offset_;
      return absl::OkStatus();
    }
    if (c == '\\') {
      ++offset_;
      RETURN_IF_ERROR(ReadEscape(out));
      continue;
    }
    if (c < 0x20) return Error("control character in a string");
    const size_t start = offset_;
    while (offset_ < json_.size() && IsPlain(json_[offset_])) ++offset_;
    if (offset_ == start) offset_ += Utf8Length(json_.subspan(offset_));
    if (offset_ == start) return Error("string is not UTF-8");
    out.append(AsText(json_.subspan(start, offset_ - start)));
  }
  return Error("truncated string");
}

absl::Status DagJsonReader::ReadNumber(JsonEvent& event) {
  const size_t start = offset_;
  const auto digits = [&] {
    const size_t first = offset_;
    while (offset_ < json_.size() && IsDigit(json_[offset_])) ++offset_;
    return offset_ > first;
  };
  const auto take = [&](char c) {
    const bool there = offset_ < json_.size() && json_[offset_] == static_cast<uint8_t>(c);
    offset_ += there ? 1 : 0;
    return there;
  };
  take('-');
  if (!take('0') && !digits()) return Error("unexpected character");
  if (take('.') && !digits()) return Error("no digit after the point");
  if (take('e') || take('E')) {
    if (!take('+')) take('-');
    if (!digits()) return Error("no digit in the exponent");
  }
  if (offset_ < json_.size() && IsDigit(json_[offset_])) return Error("leading zero");
  event.kind = JsonKind::kNumber;
  event.text = AsText(json_.subspan(start, offset_ - start));
  return absl::OkStatus();
}

absl::Status DagJsonReader::ReadWord(std::string_view word) {
  if (!StartsWith(json_.subspan(offset_), AsSpan(word))) return Error("unexpected character");
  offset_ += word.size();
  return absl::OkStatus();
}

absl::StatusOr<bool> DagJsonReader::TakeReserved(JsonEvent& event) {
  const size_t start = offset_;
  const auto ordinary = [&] {
    offset_ = start;
    return false;
  };
  // Takes `"key" :` if the map that opens here begins with that key.
  const auto first_key = [&](std::string_view key) -> absl::StatusOr<bool> {
    if (!TakeChar('{') || !TakeChar('"')) return false;
    RETURN_IF_ERROR(ReadString(text_));
    return text_ == key && TakeChar(':');
  };
  ASSIGN_OR_RETURN(const bool slash, first_key("/"));
  if (!slash) return ordinary();
  if (TakeChar('"')) {
    RETURN_IF_ERROR(ReadString(text_));
    if (!TakeChar('}')) return Error("a link is not alone in its map");
    // Cid::FromText also reads URLs; a link is nothing but the CID.
    if (text_.starts_with('/') || text_.starts_with("ipfs:")) return Error("link is not a CID");
    absl::StatusOr<Cid> cid = Cid::FromText(text_);
    if (!cid.ok()) return Error(Message(cid.status()));
    cid_ = *std::move(cid);
    event.kind = JsonKind::kLink;
    event.cid = cid_.view();
    return true;
  }
  ASSIGN_OR_RETURN(const bool bytes, first_key("bytes"));
  if (!bytes || !TakeChar('"')) return ordinary();
  RETURN_IF_ERROR(ReadString(text_));
  if (!TakeChar('}') || !TakeChar('}')) return Error("bytes are not alone in their map");
  const absl::StatusOr<Bytes> decoded = DecodeBase(Base::kBase64, text_);
  if (!decoded.ok()) return Error(Message(decoded.status()));
  text_.assign(AsText(*decoded));
  event.kind = JsonKind::kBytes;
  event.text = text_;
  return true;
}

// At the first character of a value.
absl::StatusOr<JsonEvent> DagJsonReader::ReadValue() {
  JsonEvent event;
  event.offset = offset_;
  if (offset_ >= json_.size()) return Error("the value is missing");
  const uint8_t c = json_[offset_];
  if (c == '{') {
    ASSIGN_OR_RETURN(const bool reserved, TakeReserved(event));
    if (!reserved) {
      ++offset_;
      event.kind = JsonKind::kMapBegin;
      RETURN_IF_ERROR(Open(true));
      return event;
    }
  } else if (c == '[') {
    ++offset_;
    event.kind = JsonKind::kListBegin;
    RETURN_IF_ERROR(Open(false));
    return event;
  } else if (c == '"') {
    ++offset_;
    RETURN_IF_ERROR(ReadString(text_));
    event.kind = JsonKind::kString;
    event.text = text_;
  } else if (c == 't' || c == 'f') {
    RETURN_IF_ERROR(ReadWord(c == 't' ? "true" : "false"));
    event.kind = JsonKind::kBool;
    event.value = c == 't';
  } else if (c == 'n') {
    RETURN_IF_ERROR(ReadWord("null"));
    event.kind = JsonKind::kNull;
  } else {
    RETURN_IF_ERROR(ReadNumber(event));
  }
  expect_ = depth_ == 0 ? Expect::kEnd : Expect::kCommaOrEnd;
  return event;
}

absl::StatusOr<JsonEvent> DagJsonReader::ReadKey() {
  JsonEvent event;
  event.kind = JsonKind::kKey;
  event.offset = offset_;
  if (!TakeChar('"')) return Error("a key is missing");
  RETURN_IF_ERROR(ReadString(text_));
  if (!TakeChar(':')) return Error("no colon after a key");
  event.text = text_;
  expect_ = Expect::kValue;
  return event;
}

absl::StatusOr<JsonEvent> DagJsonReader::Next() {
  SkipSpace();
  JsonEvent event;
  event.offset = offset_;
  switch (expect_) {
    case Expect::kEnd:
      if (offset_ < json_.size()) return Error("something follows the value");
      return event;
    case Expect::kValue:
      return ReadValue();
    case Expect::kFirstOrEnd:
    case Expect::kCommaOrEnd:
      break;
  }
  const bool map = InMap();
  if (TakeChar(map ? '}' : ']')) {
    event.kind = map ? JsonKind::kMapEnd : JsonKind::kListEnd;
    Close();
    return event;
  }
  if (expect_ == Expect::kCommaOrEnd && !TakeChar(',')) return Error("no comma between entries");
  SkipSpace();
  return map ? ReadKey() : ReadValue();
}

absl::Status DagJsonReader::Skip() {
  const int depth = depth_;
  do {
    if (const auto event = Next(); !event.ok()) return event.status();
  } while (depth_ > depth);
  return absl::OkStatus();
}

absl::Status ForEachDagJsonLink(Span block, LinkVisitor visit) {
  DagJsonReader reader(block);
  for (;;) {
    ASSIGN_OR_RETURN(const JsonEvent event, reader.Next());
    if (event.kind == JsonKind::kEnd) return absl::OkStatus();
    if (event.kind == JsonKind::kLink && !visit(event.cid)) return absl::OkStatus();
  }
}

absl::StatusOr<std::optional<Cid>> DagJsonAsLink(Span node) {
  DagJsonReader reader(node);
  ASSIGN_OR_RETURN(const JsonEvent event, reader.Next());
  if (event.kind != JsonKind::kLink) return std::optional<Cid>();
  return std::optional<Cid>(Cid(event.cid));
}

absl::StatusOr<NodeLookup> LookupDagJson(Span node, std::string_view segment) {
  DagJsonReader reader(node);
  const auto take_value = [&](const JsonEvent& head) -> absl::StatusOr<NodeLookup> {
    NodeLookup found;
    if (head.kind == JsonKind::kLink) found.link = Cid(head.cid);
    const size_t start = head.offset;
    const bool open = head.kind == JsonKind::kMapBegin || head.kind == JsonKind::kListBegin;
    for (const int depth = reader.depth(); open && reader.depth() >= depth;) {
      if (const auto event = reader.Next(); !event.ok()) return event.status();
    }
    found.value = node.subspan(start, reader.offset() - start);
    return found;
  };
  ASSIGN_OR_RETURN(const JsonEvent head, reader.Next());
  if (head.kind == JsonKind::kMapBegin) {
    for (;;) {
      ASSIGN_OR_RETURN(const JsonEvent key, reader.Next());
      if (key.kind == JsonKind::kMapEnd) return NotFound("no key \"{}\"", segment);
      if (key.text == segment) {
        ASSIGN_OR_RETURN(const JsonEvent value, reader.Next());
        return take_value(value);
      }
      RETURN_IF_ERROR(reader.Skip());
    }
  }
  if (head.kind == JsonKind::kListBegin) {
    const std::optional<uint64_t> index = ParseListIndex(segment);
    for (uint64_t i = 0;; ++i) {
      ASSIGN_OR_RETURN(const JsonEvent value, reader.Next());
      if (value.kind == JsonKind::kListEnd) return NotFound("no entry \"{}\" in a list of {}", segment, i);
      ASSIGN_OR_RETURN(NodeLookup found, take_value(value));
      if (index && i == *index) return found;
    }
  }
  return NotFound("no \"{}\" below a value without entries", segment);
}

namespace {

// Writes canonical dag-json. Maps may be given in any key order: each is put right when it ends.
class JsonWriter {
 public:
  explicit JsonWriter(size_t size_max) : size_max_(size_max) {}

  // Calls come in the order of the document; commas are put here.
  void BeginMap() { Begin('{', true); }
  void BeginList() { Begin('[', false); }
  void Key(Span key) {
    Open& map = open_.back();
    if (map.entries > 0) out_ += ',';
    keys_.push_back({key, out_.size(), 0});
    Quote(key);
    out_ += ':';
    ++map.entries;
    after_key_ = true;
  }
  void EndMap() {
    SortEntries();
    out_ += '}';
    open_.pop_back();
  }
  void EndList() {
    out_ += ']';
    open_.pop_back();
  }
  void Text(Span text) {
    BeginValue();
    Quote(text);
  }
  void Raw(std::string_view json) {
    BeginValue();
    out_ += json;
  }
  void Link(const CidView& cid) {
    BeginValue();
    out_ += "{\"/\":\"" + Cid(cid).ToText() + "\"}";
  }
  void Binary(Span bytes) {
    BeginValue();
    out_ += "{\"/\":{\"bytes\":\"" + EncodeBase(Base::kBase64, bytes) + "\"}}";
  }

  absl::Status CheckSize() const {
    if (out_.size() > size_max_) return ResourceExhausted("dag-json of more than {} bytes", size_max_);
    return absl::OkStatus();
  }
  std::string Take() { return std::move(out_); }

 private:
  struct Open {
    bool map = false;
    size_t entries = 0;
    size_t start = 0;      // in out_, after the bracket
    size_t first_key = 0;  // in keys_
  };
  struct Entry {
    Span key = {};
    size_t begin = 0;  // in out_, of the quoted key
    size_t end = 0;
  };

  void BeginValue() {
    if (!after_key_ && !open_.empty() && !open_.back().map && open_.back().entries++ > 0) out_ += ',';
    after_key_ = false;
  }
  void Begin(char bracket, bool map) {
    BeginValue();
    out_ += bracket;
    open_.push_back({map, 0, out_.size(), keys_.size()});
  }
  // Every level moves its own bytes at most once more, so the work is at most output * kCborDepthMax.
  void SortEntries() {
    const Open& map = open_.back();
    const auto first = keys_.begin() + static_cast<ptrdiff_t>(map.first_key);
    const auto less = [](const Entry& a, const Entry& b) { return CompareBytes(a.key, b.key) < 0; };
    for (auto at = first; at != keys_.end(); ++at) {
      at->end = at + 1 != keys_.end() ? (at + 1)->begin - 1 : out_.size();
    }
    if (!std::is_sorted(first, keys_.end(), less)) {
      std::stable_sort(first, keys_.end(), less);
      std::string sorted;
      sorted.reserve(out_.size() - map.start);
      for (auto at = first; at != keys_.end(); ++at) {
        if (at != first) sorted += ',';
        sorted.append(out_, at->begin, at->end - at->begin);
      }
      out_.replace(map.start, std::string::npos, sorted);
    }
    keys_.erase(first, keys_.end());
  }
  void Quote(Span text) {
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const uint8_t c = text[i];
      const size_t length = Utf8Length(text.subspan(i));
      if (length == 0) {
        out_ += "\xef\xbf\xbd";
      } else if (c == '"' || c == '\\') {
        out_ += '\\';
        out_ += static_cast<char>(c);
      } else if (c < 0x20) {
        constexpr std::string_view kShort = "btn.fr";  // 0x08..0x0d; 0x0b has no short form
        if (c >= 0x08 && c <= 0x0d && c != 0x0b) {
          out_ += '\\';
          out_ += kShort[c - 0x08];
        } else {
          out_ += fmt::format("\\u{:04x}", c);
        }
      } else {
        out_.append(AsText(text.subspan(i, length)));
      }
      i += std::max<size_t>(length, 1);
    }
    out_ += '"';
  }

  const size_t size_max_;
  std::string out_;
  std::vector<Open> open_;
  std::vector<Entry> keys_;  // of all open maps, outer first
  bool after_key_ = false;
};

// The shortest digits that read back as the same number, written as JavaScript and Go do, always a float.
std::string FloatText(double number) {
  const double size = std::fabs(number);
  char buffer[64];
  const bool plain = number == 0 || (size >= 1e-6 && size < 1e21);
  const auto result = std::to_chars(std::begin(buffer), std::end(buffer), number,
                                    plain ? std::chars_format::fixed : std::chars_format::scientific);
  DAGSTORE_CHECK(result.ec == std::errc());
  std::string text(buffer, result.ptr);
  if (plain) return text.find('.') == std::string::npos ? text + ".0" : text;
  // "1e-07" is written "1e-7".
  const size_t exponent = text.find('e') + 2;
  if (text[exponent] == '0') text.erase(exponent, 1);
  return text;
}

std::string NegativeText(uint64_t value) {
  if (value == UINT64_MAX) return "-18446744073709551616";
  return fmt::format("-{}", value + 1);
}

absl::StatusOr<std::string> DagPbToJson(Span block, size_t size_max) {
  ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(block));
  JsonWriter out(size_max);
  out.BeginMap();
  if (node.data()) {
    out.Key(AsSpan("Data"));
    out.Binary(*node.data());
  }
  out.Key(AsSpan("Links"));
  out.BeginList();
  PbLink link;
  for (PbNode::Cursor at(node); at.Next(link);) {
    out.BeginMap();
    out.Key(AsSpan("Hash"));
    out.Link(link.cid);
    if (link.name) {
      out.Key(AsSpan("Name"));
      out.Text(*link.name);
    }
    if (link.tsize) {
      out.Key(AsSpan("Tsize"));
      out.Raw(fmt::format("{}", *link.tsize));
    }
    out.EndMap();
    RETURN_IF_ERROR(out.CheckSize());
  }
  out.EndList();
  out.EndMap();
  RETURN_IF_ERROR(out.CheckSize());
  return out.Take();
}

absl::StatusOr<std::string> DagCborToJson(Span block, size_t size_max) {
  // Links and the end are checked first, so that the loop below only renders.
  RETURN_IF_ERROR(ForEachDagCborLink(block, [](const CidView&) { return true; }));
  struct Open {
    bool map = false;
    uint64_t items_left = 0;
    std::string_view key = {};  // the last one
  };
  JsonWriter out(size_max);
  std::vector<Open> open;
  CborReader reader(block);
  const auto key_at = [&](size_t up) {
    return open.size() > up ? open[open.size() - 1 - up].key : std::string_view();
  };
  do {
    ASSIGN_OR_RETURN(const CborItem item, reader.Next());
    const bool key = !open.empty() && open.back().map && open.back().items_left % 2 == 0;
    if (!open.empty()) --open.back().items_left;
    if (key) {
      if (item.kind != CborKind::kText) return DataLoss("dag-json cannot hold a map key that is not text");
      out.Key(item.bytes);
      open.back().key = AsText(item.bytes);
      continue;
    }
    if (item.kind == CborKind::kText &&
        (key_at(0) == "/" || (key_at(0) == "bytes" && key_at(1) == "/"))) {
      return DataLoss("dag-json cannot hold a text where a link or bytes would be read");
    }
    switch (item.kind) {
      case CborKind::kUnsigned:
        out.Raw(fmt::format("{}", item.value));
        break;
      case CborKind::kNegative:
        out.Raw(NegativeText(item.value));
        break;
      case CborKind::kBytes:
        out.Binary(item.bytes);
        break;
      case CborKind::kText:
        out.Text(item.bytes);
        break;
      case CborKind::kArray:
        out.BeginList();
        open.push_back({false, item.value});
        break;
      case CborKind::kMap:
        out.BeginMap();
        open.push_back({true, item.value * 2});
        break;
      case CborKind::kTag: {
        if (item.value != kCidTag) return DataLoss("dag-json cannot hold CBOR tag {}", item.value);
        ASSIGN_OR_RETURN(const CborItem link, reader.Next());
        ASSIGN_OR_RETURN(const CidView cid, ParseCid(link.bytes.subspan(1)));
        out.Link(cid);
        break;
      }
      case CborKind::kBool:
        out.Raw(item.value != 0 ? "true" : "false");
        break;
      case CborKind::kNull:
      case CborKind::kUndefined:
        out.Raw("null");
        break;
      case CborKind::kFloat:
        if (!std::isfinite(item.number)) return DataLoss("dag-json cannot hold {}", item.number);
        out.Raw(FloatText(item.number));
        break;
    }
    RETURN_IF_ERROR(out.CheckSize());
    while (!open.empty() && open.back().items_left == 0) {
      if (open.back().map) {
        out.EndMap();
      } else {
        out.EndList();
      }
      open.pop_back();
    }
  } while (!open.empty());
  RETURN_IF_ERROR(out.CheckSize());
  return out.Take();
}

}  // namespace

absl::StatusOr<std::string> ToDagJson(uint64_t codec, Span block, size_t size_max) {
  switch (codec) {
    case kCodecDagPb:
      return DagPbToJson(block, size_max);
    case kCodecDagCbor:
      return DagCborToJson(block, size_max);
    case kCodecDagJson:
      if (block.size() > size_max) return ResourceExhausted("dag-json of more than {} bytes", size_max);
      RETURN_IF_ERROR(ForEachDagJsonLink(block, [](const CidView&) { return true; }));
      return std::string(AsText(block));
    default:
      return Unimplemented("no dag-json form of codec {}", CodecName(codec));
  }
}

namespace {

// What DagPbFromDagJson gathers before it can encode: the views of PbLink must not move.
struct JsonLink {
  Cid cid;
  std::optional<std::string> name;
  std::optional<uint64_t> tsize;
};

absl::Status BadForm(std::string_view what) { return InvalidArgument("not a dag-pb node: {}", what); }

// After the kMapBegin of a link.
absl::StatusOr<JsonLink> ReadJsonLink(DagJsonReader& reader) {
  JsonLink link;
  for (;;) {
    ASSIGN_OR_RETURN(const JsonEvent key, reader.Next());
    if (key.kind == JsonKind::kMapEnd) break;
    const std::string field(key.text);
    ASSIGN_OR_RETURN(const JsonEvent value, reader.Next());
    if (field == "Hash") {
      if (value.kind != JsonKind::kLink) return BadForm("Hash must be a link");
      link.cid = Cid(value.cid);
    } else if (field == "Name") {
      if (value.kind != JsonKind::kString) return BadForm("Name must be a string");
      link.name = std::string(value.text);
    } else if (field == "Tsize") {
      if (value.kind != JsonKind::kNumber) return BadForm("Tsize must be an integer");
      uint64_t tsize = 0;
      const char* end = value.text.data() + value.text.size();
      const auto read = std::from_chars(value.text.data(), end, tsize);
      if (read.ec != std::errc() || read.ptr != end) {
        return BadForm("Tsize must be an integer of 64 bits that is not negative");
      }
      link.tsize = tsize;
    } else {
      return BadForm("a link has extraneous fields");
    }
  }
  if (link.cid.empty()) return BadForm("a link has no Hash");
  return link;
}

}  // namespace

absl::StatusOr<Bytes> DagPbFromDagJson(Span json) {
  DagJsonReader reader(json);
  std::optional<std::string> data;
  std::optional<std::vector<JsonLink>> links;
  ASSIGN_OR_RETURN(const JsonEvent head, reader.Next());
  if (head.kind != JsonKind::kMapBegin) return BadForm("it must be a map");
  for (;;) {
    ASSIGN_OR_RETURN(const JsonEvent key, reader.Next());
    if (key.kind == JsonKind::kMapEnd) break;
    const std::string field(key.text);
    ASSIGN_OR_RETURN(const JsonEvent value, reader.Next());
    if (field == "Data") {
      if (value.kind != JsonKind::kBytes) return BadForm("Data must be bytes");
      data = std::string(value.text);
    } else if (field == "Links") {
      if (value.kind != JsonKind::kListBegin) return BadForm("Links must be a list");
      links.emplace();
      for (;;) {
        ASSIGN_OR_RETURN(const JsonEvent item, reader.Next());
        if (item.kind == JsonKind::kListEnd) break;
        if (item.kind != JsonKind::kMapBegin) return BadForm("a link must be a map");
        ASSIGN_OR_RETURN(JsonLink link, ReadJsonLink(reader));
        if (!links->empty() && links->back().name.value_or("") > link.name.value_or("")) {
          return BadForm("links must be sorted by name");
        }
        links->push_back(std::move(link));
      }
    } else {
      return BadForm("extraneous fields");
    }
  }
  ASSIGN_OR_RETURN(const JsonEvent end, reader.Next());
  DAGSTORE_CHECK(end.kind == JsonKind::kEnd);
  if (!links) return BadForm("Links must be a list");
  std::vector<PbLink> views;
  views.reserve(links->size());
  for (const JsonLink& link : *links) {
    PbLink& view = views.emplace_back();
    view.cid = link.cid.view();
    if (link.name) view.name = AsSpan(*link.name);
    view.tsize = link.tsize;
  }
  return EncodeDagPb(views, data ? std::optional<Span>(AsSpan(*data)) : std::nullopt);
}

}  // namespace dagstore
