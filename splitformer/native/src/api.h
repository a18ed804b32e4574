// The C interface that the Python binding calls. Functions that can fail return a negative number
// (or nullptr) and leave the reason for `splitformer_error`.
#pragma once

#include <cstdint>

#define SPLITFORMER_API extern "C" __attribute__((visibility("default")))

struct splitformer_norm {
  int32_t kind;
  float epsilon;
  const float* gain;
  const float* shift;  // nullptr: zeros
};

struct splitformer_weights {
  const void* weight;  // (width, inputs), of `element`
  const float* bias;   // (width) or nullptr
  const float* scale;  // (width) where weights are quantised, else nullptr
  int64_t width;
  int32_t element;  // as Element
  int32_t mapped;   // 1: in a mapped file, whose pages may be let go of
};

// The best instruction set of this machine, as InstructionSet; callable on any x86-64.
SPLITFORMER_API int32_t splitformer_instruction_set();

// Why the last call on this thread failed.
SPLITFORMER_API const char* splitformer_error();

SPLITFORMER_API void* splitformer_plan_create(int32_t precision, int32_t cache, int32_t isa,
                                              int32_t threads, const int32_t* cores,
                                              int32_t core_count, int32_t d_model, int32_t heads,
                                              int32_t head_size, int32_t layers,
                                              int32_t vocabulary, int32_t max_positions);
SPLITFORMER_API void splitformer_plan_destroy(void* plan);

SPLITFORMER_API int32_t splitformer_plan_embedding(void* plan, const void* tokens, int32_t element,
                                                   const float* positions, float scale);
SPLITFORMER_API int32_t splitformer_plan_rows(void* plan, int32_t source,
                                              const splitformer_norm* stored,
                                              const splitformer_norm* prepared, int32_t target);
SPLITFORMER_API int32_t splitformer_plan_linear(void* plan, const splitformer_weights* parts,
                                                int32_t count, int32_t inputs, int32_t activation,
                                                int32_t gated, int32_t segments);
SPLITFORMER_API int32_t splitformer_plan_attend(void* plan, int32_t layer, int32_t over,
                                                float scale, const float* bias, int32_t distances);
SPLITFORMER_API int32_t splitformer_plan_vocabulary(void* plan, const splitformer_weights* weights);
SPLITFORMER_API int32_t splitformer_plan_convolution(void* plan, const splitformer_weights* weights,
                                                     int32_t channels, int32_t stride);
SPLITFORMER_API int32_t splitformer_plan_projection(void* plan, const splitformer_weights* parts,
                                                    int32_t count);
SPLITFORMER_API int32_t splitformer_plan_finish(void* plan);

// A step; `request` is laid out like `Request`, in fourteen fields of 64 bits.
SPLITFORMER_API int32_t splitformer_plan_step(void* plan, const void* request);

// The encoder; the arguments are those of `Sources`.
SPLITFORMER_API int32_t splitformer_plan_encode(void* plan, int32_t count, const int64_t* counts,
                                                const int32_t* tokens, const float* features,
                                                float* memory);

SPLITFORMER_API int32_t splitformer_plan_project(void* plan, const float* memory, int32_t rows,
                                                 void* out);
SPLITFORMER_API int32_t splitformer_plan_products(void* plan, int32_t rows, int32_t iterations);
SPLITFORMER_API int32_t splitformer_plan_profile(void* plan, int32_t on, double* cycles);

// Quantises weights as plans do: rows of `inputs` elements to `out` and a scale each.
SPLITFORMER_API int32_t splitformer_quantise(int32_t element, const void* weight, int32_t rows,
                                             int32_t inputs, int8_t* out, float* scale);

// Rounds `count` floats to 16 bits, to nearest, ties to even; and back. NaNs keep their upper bits.
SPLITFORMER_API void splitformer_narrow(const float* from, int64_t count, void* to);
SPLITFORMER_API void splitformer_widen(const void* from, int64_t count, float* to);

// Draws from tokens that were ranked elsewhere; `draw` is laid out like `Draw`, in seven numbers.
// What `DrawPlace` returns.
SPLITFORMER_API int32_t splitformer_draw(const void* draw, const double* values,
                                         const int32_t* ids, int32_t count);

// Ranks the continuations of hypotheses together; the arguments are those of `Hypotheses` and
// `Continuations`. What `RankTogether` returns.
SPLITFORMER_API int32_t splitformer_rank(const void* candidates, const float* log_sum,
                                         const double* before, int32_t hypotheses, int32_t room,
                                         double* total, double* log_probability,
                                         int32_t* hypothesis, int32_t* id, int32_t most);

// Kernels one by one, for the tests. `sums` and `out` are (rows, columns rounded up to 16); `operand`
// has room for rows rounded up to 16, of 4 bytes for each of the inputs rounded up to 32.
SPLITFORMER_API int32_t splitformer_probe_linear(int32_t precision, int32_t isa, const float* x,
                                                 int32_t rows, int32_t inputs, const float* weight,
                                                 const float* bias, int32_t width, uint8_t* operand,
                                                 float* scales, int32_t* sums, float* out);
SPLITFORMER_API void splitformer_probe_norm(int32_t isa, const splitformer_norm* norm,
                                            const float* x, int32_t size, float* out);
SPLITFORMER_API void splitformer_probe_activation(int32_t isa, int32_t activation, float* x,
                                                  int32_t count);
// Returns the first of the likeliest ids; the largest logit and the sum of exponentials of all go to
// `largest` and `sum`. `count` is a multiple of 16.
SPLITFORMER_API int32_t splitformer_probe_logits(int32_t isa, const float* logits,
                                                 const float* mask, int32_t count, float* largest,
                                                 float* sum);
SPLITFORMER_API void splitformer_probe_attention(int32_t cache, const float* query,
                                                 const float* keys, const float* values,
                                                 int32_t positions, int32_t width, float scale,
                                                 const float* bias, int32_t distances, float* out);
