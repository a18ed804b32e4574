// Compiled for plain x86-64: it must run, and say no, on machines without AVX2.
#include "cpu.h"

namespace splitformer {

InstructionSet BestInstructionSet() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return InstructionSet::kNone;
  }
  const bool vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  return vnni ? InstructionSet::kVnni : InstructionSet::kAvx2;
}

}  // namespace splitformer
