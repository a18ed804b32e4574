// From features of audio to the rows that an encoder begins with: convolutions over time.
//
// A convolution over a few frames is a linear map of those frames side by side. Frames lie one
// behind the other, so what a row of the product needs is one unbroken piece of memory, and pieces
// of neighbouring rows overlap: nothing has to be copied. A frame of zeros before the first and one
// behind the last stand for what is not there.
#include <algorithm>
#include <cstring>

#include "plan.h"

namespace splitformer {
namespace {

constexpr size_t kFrames = 3;       // that a convolution sees at once
constexpr size_t kSlack = 16;       // floats behind the last frame
constexpr auto kAfter = Activation::kGelu;

}  // namespace

// Rows of features that come before a source's row of the memory.
int64_t Plan::FramesPerRow() const {
  int64_t frames = 1;
  for (const Convolution& convolution : convolutions_) frames *= convolution.stride;
  return frames;
}

// Fills `heard_` for one source and returns its first row.
const float* Plan::Hear(const float* features, int64_t frames) {
  const float* in = Framed(features, frames);
  for (size_t i = 0; i < convolutions_.size(); ++i) {
    const Convolution& convolution = convolutions_[i];
    frames /= convolution.stride;
    const size_t width = size_t(convolution.width), count = size_t(frames) * width;
    between_[i % 2].Reserve((count + 2 * width + kSlack) * sizeof(float));
    float* out = between_[i % 2].As<float>();
    std::memset(out, 0, width * sizeof(float));
    std::memset(out + width + count, 0, width * sizeof(float));
    team_.Run([&](int index) {
      Convolve(convolution, in, static_cast<int>(frames), out + width, index);
    });
    in = out;
  }
  return in + shape_.d_model;  // behind the frame of zeros
}

// Copies features and puts a frame of zeros on either side.
const float* Plan::Framed(const float* features, int64_t frames) {
  const size_t width = size_t(convolutions_[0].channels), count = size_t(frames) * width;
  framed_.Reserve((count + 2 * width + kSlack) * sizeof(float));
  float* to = framed_.As<float>();
  std::memset(to, 0, width * sizeof(float));
  std::memcpy(to + width, features, count * sizeof(float));
  std::memset(to + width + count, 0, width * sizeof(float));
  return to;
}

void Plan::Convolve(const Convolution& convolution, const float* in, int rows, float* out,
                    int member) const {
  const Matrix& matrix = convolution.matrix;
  const size_t width = size_t(convolution.width);
  const size_t step = size_t(convolution.channels) * size_t(convolution.stride) * sizeof(float);
  const Operand operand = {reinterpret_cast<const uint8_t*>(in), step, in, rows};
  const auto put = [&](const Sums& sums) {
    alignas(32) float block[kMaxTileRows * kMaxTilePanels * kPanel];
    const size_t columns = size_t(sums.columns), first = size_t(sums.column);
    matrix.Finish(sums, nullptr, block, columns, kAfter);
    const size_t kept = std::min(columns, width - std::min(width, first));
    for (size_t r = 0; r < size_t(sums.rows); ++r) {
      std::memcpy(out + (size_t(sums.row) + r) * width + first, block + r * columns,
                  kept * sizeof(float));
    }
  };
  const int blocks = (matrix.panels() + kMaxTilePanels - 1) / kMaxTilePanels;
  const int begin = ShareBegin(blocks, member, team_.size()) * kMaxTilePanels;
  const int end = ShareBegin(blocks, member + 1, team_.size()) * kMaxTilePanels;
  Multiply(float_kernels_, operand, matrix, begin, std::min(end, matrix.panels()), nullptr, put);
}

void Plan::AddConvolution(const Weights& weights, int channels, int stride) {
  const int inputs = channels * static_cast<int>(kFrames);
  convolutions_.push_back({Matrix(Precision::kFloat, float_kernels_, &packed_, inputs, {weights},
                                  false, 0.0f, 1),
                           channels, stride, weights.width});
}

}  // namespace splitformer
