// A program that runs every part of the library once, for the sanitizers: exit status 0 if all is
// well. What the numbers should be is tested in Python, against torch.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu.h"
#include "plan.h"

namespace splitformer {
namespace {

constexpr int kWidth = 36, kHeads = 3, kInner = 50, kVocabulary = 301, kMaxPositions = 40;
constexpr int kSource = 5, kCapacity = 40, kHeadSize = kWidth / kHeads;
constexpr int kRoom = 9;
constexpr int kPages = (kCapacity + kPagePositions - 1) / kPagePositions;
constexpr size_t kPage = size_t{2} * kHeads * kPagePositions * kHeadSize;  // elements
constexpr size_t kOwn = kPages * kPage;
constexpr size_t kCross = size_t{2} * kHeads * kSource * kHeadSize;

void Expect(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

// Reproducible numbers between -1 and 1.
std::vector<float> Numbers(size_t count, uint32_t seed) {
  std::vector<float> numbers(count);
  for (float& number : numbers) {
    seed = seed * 1664525u + 1013904223u;
    number = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return numbers;
}

Norm NormWith(NormKind kind) {
  const std::vector<float> gain(kWidth, 1.1f), shift(kWidth, 0.1f);
  return {kind, 1e-5f, gain.data(), shift.data(), kWidth};
}

// A model of one layer, with the weights that it borrows.
struct Model {
  std::vector<float> tokens = Numbers(size_t{kVocabulary} * kWidth, 1);
  std::vector<float> positions = Numbers(size_t{kMaxPositions} * kWidth, 2);
  std::vector<float> square = Numbers(size_t{kWidth} * kWidth, 3);
  std::vector<float> inner = Numbers(size_t{kInner} * kWidth, 4);
  std::vector<float> outer = Numbers(size_t{kWidth} * kInner, 5);
  std::vector<float> bias = Numbers(kWidth, 6);
  std::vector<float> memory = Numbers(size_t{kSource} * kWidth, 7);

  void Build(Plan* plan) const {
    const Weights map = {square.data(), bias.data(), kWidth};
    const Weights up = {inner.data(), nullptr, kInner};
    plan->SetEmbedding(tokens.data(), Element::kFloat, positions.data(), 2.0f);
    plan->SetProjection({map, map});
    plan->Add(RowsOp{Source::kEmbedding, NormWith(NormKind::kLayer), {}, Target::kOperand});
    plan->AddLinear({map, map, map}, kWidth, Activation::kNone, false, 3);
    plan->Add(AttendOp{0, Over::kOwn, 0.3f, Numbers(size_t{kHeads} * 4, 8), 4});
    plan->Add(RowsOp{Source::kAttention, {}, {}, Target::kOperand});
    plan->AddLinear({map}, kWidth, Activation::kNone, false, 0);
    plan->Add(RowsOp{Source::kResidual, {}, NormWith(NormKind::kRms), Target::kOperand});
    plan->AddLinear({map}, kWidth, Activation::kNone, false, 1);
    plan->Add(AttendOp{0, Over::kMemory, 0.3f, {}, 0});
    plan->Add(RowsOp{Source::kAttention, {}, {}, Target::kOperand});
    plan->AddLinear({map}, kWidth, Activation::kNone, false, 0);
    plan->Add(RowsOp{Source::kResidual, NormWith(NormKind::kLayer), {}, Target::kOperand});
    plan->AddLinear({up, up}, kWidth, Activation::kGelu, true, 0);
    plan->Add(RowsOp{Source::kLinear, {}, {}, Target::kOperand});
    plan->AddLinear({{outer.data(), bias.data(), kWidth}}, kInner, Activation::kSilu, false, 0);
    plan->Add(RowsOp{Source::kResidual, NormWith(NormKind::kLayer), {}, Target::kOutputs});
    plan->AddVocabulary({tokens.data(), nullptr, kVocabulary});
    plan->Finish();
  }
};

// An encoder of one layer, with the same weights.
void BuildEncoder(const Model& model, Plan* plan) {
  const Weights map = {model.square.data(), model.bias.data(), kWidth};
  plan->SetEmbedding(model.tokens.data(), Element::kFloat, model.positions.data(), 2.0f);
  plan->Add(RowsOp{Source::kEmbedding, {}, NormWith(NormKind::kLayer), Target::kOperand});
  plan->AddLinear({map, map, map}, kWidth, Activation::kNone, false, 3);
  plan->Add(AttendOp{0, Over::kSource, 0.3f, Numbers(size_t{kHeads} * 7, 8), 4});
  plan->Add(RowsOp{Source::kAttention, {}, {}, Target::kOperand});
  plan->AddLinear({map}, kWidth, Activation::kNone, false, 0);
  plan->Add(RowsOp{Source::kResidual, {}, NormWith(NormKind::kRms), Target::kMemory});
  plan->Finish();
}

// A plan that only projects, with the same weights.
void BuildProjector(const Model& model, Plan* plan) {
  const Weights map = {model.square.data(), model.bias.data(), kWidth};
  plan->SetProjection({map, map});
  plan->Finish();
}

// Sequences over one memory, and what the last step said.
struct Batch {
  explicit Batch(size_t count, CacheType cache)
      : own(count, std::vector<float>(kOwn)), held(count, 0) {
    const size_t bytes = kPage * ElementBytes(cache);
    for (std::vector<float>& sequence : own) {
      char* base = reinterpret_cast<char*>(sequence.data());
      for (size_t page = 0; page < kPages; ++page) pages.push_back(base + page * bytes);
    }
  }

  void Step(Plan* plan, const std::vector<std::vector<int32_t>>& tokens) {
    std::vector<Sequence> sequences;
    std::vector<int32_t> flat;
    for (size_t s = 0; s < tokens.size(); ++s) {
      const int64_t count = static_cast<int64_t>(tokens[s].size());
      sequences.push_back(
          {pages.data() + s * kPages, kCapacity, held[s], count, cross.data(), kSource, 1});
      flat.insert(flat.end(), tokens[s].begin(), tokens[s].end());
    }
    const size_t count = tokens.size();
    const std::vector<float> mask(RoundUp(kVocabulary, kChunk), 0.0f);
    ids.assign(count, -1);
    log_probability.assign(count, 0.0f);
    log_sum.assign(count, 0.0f);
    logits.assign(count * kVocabulary, 0.0f);
    candidates.assign(count * kRoom, {});
    given_logit.assign(count, 0.0f);
    attention.assign(count * kSource, 0.0f);
    focus.assign(count, -1);
    focus_weight.assign(count, 0.0f);
    const int32_t denied[] = {7, 299};
    std::vector<Question> questions(count, {denied, 2, 3, kRoom, 1, 1, 0, 0, 0, {}});
    if (count > 1) {
      questions.back().draw = {0.8, std::nan(""), 0.5, std::nan(""), std::nan(""), 0.0,
                               double(kRoom)};
    }
    Request request{};
    request.sequences = request.outputs = static_cast<int64_t>(count);
    request.sequence = sequences.data();
    request.tokens = flat.data();
    request.mask = mask.data();
    request.question = questions.data();
    request.ids = ids.data();
    request.log_probability = log_probability.data();
    request.log_sum = log_sum.data();
    request.logits = logits.data();
    request.candidates = candidates.data();
    request.given_logit = given_logit.data();
    request.attention = attention.data();
    request.focus = focus.data();
    request.focus_weight = focus_weight.data();
    plan->Step(request);
    for (size_t s = 0; s < count; ++s) held[s] += static_cast<int64_t>(tokens[s].size());
  }

  std::vector<std::vector<float>> own;
  std::vector<void*> pages;
  std::vector<int64_t> held;
  std::vector<float> cross = std::vector<float>(kCross);
  std::vector<int32_t> ids, focus;
  std::vector<float> log_probability, log_sum, logits, given_logit, attention, focus_weight;
  std::vector<Likeliest> candidates;
};

bool SameBits(const float* a, const float* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

// Whether a sequence's logits and cache are the same alone, token by token, and with a neighbour;
// the other's memory is projected by a plan that does nothing else.
void CheckInvariance(Plan* plan, Plan* other, Plan* projector, const Model& model) {
  const CacheType cache = plan->shape().cache;
  Batch alone(1, cache), together(9, cache);
  plan->Project(model.memory.data(), kSource, alone.cross.data());
  projector->Project(model.memory.data(), kSource, together.cross.data());
  Expect(SameBits(alone.cross.data(), together.cross.data(), kCross), "projections differ");
  for (const int32_t token : {5, 6, 300}) alone.Step(plan, {{token}});
  std::vector<std::vector<int32_t>> tokens(9, {1, 2});
  tokens[4] = {5, 6, 300};
  together.Step(other, tokens);
  Expect(SameBits(alone.logits.data(), together.logits.data() + 4 * kVocabulary, kVocabulary),
         "logits differ");
  Expect(SameBits(alone.own[0].data(), together.own[4].data(), kOwn), "caches differ");
  Expect(alone.ids[0] == together.ids[4] && alone.ids[0] != 7, "ids differ");
  Expect(alone.log_probability[0] == together.log_probability[4], "log-probabilities differ");
  Expect(alone.given_logit[0] == together.given_logit[4] &&
             alone.given_logit[0] == alone.logits[3],
         "given logits differ");
  Expect(SameBits(alone.attention.data(), together.attention.data() + 4 * kSource, kSource),
         "attention differs");
  const float* weights = alone.attention.data();
  const float* most = std::max_element(weights, weights + kSource);
  Expect(alone.focus[0] == together.focus[4] && alone.focus[0] == most - weights &&
             alone.focus_weight[0] == *most && together.focus_weight[4] == *most,
         "focus differs");
  for (size_t i = 0; i < kRoom; ++i) {
    const Likeliest &a = alone.candidates[i], &b = together.candidates[4 * kRoom + i];
    Expect(a.id == b.id && a.logit == b.logit && a.id >= 0, "candidates differ");
  }
  Expect(alone.candidates[0].id == alone.ids[0], "the first candidate is the likeliest id");
  for (float logit : alone.logits) Expect(std::isfinite(logit), "logits must be finite");
}

void CheckRefusals(Plan* plan) {
  for (const int32_t token : {-1, kVocabulary}) {
    Batch batch(1, plan->shape().cache);
    bool refused = false;
    try {
      batch.Step(plan, {{token}});
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    Expect(refused, "a token outside the vocabulary must be refused");
  }
}

void CheckMany(Plan* plan) {
  Batch batch(3, plan->shape().cache);
  for (int i = 0; i < 30; ++i) batch.Step(plan, {{i}, {i + 1}, {i + 2}});
  plan->RunProducts(7, 2);
}

// Whether a source's memory is the same alone and with neighbours.
void CheckEncoder(Plan* plan, Plan* other) {
  std::vector<int32_t> tokens;
  std::vector<int64_t> counts;
  for (const int64_t count : {1, 40, 17, 38, 33, 5}) {
    counts.push_back(count);
    for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(7 * i % kVocabulary));
  }
  std::vector<float> together(tokens.size() * kWidth), alone(together.size());
  plan->Encode({static_cast<int>(counts.size()), counts.data(), tokens.data()}, together.data());
  size_t row = 0;
  for (const int64_t& count : counts) {
    other->Encode({1, &count, tokens.data() + row}, alone.data() + row * kWidth);
    row += size_t(count);
  }
  Expect(SameBits(together.data(), alone.data(), alone.size()), "memories differ");
  for (float element : alone) Expect(std::isfinite(element), "memories must be finite");
}

void Run() {
  const Model model;
  const int best = static_cast<int>(BestInstructionSet());
  Expect(best > 0, "this machine lacks AVX2 or FMA");
  for (const auto& [precision, cache] : {std::pair(Precision::kInt8, CacheType::kHalf),
                                         std::pair(Precision::kFloat, CacheType::kFloat)}) {
    const Shape shape = {precision, cache,       kWidth,       kHeads, kWidth / kHeads,
                         1,         kVocabulary, kMaxPositions};
    Plan reference(shape, InstructionSet::kAvx2, 1, {});
    model.Build(&reference);
    CheckRefusals(&reference);
    Plan reference_encoder(shape, InstructionSet::kAvx2, 1, {});
    BuildEncoder(model, &reference_encoder);
    for (int set = 1; set <= best; ++set) {
      const InstructionSet isa = static_cast<InstructionSet>(set);
      for (const int threads : {1, 2, 3, 5}) {
        Plan plan(shape, isa, threads, {0});
        model.Build(&plan);
        Plan projector(shape, isa, threads, {});
        BuildProjector(model, &projector);
        CheckInvariance(&reference, &plan, &projector, model);
        CheckMany(&plan);
        Plan encoder(shape, isa, threads, {});
        BuildEncoder(model, &encoder);
        CheckEncoder(&encoder, &reference_encoder);
      }
    }
  }
}

}  // namespace
}  // namespace splitformer

int main() {
  try {
    splitformer::Run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "self-test: %s\n", error.what());
    return 1;
  }
  return 0;
}
