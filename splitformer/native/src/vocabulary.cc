#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "simd.h"

namespace splitformer {
namespace {

inline __m256 Masked(const float* logits, const float* mask, int i) {
  const __m256 v = _mm256_loadu_ps(logits + i);
  return mask == nullptr ? v : _mm256_add_ps(v, _mm256_loadu_ps(mask + i));
}

// For each set of eight lanes, their numbers in order.
struct Packings {
  alignas(64) uint8_t lanes[256][8];

  Packings() : lanes() {
    for (int set = 0; set < 256; ++set) {
      int place = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if ((set >> lane & 1) != 0) lanes[set][place++] = static_cast<uint8_t>(lane);
      }
    }
  }

  __m256i Of(int set) const {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(lanes[set])));
  }
};

const Packings packings;

// The lanes whose logits exceed another.
int Above(__m256 logits, float least) {
  return _mm256_movemask_ps(_mm256_cmp_ps(logits, _mm256_set1_ps(least), _CMP_GT_OQ));
}

// A number that is the larger the less likely, for logits that are not minus infinity.
uint64_t Order(float logit) {
  const float positive = logit + 0.0f;  // there are two zeros, and they are equal
  uint32_t bits;
  std::memcpy(&bits, &positive, sizeof bits);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7FFFFFFFu;
}

}  // namespace

void Shortlist::Begin(int room) {
  room_ = room;
  held_ = 0;
  least_ = -std::numeric_limits<float>::infinity();
  most_ = 2 * room + 32;
  if (room != 0) Reserve();
}

void Shortlist::BeginWithin(float distance) {
  Begin(1);
  room_ = 0;
  distance_ = distance;
}

void Shortlist::Reserve() {
  const size_t size = size_t(most_) + kChunk + 8;
  if (logits_.size() >= size) return;
  logits_.resize(size);
  ids_.resize(size);
}

void Shortlist::Add(const float* logits, const float* mask, int count, int base, float largest) {
  if (!(largest > least_)) return;
  if (room_ == 0) {  // a little less, whatever the rounding
    least_ = std::max(least_, largest - distance_ - 1e-6f * (std::fabs(largest) + distance_));
  }
  const auto keep = [this, base](__m256 v, int i) {
    const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    Put(v, _mm256_add_epi32(first, _mm256_set1_epi32(base + i)), Above(v, least_));
  };
  int i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256 v[] = {Masked(logits, mask, i), Masked(logits, mask, i + 8),
                        Masked(logits, mask, i + 16), Masked(logits, mask, i + 24)};
    const __m256 largest = _mm256_max_ps(_mm256_max_ps(v[0], v[1]), _mm256_max_ps(v[2], v[3]));
    if (Above(largest, least_) == 0) continue;  // most often
    for (int part = 0; part < 4; ++part) keep(v[part], i + 8 * part);
  }
  for (; i < count; i += 8) keep(Masked(logits, mask, i), i);
  if (held_ <= most_) return;
  // They are looked at by the eight.
  _mm256_storeu_ps(&logits_[size_t(held_)],
                   _mm256_set1_ps(-std::numeric_limits<float>::infinity()));
  if (room_ != 0) return Sift();
  Drop();
  most_ = std::max(most_, 2 * held_);
  Reserve();
}

// Puts some of eight behind those that are held; a branch for each would often be mispredicted.
inline void Shortlist::Put(__m256 logits, __m256i ids, int lanes) {
  const __m256i packing = packings.Of(lanes);
  _mm256_storeu_ps(&logits_[size_t(held_)], _mm256_permutevar8x32_ps(logits, packing));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(&ids_[size_t(held_)]),
                      _mm256_permutevar8x32_epi32(ids, packing));
  held_ += __builtin_popcount(static_cast<unsigned>(lanes));
}

// Raises `least_`, such that no more exceed it than are wanted and some: where many are equal, for
// which no such value may be found, with the first of those equal to it.
void Shortlist::Sift() {
  constexpr int kTries = 16;
  const int enough = room_ + room_ / 4;
  const auto [smallest, largest] = std::minmax_element(logits_.begin(), logits_.begin() + held_);
  float least = *smallest, most = *largest;
  int above = CountAbove(least);
  for (int tries = 0; above > enough && tries < kTries; ++tries) {
    const float middle = least + (most - least) * 0.5f;
    const int count = CountAbove(middle);
    (count < room_ ? most : least) = middle;
    if (count >= room_) above = count;
  }
  if (above >= room_ && above <= enough) {
    least_ = least;
    return Drop();
  }
  std::vector<float> sorted(logits_.begin(), logits_.begin() + held_);
  const auto last = sorted.begin() + (room_ - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<float>());
  least_ = *last;
  DropButEquals(room_ - CountAbove(least_));
}

int Shortlist::CountAbove(float least) const {
  int count = 0;
  for (int i = 0; i < held_; i += 8) {
    const int lanes = Above(_mm256_loadu_ps(&logits_[size_t(i)]), least);
    count += __builtin_popcount(static_cast<unsigned>(lanes));
  }
  return count;
}

// Drops what does not exceed `least_`.
void Shortlist::Drop() {
  const int held = held_;
  held_ = 0;
  for (int i = 0; i < held; i += 8) {  // what is written has been read
    const __m256 logits = _mm256_loadu_ps(&logits_[size_t(i)]);
    const __m256i ids = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&ids_[size_t(i)]));
    Put(logits, ids, Above(logits, least_));
  }
}

// Does the same, but for the first few that are equal to it.
void Shortlist::DropButEquals(int equals) {
  const int held = held_;
  held_ = 0;
  for (size_t i = 0; i < size_t(held); ++i) {
    const bool equal = logits_[i] == least_ && equals > 0;
    equals -= equal;
    logits_[size_t(held_)] = logits_[i];
    ids_[size_t(held_)] = ids_[i];
    held_ += equal || logits_[i] > least_;
  }
}

void Ranker::Add(const Shortlist& part) {
  for (size_t i = 0; i < size_t(part.held_); ++i) {
    keys_.push_back(Order(part.logits_[i]) << 32 | entries_.size());
    entries_.push_back({part.logits_[i], part.ids_[i]});
  }
}

int Ranker::Rank(int room, Likeliest* out) {
  const int held = std::min(room, static_cast<int>(keys_.size()));
  if (held < static_cast<int>(keys_.size())) {
    std::nth_element(keys_.begin(), keys_.begin() + held, keys_.end());
  }
  std::sort(keys_.begin(), keys_.begin() + held);
  for (int i = 0; i < held; ++i) out[i] = entries_[keys_[size_t(i)] & 0xFFFFFFFFu];
  std::fill(out + held, out + room, Likeliest{0.0f, -1});
  return held;
}

float LogSum(const ExponentialSum* chunks, int count) {
  float largest = chunks[0].largest;
  for (int c = 1; c < count; ++c) largest = std::max(largest, chunks[c].largest);
  float sum = 0.0f;
  for (int c = 0; c < count; ++c) sum += chunks[c].sum * Exp(chunks[c].largest - largest);
  return static_cast<float>(largest + Log(sum));
}

}  // namespace splitformer
