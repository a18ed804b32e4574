#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "simd.h"

namespace splitformer {
namespace {

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

constexpr uint64_t kLastLane = uint64_t{1} << 63;

// A number that is the larger the less likely, for logits that are not minus infinity.
uint64_t Order(float logit) {
  const float positive = logit + 0.0f;  // there are two zeros, and they are equal
  uint32_t bits;
  std::memcpy(&bits, &positive, sizeof bits);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7FFFFFFFu;
}

// The smallest and the largest of at least eight logits.
std::pair<float, float> Range(const float* logits, int count) {
  Eight least = Eight::Load(logits + count - 8), most = least;
  for (int i = 0; i + 8 <= count; i += 8) {
    least = Min(least, Eight::Load(logits + i));
    most = Max(most, Eight::Load(logits + i));
  }
  return {-Max(Negate(least)), Max(most)};
}

// How many values are compared with at a time.
constexpr int kCuts = 4;

// How many logits exceed each of some values; logits come by the eight.
void CountAbove(const float* logits, int count, const float* cuts, int* above) {
  __m256i sums[kCuts] = {};
  for (int i = 0; i < count; i += 8) {
    const __m256 v = _mm256_loadu_ps(logits + i);
    for (int k = 0; k < kCuts; ++k) {
      const __m256 exceeds = _mm256_cmp_ps(v, _mm256_set1_ps(cuts[k]), _CMP_GT_OQ);
      sums[k] = _mm256_sub_epi32(sums[k], _mm256_castps_si256(exceeds));
    }
  }
  const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]),
                                          _mm256_hadd_epi32(sums[2], sums[3]));
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(above),
      _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
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
  const size_t size = size_t(std::max(most_, held_)) + kChunk + 8;
  if (logits_.size() >= size) return;
  logits_.resize(size);
  ids_.resize(size);
}

void Shortlist::Add(const RowKernels& rows, const float* logits, const float* mask, int count,
                    int base, float largest) {
  if (!(largest > least_)) return;
  if (room_ == 0) {  // a little less, whatever the rounding
    least_ = std::max(least_, largest - distance_ - 1e-6f * (std::fabs(largest) + distance_));
  }
  if (held_ == 0 && room_ != 0 && mask == nullptr) Narrow(logits, count);
  uint64_t lanes[kChunk / 64];
  rows.find_above(logits, mask, count, least_, lanes);
  size_t held = size_t(held_);
  for (int first = 0; first < count; first += 64) {
    uint64_t left = lanes[first / 64];
    const auto take = [&] {
      const int place = first + __builtin_ctzll(left | kLastLane);
      logits_[held] = logits[place];
      ids_[held] = base + place;
      held += left != 0;
      left &= left - 1;
    };
    take();  // most often there are no more than two: to ask whether costs more
    take();
    while (left != 0) take();
  }
  held_ = static_cast<int>(held);
  if (held_ <= most_) return;
  if (room_ != 0) return Sift();
  Pad();
  Drop();
  most_ = std::max(most_, 2 * held_);
  Reserve();
}

void Shortlist::Append(const Shortlist& part) {
  const size_t held = size_t(held_), more = size_t(part.held_);
  held_ += part.held_;
  Reserve();
  std::copy_n(part.logits_.begin(), more, logits_.begin() + long(held));
  std::copy_n(part.ids_.begin(), more, ids_.begin() + long(held));
}

// What is held is looked at by the eight: behind it comes what counts nowhere.
void Shortlist::Pad() {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::fill_n(logits_.begin() + held_, 7, kNever);
}

// Puts some of eight behind those that are held; a branch for each would often be mispredicted.
inline void Shortlist::Put(__m256 logits, __m256i ids, int lanes) {
  const __m256i packing = packings.Of(lanes);
  _mm256_storeu_ps(&logits_[size_t(held_)], _mm256_permutevar8x32_ps(logits, packing));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(&ids_[size_t(held_)]),
                      _mm256_permutevar8x32_epi32(ids, packing));
  held_ += __builtin_popcount(static_cast<unsigned>(lanes));
}

// Raises `least_`, such that no more of these logits exceed it than are wanted and some; false if
// no such value is found, as where many are equal.
bool Shortlist::Narrow(const float* logits, int count) {
  constexpr int kTries = 8;
  const int enough = room_ + room_ / 4;
  auto [least, most] = Range(logits, count);
  for (int tries = 0; tries < kTries; ++tries) {
    float cuts[kCuts];
    for (int k = 0; k < kCuts; ++k) cuts[k] = least + (most - least) * (float(k + 1) / (kCuts + 1));
    int above[kCuts], last = kCuts - 1;
    CountAbove(logits, count, cuts, above);
    while (last >= 0 && above[last] < room_) most = cuts[last--];
    if (last < 0) continue;
    least = cuts[last];
    if (above[last] > enough) continue;
    least_ = least;
    return true;
  }
  return false;
}

void Shortlist::Sift() {
  Pad();
  if (Narrow(logits_.data(), held_)) return Drop();
  std::vector<float> sorted(logits_.begin(), logits_.begin() + held_);
  const auto last = sorted.begin() + (room_ - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<float>());
  least_ = *last;
  const auto likelier = [this](float logit) { return logit > least_; };
  DropButEquals(room_ - static_cast<int>(std::count_if(sorted.begin(), last, likelier)));
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

int Rank(const std::vector<Shortlist*>& parts, int room, Likeliest* out) {
  Shortlist& all = *parts.front();
  for (size_t i = 1; i < parts.size(); ++i) all.Append(*parts[i]);
  if (all.held() > std::max(8, room + room / 4)) all.Sift();
  std::vector<uint64_t> keys;
  keys.reserve(size_t(all.held()));
  for (int i = 0; i < all.held(); ++i) keys.push_back(Order(all[i].logit) << 32 | uint64_t(i));
  std::sort(keys.begin(), keys.end());
  const int held = std::min(room, all.held());
  for (int i = 0; i < held; ++i) out[i] = all[static_cast<int>(keys[size_t(i)] & 0xFFFFFFFFu)];
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
