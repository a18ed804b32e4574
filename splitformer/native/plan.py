"""A plan: a packed model, the threads that run it, and the calls into the library."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.native.arrays import as_taken, norm_of, require, weights_of
from splitformer.native.binding import (
    InstructionSet,
    Library,
    address,
    instruction_set,
    library,
)
from splitformer.native.operations import (
    ACTIVATIONS,
    CACHES,
    ELEMENTS,
    OVERS,
    PRECISIONS,
    SOURCES,
    TARGETS,
    Attend,
    Cache,
    Description,
    FloatArray,
    Linear,
    Operation,
    Outputs,
    Precision,
    Questions,
    Rows,
    Vocabulary,
)

_PROFILE = ("rows", "linear", "own_attention", "cross_attention", "vocabulary", "waiting")
_FRAMES = 3  # that a convolution sees at once: kFrames of src/hear.cc
_CHUNK = 256  # kChunk of src/vocabulary.h
NO_QUESTIONS = Questions()
_NONE: FloatArray = np.empty(0, np.float32)


class Plan:
    """A packed model and the threads that run it. Calls take turns.

    Args:
        description: The model; its tables are kept, its weights are packed and let go. Of those in
            mapped files no pages are kept in memory.
        precision: How weights are held and multiplied.
        threads: Members of the team, the caller's thread included.
        isa: Which micro-kernels to use; None: as `instruction_set` says.
        cores: Cores to pin the team's own threads to; empty: wherever the system puts them.
        cache: How keys and values are held; a decoder's matter only.

    Raises:
        NativeUnavailableError: The library cannot be used here.
        ValueError: The description does not fit together.
    """

    def __init__(
        self,
        description: Description,
        precision: Precision,
        threads: int,
        isa: InstructionSet | None = None,
        cores: Sequence[int] = (),
        cache: Cache = "f32",
    ) -> None:
        self._handle = None
        if threads < 1:
            raise ValueError(f"threads: must be at least 1, got {threads}")
        self._library: Library = library()
        self.instruction_set = instruction_set() if isa is None else isa
        if not InstructionSet.NONE < self.instruction_set <= self._library.best:
            raise ValueError(f"isa: this machine has no {self.instruction_set.name}")
        tokens, d_model = description.tokens, description.d_model
        self.vocabulary_size = 0 if tokens is None else tokens.shape[0]
        pinned = (ctypes.c_int32 * len(cores))(*cores)
        self._handle = self._library.plan_create(
            *(PRECISIONS[precision], CACHES[cache], self.instruction_set),
            *(threads, pinned, len(cores)),
            *(d_model, description.heads, description.head_size, description.layers),
            *(self.vocabulary_size, description.max_positions),
        )
        if self._handle is None:
            raise ValueError(self._library.error().decode())
        self._tables = (None if tokens is None else as_taken(tokens), description.positions)
        self._d_model, self._heads = d_model, description.heads
        try:
            self._build(description, d_model)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the threads and free the memory; the plan cannot be used any more."""
        if self._handle is not None:
            self._library.plan_destroy(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()

    def mask(self, never: Iterable[int]) -> array[float]:
        """Return the mask that rules out some ids, for `step`; IndexError if one does not exist."""
        mask, ids = array("f", bytes(4 * -(-self.vocabulary_size // _CHUNK) * _CHUNK)), list(never)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocabulary_size:
            raise IndexError(f"never: ids must be below {self.vocabulary_size}, got {ids}")
        for token in ids:
            mask[token] = -math.inf
        return mask

    def step(
        self,
        sequences: array[int],
        tokens: array[int],
        outputs: int,
        questions: Questions = NO_QUESTIONS,
    ) -> Outputs:
        """Compute the new rows of some sequences; their caches are written in place.

        Args:
            sequences: Seven int64 per sequence, as `Sequence` in src/plan.h: address of the
                addresses of its pages and positions that they have room for, positions it holds,
                new positions, address and length of the projected memory, outputs (from how many
                of the last new positions).
            tokens: New tokens of all sequences, int32.
            outputs: Sum of the sequences' outputs.
            questions: What is asked about the outputs.

        Raises:
            ValueError: A token, position or size is out of range; nothing has been written.
        """
        asked, sums = questions, outputs if questions.log_probabilities else 0
        result = Outputs(
            array("i", bytes(4 * outputs)),
            array("f", bytes(4 * sums)),
            array("f", bytes(4 * sums)),
            np.empty((asked.rows, self.vocabulary_size), np.float32) if asked.rows else _NONE,
            array("q", bytes(8 * asked.candidates)),
            array("f", bytes(4 * outputs if asked.given else 0)),
            np.empty(sum(asked.lengths), np.float32) if asked.lengths else _NONE,
            array("i", bytes(4 * outputs)) if asked.focus else None,
            array("f", bytes(4 * outputs)) if asked.focus else None,
        )
        request = array(
            "q",
            [
                *(len(sequences) // 7, outputs, _at(sequences), _at(tokens)),
                *(_at(asked.mask), _at(asked.records)),
                *(_at(result.ids), _at(result.log_probabilities), _at(result.log_sums)),
                *(_of(result.logits), _at(result.candidates)),
                *(_at(result.given), _of(result.attention)),
                *(_at(result.focus), _at(result.focus_weights), 0),
            ],
        )
        self._library.check(self._library.plan_step(self._open(), _at(request)))
        return result

    def encode(self, counts: array[int], tokens: array[int]) -> FloatArray:
        """Run an encoder over some sources.

        Args:
            counts: Tokens of each source, int64.
            tokens: All of them, int32.

        Returns:
            Memories, one behind the other, (sum of counts, D).

        Raises:
            ValueError: A token or a size is out of range.
        """
        memory = np.empty((len(tokens), self._d_model), np.float32)
        code = self._library.plan_encode(
            self._open(), len(counts), _at(counts), _at(tokens), None, address(memory)
        )
        self._library.check(code)
        return memory

    def hear(self, features: FloatArray) -> FloatArray:
        """Run an encoder of audio over one source.

        Args:
            features: (frames, channels), contiguous.

        Returns:
            Its memory, (rows, D), each row of as many frames as the convolutions' strides say.

        Raises:
            ValueError: A size is out of range.
        """
        require(features, (features.shape[0], self._channels), "features")
        rows, rest = divmod(features.shape[0], self._frames_per_row)
        if rest:
            raise ValueError(f"features: must be a multiple of {self._frames_per_row} frames")
        memory, counts = np.empty((rows, self._d_model), np.float32), array("q", [rows])
        code = self._library.plan_encode(
            self._open(), 1, _at(counts), None, address(features), address(memory)
        )
        self._library.check(code)
        return memory

    def project(self, memory: FloatArray, out: int) -> None:
        """Project a memory (S, D) into keys and values of all layers.

        Args:
            memory: Contiguous float32.
            out: Address of (L, 2, H, S, K), of the cache's type.
        """
        require(memory, (memory.shape[0], self._d_model), "memory")
        self._library.check(
            self._library.plan_project(self._open(), address(memory), memory.shape[0], out)
        )

    def products(self, rows: int, iterations: int) -> None:
        """Run the step's bare matrix products and barriers: what no step can beat."""
        self._library.check(self._library.plan_products(self._open(), rows, iterations))

    def profile(self, on: bool) -> dict[str, float]:
        """Return the first thread's cycles by kind of work since the last call; start or stop."""
        cycles = (ctypes.c_double * len(_PROFILE))()
        self._library.check(self._library.plan_profile(self._open(), on, cycles))
        return dict(zip(_PROFILE, cycles, strict=True))

    def _open(self) -> int:
        if self._handle is None:
            raise ValueError("plan: is closed")
        return int(self._handle)

    def _build(self, description: Description, d_model: int) -> None:
        call, handle = self._library, self._handle
        tokens, positions = self._tables
        if positions is not None:
            require(positions, (description.max_positions, d_model), "positions")
        scale = description.embedding_scale
        element = 0 if tokens is None else ELEMENTS[tokens.dtype.type]
        code = call.plan_embedding(handle, address(tokens), element, address(positions), scale)
        call.check(code)
        self._frames_per_row, self._channels = 1, 0
        for convolution in reversed(description.convolutions):
            self._channels = convolution.weights.weight.shape[1] // _FRAMES
            self._frames_per_row *= convolution.stride
        for convolution in description.convolutions:
            inputs = convolution.weights.weight.shape[1]
            parts, _kept = weights_of((convolution.weights,), inputs)
            code = call.plan_convolution(handle, parts, inputs // _FRAMES, convolution.stride)
            call.check(code)
        if description.projection:
            parts, _kept = weights_of(description.projection, d_model)
            call.check(call.plan_projection(handle, parts, len(parts)))
        for operation in description.operations:
            self._add(operation, d_model)
        call.check(call.plan_finish(handle))

    def _add(self, operation: Operation, d_model: int) -> None:
        call, handle = self._library, self._handle
        match operation:
            case Rows(source, stored, prepared, target):
                norms = [norm_of(norm, d_model) for norm in (stored, prepared)]
                code = call.plan_rows(handle, SOURCES[source], *norms, TARGETS[target])
            case Linear(weights, activation, gated, segments):
                inputs = weights[0].weight.shape[1]
                parts, _kept = weights_of(weights, inputs)
                code = call.plan_linear(
                    *(handle, parts, len(parts), inputs),
                    *(ACTIVATIONS[activation], gated, segments),
                )
            case Attend(layer, over, scale, bias):
                distances = 0
                if bias is not None:
                    require(bias, (self._heads, bias.shape[1]), "bias")
                    distances = (bias.shape[1] + 1) // 2 if over == "source" else bias.shape[1]
                code = call.plan_attend(handle, layer, OVERS[over], scale, address(bias), distances)
            case Vocabulary(weights):
                parts, _kept = weights_of((weights,), d_model)
                code = call.plan_vocabulary(handle, parts)
        call.check(code)


def _at(values: array[int] | array[float] | None) -> int:
    """Address of an array's elements; 0 for none."""
    return values.buffer_info()[0] if values else 0


def _of(values: NDArray[Any] | None) -> int:
    """As `_at`, of another kind of array."""
    return 0 if values is None or not values.size else values.ctypes.data
