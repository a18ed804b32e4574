// Compiled for plain x86-64: it must run, and say no, on machines without AVX2.
#include "cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels.h"

namespace splitformer {
namespace {

// F16C; older compilers' __builtin_cpu_supports does not know it.
bool HasHalfConversion() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// What the system saves of a thread's registers, by XGETBV.
uint64_t SavedState() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// AMX for 8 bits, which Linux lets a process use that has asked for it: all its threads, and what
// it forks. Containers' kernels, and those before 5.16, may refuse.
bool HasTiles() {
  constexpr unsigned kTiles = 1u << 24, kInt8Tiles = 1u << 25;  // leaf 7, EDX
  constexpr uint64_t kTileState = uint64_t{3} << 17;            // configuration and data
  constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) == 0 || (d & kInt8Tiles) == 0) {
    return false;
  }
  return (SavedState() & kTileState) == kTileState &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

InstructionSet BestInstructionSet() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasHalfConversion()) {
    return InstructionSet::kNone;
  }
  const bool vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (!vnni) return InstructionSet::kAvx2;
  return kInt8Amx != nullptr && HasTiles() ? InstructionSet::kAmx : InstructionSet::kVnni;
}

}  // namespace splitformer
