// Compiled for plain x86-64: it must run, and say no, on machines without AVX2.
#include "cpu.h"

#include <cpuid.h>

namespace splitformer {
namespace {

// F16C; older compilers' __builtin_cpu_supports does not know it.
bool HasHalfConversion() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

InstructionSet BestInstructionSet() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasHalfConversion()) {
    return InstructionSet::kNone;
  }
  const bool vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  return vnni ? InstructionSet::kVnni : InstructionSet::kAvx2;
}

}  // namespace splitformer
