// What this machine can run.
#pragma once

#include "types.h"

namespace splitformer {

// The best instruction set of this machine; kNone if it lacks AVX2, FMA or F16C.
InstructionSet BestInstructionSet();

}  // namespace splitformer
