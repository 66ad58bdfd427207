#include "base/sha256_lanes.h"

#include <algorithm>

#include "base/check.h"
#include "base/hashing.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if !defined(__clang__)
// g++ 12 takes _mm512_undefined_epi32() inside its own intrinsics for a mistake of ours (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace dagstore {
namespace {

void OneByOne(std::span<Sha256Job> jobs) {
  for (Sha256Job& job : jobs) Sha256(job.data, job.digest.data());
}

#if defined(__x86_64__)

constexpr size_t kBlockBytes = 64;

constexpr uint32_t kStart[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

alignas(64) constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// ---- Kernels: each advances every lane by `blocks` blocks, lane i reading from next[i].

// State of 16 lanes: state[word][lane].
constexpr size_t kWide = 16;

#define DAGSTORE_AVX512 [[gnu::target("avx512f,avx512bw")]]
#define DAGSTORE_AVX512_INLINE [[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline

// Truth tables of three inputs, for vpternlogd.
constexpr int kXor3 = 0x96;
constexpr int kChoose = 0xca;
constexpr int kMajority = 0xe8;

// One round; the caller turns the names instead of moving the values.
DAGSTORE_AVX512_INLINE void RoundX16(__m512i a, __m512i b, __m512i c, __m512i& d, __m512i e, __m512i f, __m512i g,
                                     __m512i& h, __m512i word, uint32_t round_constant) {
  const __m512i sum_e = _mm512_ternarylogic_epi32(_mm512_ror_epi32(e, 6), _mm512_ror_epi32(e, 11),
                                                  _mm512_ror_epi32(e, 25), kXor3);
  const __m512i sum_a = _mm512_ternarylogic_epi32(_mm512_ror_epi32(a, 2), _mm512_ror_epi32(a, 13),
                                                  _mm512_ror_epi32(a, 22), kXor3);
  const __m512i keyed =
      _mm512_add_epi32(word, _mm512_set1_epi32(static_cast<int>(round_constant)));
  const __m512i t = _mm512_add_epi32(_mm512_add_epi32(h, keyed),
                                     _mm512_add_epi32(sum_e, _mm512_ternarylogic_epi32(e, f, g, kChoose)));
  d = _mm512_add_epi32(d, t);
  h = _mm512_add_epi32(t, _mm512_add_epi32(sum_a, _mm512_ternarylogic_epi32(a, b, c, kMajority)));
}

// Word i of the next sixteen, in place of the one before it.
DAGSTORE_AVX512_INLINE void NextWordX16(__m512i* w, int i) {
  const __m512i w1 = w[(i + 1) & 15], w14 = w[(i + 14) & 15];
  const __m512i sigma0 = _mm512_ternarylogic_epi32(_mm512_ror_epi32(w1, 7), _mm512_ror_epi32(w1, 18),
                                                   _mm512_srli_epi32(w1, 3), kXor3);
  const __m512i sigma1 = _mm512_ternarylogic_epi32(_mm512_ror_epi32(w14, 17), _mm512_ror_epi32(w14, 19),
                                                   _mm512_srli_epi32(w14, 10), kXor3);
  w[i] = _mm512_add_epi32(_mm512_add_epi32(w[i], sigma0), _mm512_add_epi32(w[(i + 9) & 15], sigma1));
}

// w[i] = big-endian word i of the block of each lane.
DAGSTORE_AVX512_INLINE void LoadX16(const uint8_t* const* next, size_t offset, __m512i* w) {
  const __m512i to_big = _mm512_broadcast_i32x4(
      _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
  __m512i pairs[16], fours[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const __m512i even = _mm512_shuffle_epi8(_mm512_loadu_si512(next[i] + offset), to_big);
    const __m512i odd = _mm512_shuffle_epi8(_mm512_loadu_si512(next[i + 1] + offset), to_big);
    pairs[i] = _mm512_unpacklo_epi32(even, odd);
    pairs[i + 1] = _mm512_unpackhi_epi32(even, odd);
  }
  // fours[4g + k]: in its 128-bit quarter q, word 4q + k of lanes 4g..4g+3.
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {
    fours[g] = _mm512_unpacklo_epi64(pairs[g], pairs[g + 2]);
    fours[g + 1] = _mm512_unpackhi_epi64(pairs[g], pairs[g + 2]);
    fours[g + 2] = _mm512_unpacklo_epi64(pairs[g + 1], pairs[g + 3]);
    fours[g + 3] = _mm512_unpackhi_epi64(pairs[g + 1], pairs[g + 3]);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i low_even = _mm512_shuffle_i32x4(fours[k], fours[4 + k], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(fours[k], fours[4 + k], 0xdd);
    const __m512i high_even = _mm512_shuffle_i32x4(fours[8 + k], fours[12 + k], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(fours[8 + k], fours[12 + k], 0xdd);
    w[k] = _mm512_shuffle_i32x4(low_even, high_even, 0x88);
    w[4 + k] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    w[8 + k] = _mm512_shuffle_i32x4(low_even, high_even, 0xdd);
    w[12 + k] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
}

DAGSTORE_AVX512 void CompressX16(uint32_t state[8][kWide], const uint8_t* const* next, size_t blocks) {
  __m512i s[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) s[i] = _mm512_load_si512(state[i]);
  for (size_t block = 0; block < blocks; ++block) {
    __m512i w[16];
    LoadX16(next, block * kBlockBytes, w);
    __m512i v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = s[i];
    for (int round = 0; round < 64; round += 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        RoundX16(v[(16 - i) & 7], v[(17 - i) & 7], v[(18 - i) & 7], v[(19 - i) & 7], v[(20 - i) & 7],
                 v[(21 - i) & 7], v[(22 - i) & 7], v[(23 - i) & 7], w[i], kRoundConstants[round + i]);
      }
      if (round == 48) break;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) NextWordX16(w, i);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) s[i] = _mm512_add_epi32(s[i], v[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm512_store_si512(state[i], s[i]);
}

#define DAGSTORE_SHA_NI [[gnu::target("sha,sse4.1,ssse3")]]
#define DAGSTORE_SHA_NI_INLINE [[gnu::target("sha,sse4.1,ssse3"), gnu::always_inline]] inline

// The instructions want the state as two vectors, a b e f and c d g h from high to low.
struct PackedState {
  __m128i abef, cdgh;
};

DAGSTORE_SHA_NI_INLINE PackedState Pack(const uint32_t* state) {
  const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
  const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
  const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
  return {_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0)};
}

DAGSTORE_SHA_NI_INLINE void Unpack(const PackedState& packed, uint32_t* state) {
  const __m128i feba = _mm_shuffle_epi32(packed.abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(packed.cdgh, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

DAGSTORE_SHA_NI_INLINE void LoadBlock(const uint8_t* block, __m128i* w) {
  const __m128i to_big = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * i)), to_big);
  }
}

// Four rounds.
DAGSTORE_SHA_NI_INLINE void Rounds4(PackedState& s, __m128i words, int round) {
  const __m128i keyed = _mm_add_epi32(
      words, _mm_load_si128(reinterpret_cast<const __m128i*>(kRoundConstants + round)));
  s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, keyed);
  s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(keyed, 0x0e));
}

// Words 4i..4i+3 of the next sixteen, in place of those before them.
DAGSTORE_SHA_NI_INLINE void NextWords4(__m128i* w, int i) {
  const __m128i w9 = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
  w[i] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i], w[(i + 1) & 3]), w9), w[(i + 3) & 3]);
}

// Two chains of instructions that do not wait for each other: each alone leaves the unit idle half of the time.
DAGSTORE_SHA_NI void CompressX2(uint32_t* state0, uint32_t* state1, const uint8_t* next0, const uint8_t* next1,
                                size_t blocks) {
  PackedState s0 = Pack(state0), s1 = Pack(state1);
  for (; blocks > 0; --blocks, next0 += kBlockBytes, next1 += kBlockBytes) {
    __m128i w0[4], w1[4];
    LoadBlock(next0, w0);
    LoadBlock(next1, w1);
    PackedState v0 = s0, v1 = s1;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      if (i >= 4) {
        NextWords4(w0, i & 3);
        NextWords4(w1, i & 3);
      }
      Rounds4(v0, w0[i & 3], 4 * i);
      Rounds4(v1, w1[i & 3], 4 * i);
    }
    s0 = {_mm_add_epi32(s0.abef, v0.abef), _mm_add_epi32(s0.cdgh, v0.cdgh)};
    s1 = {_mm_add_epi32(s1.abef, v1.abef), _mm_add_epi32(s1.cdgh, v1.cdgh)};
  }
  Unpack(s0, state0);
  Unpack(s1, state1);
}

// ---- Lanes: which message is where.

// A message on its way through a lane: first the whole blocks where they lie, then the end with its padding.
struct LaneMessage {
  Sha256Job* job = nullptr;  // null: the lane is idle
  const uint8_t* next;
  size_t blocks;       // at `next`; not 0 while there is a job
  size_t tail_blocks;  // still to come from `tail`
  uint32_t state[8];
  uint8_t tail[2 * kBlockBytes];

  void Start(Sha256Job& new_job) {
    job = &new_job;
    const Span data = new_job.data;
    const size_t rest = data.size() % kBlockBytes;
    next = data.data();
    blocks = data.size() / kBlockBytes;
    tail_blocks = rest < kBlockBytes - 8 ? 1 : 2;  // 0x80 and 8 bytes of length follow the data
    std::memset(tail, 0, sizeof(tail));
    if (rest > 0) std::memcpy(tail, data.data() + data.size() - rest, rest);
    tail[rest] = 0x80;
    Store64(tail + tail_blocks * kBlockBytes - 8, __builtin_bswap64(uint64_t{data.size()} * 8));
    std::memcpy(state, kStart, sizeof(kStart));
    if (blocks == 0) GoToTail();
  }

  // False at the end of the message.
  bool Advance(size_t count) {
    next += count * kBlockBytes;
    blocks -= count;
    if (blocks > 0) return true;
    if (tail_blocks == 0) return false;
    GoToTail();
    return true;
  }

  // `stride` is between the words of the state.
  void Finish(const uint32_t* words, size_t stride) {
    for (size_t i = 0; i < 8; ++i) Store32(job->digest.data() + 4 * i, __builtin_bswap32(words[i * stride]));
    job = nullptr;
  }

 private:
  void GoToTail() {
    next = tail;
    blocks = tail_blocks;
    tail_blocks = 0;
  }
};

// Hands out jobs, those of like length one after the other, long ones first: then the lanes run in step, and what is
// left for the end is short.
class Feed {
 public:
  explicit Feed(std::span<Sha256Job> jobs) : jobs_(jobs) {}

  // Null if there is no more.
  Sha256Job* Next() {
    if (at_ == end_ && !Sort()) return nullptr;
    return &window_[order_[at_++]];
  }

 private:
  static constexpr size_t kWindow = 256;
  static constexpr size_t kKeys = 256;  // messages above 8 KiB share a key: they amortize a poor order

  // The number of whole blocks and of blocks of padding, 0 for the longest.
  static size_t Key(const Sha256Job& job) {
    const size_t size = job.data.size();
    const size_t rank = size / kBlockBytes + (size + 8) / kBlockBytes;
    return kKeys - 1 - std::min(rank, kKeys - 1);
  }

  // Counting sort of the next window. False if there is none.
  bool Sort() {
    if (jobs_.empty()) return false;
    window_ = jobs_.first(std::min(jobs_.size(), kWindow));
    jobs_ = jobs_.subspan(window_.size());
    uint16_t start[kKeys + 1] = {};
    for (const Sha256Job& job : window_) ++start[Key(job) + 1];
    for (size_t key = 1; key < kKeys; ++key) start[key] += start[key - 1];
    for (size_t i = 0; i < window_.size(); ++i) order_[start[Key(window_[i])]++] = static_cast<uint8_t>(i);
    at_ = 0;
    end_ = window_.size();
    return true;
  }

  std::span<Sha256Job> jobs_;    // not yet sorted
  std::span<Sha256Job> window_;  // sorted
  uint8_t order_[kWindow];
  size_t at_ = 0;
  size_t end_ = 0;
};

// Finishes the messages already begun in `begun`, then those of `feed`.
void RunNarrow(std::span<LaneMessage> begun, Feed& feed) {
  LaneMessage fresh[2];
  LaneMessage* lanes[2] = {};
  uint32_t idle_state[8] = {};
  size_t begun_at = 0;
  while (true) {
    for (size_t i = 0; i < 2; ++i) {
      if (lanes[i] != nullptr) continue;
      while (begun_at < begun.size() && begun[begun_at].job == nullptr) ++begun_at;
      if (begun_at < begun.size()) {
        lanes[i] = &begun[begun_at++];
      } else if (Sha256Job* const job = feed.Next(); job != nullptr) {
        fresh[i].Start(*job);
        lanes[i] = &fresh[i];
      }
    }
    if (lanes[0] == nullptr && lanes[1] == nullptr) return;
    // A lane without work repeats what the other does, which takes no longer.
    LaneMessage* const a = lanes[0] != nullptr ? lanes[0] : lanes[1];
    LaneMessage* const b = lanes[1] != nullptr ? lanes[1] : lanes[0];
    const size_t blocks = std::min(a->blocks, b->blocks);
    CompressX2(a->state, a == b ? idle_state : b->state, a->next, b->next, blocks);
    for (LaneMessage*& lane : lanes) {
      if (lane == nullptr || lane->Advance(blocks)) continue;
      lane->Finish(lane->state, 1);
      lane = nullptr;
    }
  }
}

// Runs while at least `lanes_min` lanes have work. The messages that are left stay in `messages`, with their state.
void RunWide(Feed& feed, size_t lanes_min, std::span<LaneMessage, kWide> messages) {
  alignas(64) uint32_t state[8][kWide] = {};
  const uint8_t* next[kWide];
  while (true) {
    size_t active = 0, blocks = SIZE_MAX;
    const uint8_t* some = nullptr;
    for (size_t i = 0; i < kWide; ++i) {
      LaneMessage& message = messages[i];
      if (message.job == nullptr) {
        Sha256Job* const job = feed.Next();
        if (job == nullptr) continue;
        message.Start(*job);
        for (size_t word = 0; word < 8; ++word) state[word][i] = message.state[word];
      }
      ++active;
      blocks = std::min(blocks, message.blocks);
      some = message.next;
    }
    if (active < lanes_min || active == 0) break;
    for (size_t i = 0; i < kWide; ++i) next[i] = messages[i].job != nullptr ? messages[i].next : some;
    CompressX16(state, next, blocks);
    for (size_t i = 0; i < kWide; ++i) {
      if (messages[i].job != nullptr && !messages[i].Advance(blocks)) messages[i].Finish(&state[0][i], kWide);
    }
  }
  for (size_t i = 0; i < kWide; ++i) {
    for (size_t word = 0; word < 8; ++word) messages[i].state[word] = state[word][i];
  }
}

// A step of 16 lanes takes as long as about 9 blocks in two lanes (3.2 and 1.9 GB/s on Sapphire Rapids), and as 3 or 4
// in OpenSSL where the SHA instructions are missing.
constexpr size_t kWideLanesMinBesideShaNi = 10;
constexpr size_t kWideLanesMinAlone = 4;

bool HasShaNi() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
}

bool HasAvx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"); }

#endif  // defined(__x86_64__)

}  // namespace

bool CanRun(Sha256Kernel kernel) {
  if (kernel == Sha256Kernel::kOneByOne) return true;
#if defined(__x86_64__)
  static const bool has_sha_ni = HasShaNi(), has_avx512 = HasAvx512();
  switch (kernel) {
    case Sha256Kernel::kOneByOne:
      return true;
    case Sha256Kernel::kShaNi:
      return has_sha_ni;
    case Sha256Kernel::kAvx512:
      return has_avx512;
    case Sha256Kernel::kAvx512ShaNi:
      return has_sha_ni && has_avx512;
  }
#endif
  return false;
}

Sha256Kernel BestSha256Kernel() {
  static const Sha256Kernel best = [] {
    for (const Sha256Kernel kernel : {Sha256Kernel::kAvx512ShaNi, Sha256Kernel::kAvx512, Sha256Kernel::kShaNi}) {
      if (CanRun(kernel)) return kernel;
    }
    return Sha256Kernel::kOneByOne;
  }();
  return best;
}

void Sha256Many(std::span<Sha256Job> jobs) { Sha256Many(jobs, BestSha256Kernel()); }

void Sha256Many(std::span<Sha256Job> jobs, Sha256Kernel kernel) {
  DAGSTORE_CHECK(CanRun(kernel));
#if defined(__x86_64__)
  Feed feed(jobs);
  LaneMessage messages[kWide];
  switch (kernel) {
    case Sha256Kernel::kOneByOne:
      break;
    case Sha256Kernel::kShaNi:
      return RunNarrow({}, feed);
    case Sha256Kernel::kAvx512:
      if (jobs.size() < kWideLanesMinAlone) break;
      return RunWide(feed, 1, messages);
    case Sha256Kernel::kAvx512ShaNi:
      if (jobs.size() >= kWideLanesMinBesideShaNi) RunWide(feed, kWideLanesMinBesideShaNi, messages);
      return RunNarrow(messages, feed);
  }
#endif
  OneByOne(jobs);
}

}  // namespace dagstore
