// UTF-8, as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Any thread.
#pragma once

#include <cstddef>

#include "base/bytes.h"

namespace dagstore {

// Bytes of the well-formed character at the head of `text`; 0 if there is none.
size_t Utf8Length(Span text);

bool IsUtf8(Span text);

}  // namespace dagstore
