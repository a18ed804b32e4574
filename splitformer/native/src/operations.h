// What plans are made of: a model's shape and its operations.
#pragma once

#include <variant>
#include <vector>

#include "matrix.h"
#include "rows.h"

namespace splitformer {

struct Shape {
  Precision precision;
  CacheType cache;
  int d_model;
  int heads;
  int head_size;
  int layers;
  int vocabulary;
  int max_positions;

  int inner() const { return heads * head_size; }  // width of queries, keys and values
};

// Where a row operation starts from.
enum class Source : int32_t {
  kEmbedding = 0,  // the residual stream becomes the embedded token
  kResidual = 1,   // the last linear map's output is added to the residual stream
  kAttention = 2,  // attention's output
  kLinear = 3,     // the last linear map's output
};

// Where a row operation leads to.
enum class Target : int32_t {
  kOperand = 0,  // the next map's operand
  kOutputs = 1,  // the same, of the rows from which something is asked; the others are dropped
  kMemory = 2,   // the encoder's output
};

// Row by row: take the source, normalise it for good (`stored`), normalise it once more for what
// comes next only (`prepared`), and make it the next map's operand or the encoder's output.
struct RowsOp {
  Source source;
  Norm stored;
  Norm prepared;
  Target target;
  int width = 0;  // of the source; set by the plan
};

// A linear map of the operand. Parts stand side by side; gated: activation(first) * second.
struct LinearOp {
  Matrix matrix;
  Activation activation;
  bool gated;
  int segments;  // if attention is next: 3 for query, key and value, 1 for a query; else 0
};

// What the last linear map's queries attend over.
enum class Over : int32_t {
  kOwn = 0,     // the sequence's positions so far; new keys and values are written first
  kMemory = 1,  // the sequence's memory
  kSource = 2,  // all rows of the source, before and behind: in encoders
};

// Attention; `bias` is (heads, distances), over a source (heads, 2 * distances - 1), or empty: see
// attention.h and source_attention.h.
struct AttendOp {
  int layer;
  Over over;
  float scale;
  std::vector<float> bias;
  int distances;
};

// The output map, with what is asked of its logits.
struct VocabularyOp {
  Matrix matrix;
};

// A convolution over three frames and GELU, before an encoder's operations; always in floats.
struct Convolution {
  Matrix matrix;  // of three frames side by side
  int channels;   // of a frame
  int stride;     // frames from one row to the next
  int width;
};

using Op = std::variant<RowsOp, LinearOp, AttendOp, VocabularyOp>;

}  // namespace splitformer
