// A plan: the decode step or the encoder of one model, as a list of fused operations that one team
// runs.
//
// Nothing here knows a family of models. What makes one model differ from another (where norms
// stand, which activation, gating, biases) is in the list, which the caller writes once.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "attention.h"
#include "memory.h"
#include "multiply.h"
#include "operations.h"
#include "request.h"
#include "source_attention.h"
#include "team.h"
#include "vocabulary.h"

namespace splitformer {

// Most maps side by side that attention follows: query, key and value.
constexpr int kMaxSegments = 3;

// How many heads ahead of their use keys and values are asked for.
constexpr int kHeadsAhead = 4;

// Rows of which a chunk of logits is held at once: enough for the products to be worth it, few
// enough for a core's caches.
constexpr int kLogitRows = 48;

// Floats from one row of a chunk of logits to the next.
constexpr size_t kLogitsStride = kChunk + kPanel;

// Thread cycles (of member 0) by kind of work, while profiling is on.
enum ProfileEntry {
  kRowsTime,
  kLinearTime,
  kOwnTime,
  kCrossTime,
  kVocabularyTime,
  kWaitTime,
  kProfileSize
};

class Plan {
 public:
  Plan(const Shape& shape, InstructionSet isa, int threads, const std::vector<int>& cores);

  const Shape& shape() const { return shape_; }

  // Building: tables are borrowed and must outlive the plan; weights are packed at once.
  void SetEmbedding(const void* tokens, Element element, const float* positions, float scale);
  void SetProjection(const std::vector<Weights>& parts);
  void Add(RowsOp op);
  void Add(AttendOp op);
  void AddLinear(const std::vector<Weights>& parts, int inputs, Activation activation, bool gated,
                 int segments);
  void AddVocabulary(const Weights& weights);
  void AddConvolution(const Weights& weights, int channels, int stride);
  void Finish();  // with operations, or with a projection alone: such a plan only projects

  // Runs a step. Throws std::invalid_argument before anything is written if a token, a position or
  // a size is out of range.
  void Step(const Request& request);

  // Encodes sources: (sum of counts, d_model) to `memory`. Throws as Step does.
  void Encode(const Sources& sources, float* memory);

  // Keys and values of a memory (rows, d_model) for all layers: (layers, 2, heads, rows, K).
  void Project(const float* memory, int rows, void* out);

  // The step's bare matrix products and barriers, `iterations` times; what no step can beat.
  void RunProducts(int rows, int iterations);

  void SetProfile(bool on);
  const std::array<double, kProfileSize>& profile() const { return profile_; }

 private:
  struct Row {
    int32_t token;
    int32_t position;
  };
  // What an output is asked, made ready; where parts of its answer go, -1 where there are none.
  struct Asked {
    Draw draw;
    int room;  // of the likeliest ids that are found
    int first_found;
    int first_candidate;
    int logits_row;
    int64_t attention;
  };
  struct Panels {
    int first;
    int last;
  };
  // One thread's view of the step it is in.
  struct Member {
    int index;
    int rows;    // rows of the operand
    int parity;  // which of the two linear outputs the next map writes
    uint64_t clock;
  };

  void CheckOrder();
  void Check(const Request& request) const;
  void Check(const Question& question) const;
  void Check(const Sources& sources) const;
  void CheckDenied(const int32_t* begin, const int32_t* end) const;
  void CheckTokens(const int32_t* tokens, int64_t count) const;
  void Run(const Request& request);
  void Prepare(const Request& request);
  void PrepareAnswers(const Request& request);
  void PrepareShown(const Request& request);
  void PrepareLists();
  template <class F>
  void BeginLists(std::vector<std::vector<Shortlist>>* lists, F begin);
  void Reserve(int rows, int outputs, int positions);
  void RunStep(const Request& request, Member& member);
  void Execute(const RowsOp& op, const Request& request, Member& member);
  float* Begin(const RowsOp& op, int row, const Member& member) const;
  void EncodeAudio(const Sources& sources, float* memory);
  int64_t FramesPerRow() const;
  const float* Hear(const float* features, int64_t frames);
  const float* Framed(const float* features, int64_t frames);
  void Convolve(const Convolution& convolution, const float* in, int rows, float* out,
                int member) const;
  void Execute(const LinearOp& op, const uint8_t* after, Member& member);
  void Execute(const AttendOp& op, const Request& request, Member& member);
  void Execute(const VocabularyOp& op, const Request& request, Member& member);
  Head Look(const AttendOp& op, const Sequence& sequence, int head) const;
  size_t Offset(int layer, int which, int head, int64_t positions) const;
  void* OwnPlace(const AttendOp& op, const Sequence& sequence, int which, int head,
                 int64_t position) const;
  void AttendHead(const AttendOp& op, const Sequence& sequence, int first_row, int head, Head here,
                  const Head& later, const Member& member);
  void AttendSource(const AttendOp& op, int64_t count, int first_row, int head,
                    const Member& member);
  void ProjectRows(const float* memory, int first, int rows, void* out, Member& member);
  void ReduceChunk(const Request& request, const float* mask, const float* logits, int columns,
                   int chunk, int i, const Member& member);
  const float* MaskOf(const Request& request, int chunk) const;
  bool MaskDenied(const Request& request, int base, int columns, int i, float* own) const;
  void Copy(const Request& request, const float* logits, int columns, int base, int i) const;
  void Conclude(const Request& request, const Member& member);
  Likeliest BestOf(int output);
  int Rank(const Request& request, int i);
  void DrawToken(const Request& request, int i, int held, Likeliest best, const Member& member);
  Likeliest DrawCandidate(int i, int held, Likeliest best) const;
  Likeliest DrawNear(const Draw& draw, int i, Likeliest best) const;
  Likeliest DrawAny(const Request& request, int i, Likeliest best, const Member& member);
  std::vector<double> WeighChunks(const Draw& draw, int i, Likeliest best) const;
  int ComputeChunk(int i, int chunk, const Member& member);
  void ShowAttention(const Request& request, int i) const;
  void ShowFocus(const Request& request, int i) const;
  float MeanWeight(const float* weights, int64_t source, int64_t t) const;
  int64_t SourceOf(const Request& request, int row) const;
  int64_t AttentionFrom(const AttendOp& op, int row) const;

  int ShareOf(const LinearOp& op, int member, Panels* share) const;
  const uint8_t* Next(const Op* op, int member) const;
  bool ByHeads() const;
  void Barrier(Member& member);
  void Tick(Member& member, ProfileEntry entry);

  const void* TokenRow(int32_t token) const {
    return tokens_ + size_t(token) * size_t(shape_.d_model) * SizeOf(element_);
  }
  int head_size() const { return shape_.head_size; }
  int chunks() const;
  size_t Slot(int row, const Member& m) const { return size_t(replicated_ ? m.index : row); }
  float* Residual(int row, const Member& m) const {
    return residual_.As<float>() + Slot(row, m) * row_stride_;
  }
  float* Mixed(int row) const { return mixed_.As<float>() + size_t(row) * row_stride_; }
  float* Output(int row, int parity) const {
    return output_[parity].As<float>() + size_t(row) * output_stride_;
  }
  float* ScaleOf(int row, const Member& m) const {
    return scale_.As<float>() + (replicated_ ? size_t(m.index) * 16 : size_t(row));
  }
  Likeliest* LikeliestOf(int output, int member) {
    return &likeliest_[size_t(member) * likeliest_.size() / size_t(team_.size()) + size_t(output)];
  }
  void PrepareOperand(const float* x, int size, float largest, int row,
                      const Member& m) const;
  Operand OperandOf(const Member& m) const;
  float* Scratch(const Member& m) const {
    return scratch_.As<float>() + size_t(m.index) * scratch_stride_;
  }

  const Shape shape_;
  const KernelSet& kernels_;
  const KernelSet& float_kernels_;
  Team team_;
  std::mutex busy_;
  Arena packed_;  // the matrices' weights, in the order of a step
  std::vector<Op> ops_;
  std::unique_ptr<LinearOp> projection_;
  std::vector<Convolution> convolutions_;
  const uint8_t* tokens_ = nullptr;
  Element element_ = Element::kFloat;  // of `tokens_`
  const float* positions_ = nullptr;
  float embedding_scale_ = 1.0f;
  bool finished_ = false;
  bool encoder_ = false;
  int width_ = 0;          // of the last linear map's output, while building
  int operand_width_ = 0;  // of the operand, while building; 0: none
  int widest_input_ = 0;
  int widest_output_ = 0;

  // Strides in elements (bytes for the operand), a little more than their rows so that rows do not
  // all fall into the same sets of the cache.
  size_t row_stride_ = 0;
  size_t output_stride_ = 0;
  size_t operand_stride_ = 0;
  size_t scratch_stride_ = 0;

  // The step's working memory.
  // With a single row every thread prepares an operand of its own, which saves barriers.
  bool replicated_ = false;
  std::vector<Row> row_;
  std::vector<int> first_row_;    // per sequence
  std::vector<int> output_row_;   // per output
  const float* heard_ = nullptr;  // rows of a source that is audio
  Buffer framed_, between_[2];
  Buffer residual_, mixed_, output_[2], operand_, scale_, scratch_;
  std::vector<ExponentialSum> sums_;  // (outputs, chunks)
  std::vector<Likeliest> likeliest_;  // (threads, outputs)

  std::vector<Asked> asked_;                        // (outputs), or none if nothing is asked
  std::vector<Likeliest> found_;                    // the likeliest ids, where they are wanted
  std::vector<std::vector<Shortlist>> shortlists_;  // (threads), (outputs)
  std::vector<std::vector<Shortlist>> near_;        // likewise: what is near the likeliest
  std::vector<ExponentialSum> weights_of_all_;      // (outputs, chunks), where draws need them

  // The last layer's weights over the memory, head by head, of outputs that show them.
  std::vector<int64_t> shown_;  // (rows): where in `weights_` its heads begin, or -1
  std::vector<float> weights_;

  bool profiling_ = false;
  std::array<double, kProfileSize> profile_{};
};

}  // namespace splitformer
