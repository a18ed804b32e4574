"""Encoder and decode step in C++: int8 or float products, everything fused, one team of threads.

It imports no torch. `available` says whether it can be used here, `reason` why not; the first of
these calls builds the library if that has not been done. `$SPLITFORMER_NATIVE` may be "off", or
"avx2", "vnni" or "amx" to choose the micro-kernels; results are the same bits either way.
"""

from splitformer.native.arrays import quantised
from splitformer.native.binding import (
    InstructionSet,
    NativeUnavailableError,
    available,
    instruction_set,
    reason,
)
from splitformer.native.drawing import Draw, drawn_place
from splitformer.native.halves import narrow, widen
from splitformer.native.operations import (
    PAGE_POSITIONS,
    Activation,
    Attend,
    Cache,
    Convolution,
    Description,
    FloatArray,
    Linear,
    Norm,
    Operation,
    Outputs,
    Over,
    Precision,
    Questions,
    Rows,
    StoredArray,
    Target,
    Vocabulary,
    Weights,
)
from splitformer.native.plan import Plan
from splitformer.native.questions import NO_QUESTION, Question
from splitformer.native.ranking import Continuations, continuations

__all__ = [
    "NO_QUESTION",
    "PAGE_POSITIONS",
    "Activation",
    "Attend",
    "Cache",
    "Continuations",
    "Convolution",
    "Description",
    "Draw",
    "FloatArray",
    "InstructionSet",
    "Linear",
    "NativeUnavailableError",
    "Norm",
    "Operation",
    "Outputs",
    "Over",
    "Plan",
    "Precision",
    "Question",
    "Questions",
    "Rows",
    "StoredArray",
    "Target",
    "Vocabulary",
    "Weights",
    "available",
    "continuations",
    "drawn_place",
    "instruction_set",
    "narrow",
    "quantised",
    "reason",
    "widen",
]
