// Rules about arguments, with what was given instead.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace splitformer {

inline void Require(bool holds, const std::string& rule) {
  if (!holds) throw std::invalid_argument(rule);
}

inline std::string Got(int64_t value) { return ", got " + std::to_string(value); }

}  // namespace splitformer
