#include "shard/key.h"

#include <set>

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("shard key: any bytes up to the limit, none and one more are refused") {
  CHECK_CODE(ShardKey("").Check(), kInvalidArgument);
  CHECK_STATUS_OK(ShardKey(std::string(1, '\0')).Check());
  CHECK_STATUS_OK(ShardKey(std::string(kShardKeyBytesMax, '\xff')).Check());
  CHECK_CODE(ShardKey(std::string(kShardKeyBytesMax + 1, 'a')).Check(), kInvalidArgument);
}

TEST_CASE("shard key: row 38: keys are compared byte by byte; nothing is cleaned") {
  const std::string keys[] = {"a/b",   "a//b",    "a/./b", "/a/b", "a/b/", "A/b", std::string("a/b\0", 4),
                              "a%2fb", "a/../a/b"};
  std::set<std::string> stems;
  for (const std::string& key : keys) {
    CHECK_EQ(ShardKey(key).bytes(), key);
    for (const std::string& other : keys) CHECK_EQ(ShardKey(key) == ShardKey(other), &key == &other);
    stems.insert(ShardKey(key).FileStem());
  }
  CHECK_EQ(stems.size(), std::size(keys));
}

TEST_CASE("shard key: row 45: no key becomes a path") {
  for (const char* key : {"x/../../evil", "/etc/passwd", "..", ".", "a\nb", "C:\\x"}) {
    const std::string stem = ShardKey(key).FileStem();
    CHECK_EQ(stem.size(), 32);
    CHECK(stem.find_first_not_of("abcdefghijklmnopqrstuvwxyz234567") == std::string::npos);
  }
  // Stored in names of files: never change it.
  CHECK_EQ(ShardKey("k").FileStem(), "qjkmgknjfbipnvjz3u3w6saw5ytwiul5");
}

TEST_CASE("shard key: its printable form shows every byte and quotes none raw") {
  struct Case {
    std::string bytes;
    std::string printable;
  };
  for (const Case& c :
       {Case{"plain text/ok", "plain text/ok"}, Case{std::string("\0\x1f\x7f\x80\xff", 5), "\\x00\\x1f\\x7f\\x80\\xff"},
        Case{"a\"b\\c", "a\\x22b\\x5cc"}, Case{"\r\n\x1b[31m", "\\x0d\\x0a\\x1b[31m"}, Case{"~ ", "~ "}}) {
    CHECK_EQ(ShardKey(c.bytes).Printable(), c.printable);
  }
  for (const char fill : {'a', '\n'}) {
    const std::string text = ShardKey(std::string(1024, fill)).Printable();
    CHECK(text.size() <= 256 + 3);
    CHECK(text.ends_with("..."));
  }
  CHECK_EQ(PrintableBytes("abcdef", 8), "abcde...");
}

}  // namespace
}  // namespace dagstore
