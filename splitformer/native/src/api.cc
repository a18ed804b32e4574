#include "api.h"

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "cpu.h"
#include "elements.h"
#include "plan.h"
#include "ranking.h"

using splitformer::Activation;
using splitformer::AttendOp;
using splitformer::CacheType;
using splitformer::Element;
using splitformer::InstructionSet;
using splitformer::Draw;
using splitformer::Likeliest;
using splitformer::Norm;
using splitformer::NormKind;
using splitformer::Over;
using splitformer::Plan;
using splitformer::Precision;
using splitformer::Request;
using splitformer::RowsOp;
using splitformer::Sequence;
using splitformer::Source;
using splitformer::Target;
using splitformer::Weights;

namespace {

thread_local std::string last_error;

// Runs `body`; exceptions must not cross into C.
template <class F>
int32_t Guarded(F&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

Plan* Of(void* plan) { return static_cast<Plan*>(plan); }

Norm NormOf(const splitformer_norm* from, int size) {
  if (from == nullptr) return {};
  return {static_cast<NormKind>(from->kind), from->epsilon, from->gain, from->shift, size};
}

std::vector<Weights> WeightsOf(const splitformer_weights* parts, int count) {
  std::vector<Weights> weights;
  for (int i = 0; i < count; ++i) {
    const splitformer_weights& part = parts[i];
    weights.push_back({part.weight, part.bias, static_cast<int>(part.width),
                       static_cast<Element>(part.element), part.scale, part.mapped != 0});
  }
  return weights;
}

// The binding writes both as arrays of int64.
static_assert(sizeof(Sequence) == 7 * sizeof(int64_t), "seven fields");
static_assert(sizeof(Request) == 16 * sizeof(int64_t), "sixteen fields");
static_assert(sizeof(splitformer::Question) == 104, "as the binding packs it");
static_assert(sizeof(Draw) == 7 * sizeof(double), "seven numbers");
static_assert(sizeof(Likeliest) == 2 * sizeof(int32_t), "a float and an int");

}  // namespace

int32_t splitformer_instruction_set() {
  return static_cast<int32_t>(splitformer::BestInstructionSet());
}

const char* splitformer_error() { return last_error.c_str(); }

void* splitformer_plan_create(int32_t precision, int32_t cache, int32_t isa, int32_t threads,
                              const int32_t* cores, int32_t core_count, int32_t d_model,
                              int32_t heads, int32_t head_size, int32_t layers,
                              int32_t vocabulary, int32_t max_positions) {
  Plan* plan = nullptr;
  Guarded([&] {
    const splitformer::Shape shape = {static_cast<Precision>(precision),
                                      static_cast<CacheType>(cache),
                                      d_model,
                                      heads,
                                      head_size,
                                      layers,
                                      vocabulary,
                                      max_positions};
    plan = new Plan(shape, static_cast<InstructionSet>(isa), threads,
                    std::vector<int>(cores, cores + core_count));
  });
  return plan;
}

void splitformer_plan_destroy(void* plan) { delete Of(plan); }

int32_t splitformer_plan_embedding(void* plan, const void* tokens, int32_t element,
                                   const float* positions, float scale) {
  return Guarded([&] {
    Of(plan)->SetEmbedding(tokens, static_cast<Element>(element), positions, scale);
  });
}

int32_t splitformer_plan_rows(void* plan, int32_t source, const splitformer_norm* stored,
                              const splitformer_norm* prepared, int32_t target) {
  return Guarded([&] {
    const int size = Of(plan)->shape().d_model;
    Of(plan)->Add(RowsOp{static_cast<Source>(source), NormOf(stored, size), NormOf(prepared, size),
                         static_cast<Target>(target)});
  });
}

int32_t splitformer_plan_linear(void* plan, const splitformer_weights* parts, int32_t count,
                                int32_t inputs, int32_t activation, int32_t gated,
                                int32_t segments) {
  return Guarded([&] {
    Of(plan)->AddLinear(WeightsOf(parts, count), inputs, static_cast<Activation>(activation),
                        gated != 0, segments);
  });
}

int32_t splitformer_plan_attend(void* plan, int32_t layer, int32_t over, float scale,
                                const float* bias, int32_t distances) {
  return Guarded([&] {
    const Over what = static_cast<Over>(over);
    const size_t each = size_t(what == Over::kSource ? 2 * distances - 1 : distances);
    const size_t size = bias == nullptr ? 0 : each * size_t(Of(plan)->shape().heads);
    Of(plan)->Add(AttendOp{layer, what, scale,
                           size == 0 ? std::vector<float>() : std::vector<float>(bias, bias + size),
                           distances});
  });
}

int32_t splitformer_plan_vocabulary(void* plan, const splitformer_weights* weights) {
  return Guarded([&] { Of(plan)->AddVocabulary(WeightsOf(weights, 1)[0]); });
}

int32_t splitformer_plan_convolution(void* plan, const splitformer_weights* weights,
                                     int32_t channels, int32_t stride) {
  return Guarded(
      [&] { Of(plan)->AddConvolution(WeightsOf(weights, 1)[0], channels, stride); });
}

int32_t splitformer_plan_projection(void* plan, const splitformer_weights* parts, int32_t count) {
  return Guarded([&] { Of(plan)->SetProjection(WeightsOf(parts, count)); });
}

int32_t splitformer_plan_finish(void* plan) {
  return Guarded([&] { Of(plan)->Finish(); });
}

int32_t splitformer_plan_step(void* plan, const void* request) {
  return Guarded([&] { Of(plan)->Step(*static_cast<const Request*>(request)); });
}

int32_t splitformer_plan_encode(void* plan, int32_t count, const int64_t* counts,
                                const int32_t* tokens, const float* features, float* memory) {
  return Guarded([&] { Of(plan)->Encode({count, counts, tokens, features}, memory); });
}

int32_t splitformer_plan_project(void* plan, const float* memory, int32_t rows, void* out) {
  return Guarded([&] { Of(plan)->Project(memory, rows, out); });
}

int32_t splitformer_plan_products(void* plan, int32_t rows, int32_t iterations) {
  return Guarded([&] { Of(plan)->RunProducts(rows, iterations); });
}

int32_t splitformer_quantise(int32_t element, const void* weight, int32_t rows, int32_t inputs,
                             int8_t* out, float* scale) {
  return Guarded([&] {
    const size_t count = size_t(inputs);
    std::vector<float> wide(count);
    for (int row = 0; row < rows; ++row) {
      const Weights one = {weight, nullptr, rows, static_cast<Element>(element)};
      splitformer::Widen(one.element, one.Row(row, inputs), count, wide.data());
      scale[row] = splitformer::QuantiseWeights(wide.data(), count, out + size_t(row) * count);
    }
  });
}

int32_t splitformer_draw(const void* draw, const double* values, const int32_t* ids,
                         int32_t count) {
  return splitformer::DrawPlace(*static_cast<const Draw*>(draw), values, ids, count, false);
}

int32_t splitformer_rank(const void* candidates, const float* log_sum, const double* before,
                         int32_t hypotheses, int32_t room, double* total, double* log_probability,
                         int32_t* hypothesis, int32_t* id, int32_t most) {
  const auto* pairs = static_cast<const splitformer::Likeliest*>(candidates);
  return splitformer::RankTogether({pairs, log_sum, before, hypotheses, room},
                                   {total, log_probability, hypothesis, id, most});
}

int32_t splitformer_plan_profile(void* plan, int32_t on, double* cycles) {
  return Guarded([&] {
    for (size_t i = 0; i < splitformer::kProfileSize; ++i) cycles[i] = Of(plan)->profile()[i];
    Of(plan)->SetProfile(on != 0);
  });
}
