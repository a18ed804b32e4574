"""The decoder's step in C++, over the same states as `Decoder.step`.

It computes the same function with its own arithmetic, and makes a promise that torch does not: a
row's results and its keys and values are the same bits whatever else is in the step, however many
of a sequence's positions are computed at once, and whatever the number of threads.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from splitformer.model.cache import CrossCache, DecoderState, SelfCache
from splitformer.model.half import Half, half_of
from splitformer.model.native_questions import advanced_of, questions_of
from splitformer.model.plan import describe_decoder
from splitformer.model.rooms import Arrays
from splitformer.model.stepping import NOTHING, Advanced, Asked
from splitformer.native import (
    Cache,
    FloatArray,
    InstructionSet,
    Outputs,
    Plan,
    Precision,
    Question,
    Questions,
)

if TYPE_CHECKING:  # a decoder that torch holds is taken as well, and brings torch along itself
    from splitformer.model.decoder import Decoder

KERNEL = "native-3"
"""Part of the numerics fingerprint: changes whenever any result's bits do."""

_EVERY_LOGIT = Question(logits=True)
_ROOMS = {"f32": Arrays(np.float32), "f16": Arrays(np.float16)}


class NativeDecoder:
    """A loaded decoder, packed for the native library.

    Args:
        decoder: Where the weights come from; its embedding table is shared.
        precision: "int8" quantises weights per output and activations per row, to 8 bits each.
        threads: Threads of a step, the caller's included.
        cores: Cores to pin a step's other threads to; empty: none.
        isa: Which micro-kernels to use; None: the best, or what $SPLITFORMER_NATIVE says.
        cache: How keys and values are held; None: in 16 bits where weights are in 8.

    Raises:
        NativeUnavailableError: The library cannot be used here.

    Attributes:
        config: The architecture.
        kernel: Name of this arithmetic.
        batch_invariant: True: see the module.
        begins_beside: True: memories are projected by a plan of their own.
        element_bytes: Of an element of keys and values.
    """

    batch_invariant = True
    begins_beside = True
    kernel = KERNEL
    source_page = 1

    def __init__(
        self,
        decoder: Half | Decoder,
        precision: Precision,
        threads: int,
        cores: Sequence[int] = (),
        isa: InstructionSet | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.config = decoder.config
        self.precision = precision
        self.cache: Cache = cache or ("f16" if precision == "int8" else "f32")
        self._room = _ROOMS[self.cache]
        self.element_bytes = self._room.element_bytes
        self.threads = threads
        whole = describe_decoder(half_of(decoder))
        steps, projection = replace(whole, projection=()), replace(whole, operations=())
        self.plan = Plan(steps, precision, threads, isa, cores, self.cache)
        self._projector = Plan(projection, precision, threads, isa, (), self.cache)
        self._masks: dict[tuple[int, ...], array[float]] = {}

    def close(self) -> None:
        """Stop the threads and free the packed weights."""
        self.plan.close()
        self._projector.close()

    def begin(self, memory: ArrayLike) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once; beside steps."""
        source: FloatArray = np.ascontiguousarray(memory, np.float32)
        width, stack = self.config.d_model, self.config.decoder
        if source.ndim != 2 or source.shape[1] != width or not len(source):
            raise ValueError(f"memory: must be (S, {width}), got {source.shape}")
        shape = (stack.layers, 2, stack.heads, len(source), stack.head_size)
        cross = CrossCache(self._room.block(shape), self._room)
        self._projector.project(source, cross.address)
        return DecoderState(
            cross, SelfCache(stack.layers, stack.heads, stack.head_size, self._room)
        )

    def step(self, tokens: Sequence[Sequence[int]], states: Sequence[DecoderState]) -> FloatArray:
        """Compute the rows of new tokens, each sequence at its own position; as `Decoder.step`.

        Returns:
            Logits after the last new token of each sequence, (B, V).
        """
        many, asked = [1] * len(states), dict.fromkeys(range(len(states)), _EVERY_LOGIT)
        questions, _ = questions_of(asked, None, states, many, False)
        return self._run(tokens, states, many, questions).logits

    def advance(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        never: tuple[int, ...] = (),
        asked: Asked = NOTHING,
        outputs: Sequence[int] | None = None,
        log_probabilities: bool = True,
        focus: bool = False,
    ) -> Advanced:
        """Compute the rows of new tokens and choose the next token of each output.

        Args:
            tokens: For each sequence its new input tokens, at least one.
            states: The sequences' states; each grows by as many positions.
            never: Ids that no sequence may get.
            asked: What else is wanted.
            outputs: From how many of its last new positions each sequence wants an output; None:
                from the last one.
            log_probabilities: Compute them.
            focus: Say of all outputs where in the memory they look.

        Raises:
            ValueError: A token, or the number of positions, is out of range; no state has changed.
        """
        many = outputs or [1] * len(states)
        mask = self._mask(never)
        questions, told = questions_of(asked, mask, states, many, log_probabilities, focus)
        return advanced_of(self._run(tokens, states, many, questions), told, questions)

    def _mask(self, never: tuple[int, ...]) -> array[float] | None:
        mask = self._masks.get(never)
        if mask is None and never:
            mask = self._masks[never] = self.plan.mask(never)
        return mask

    def _run(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        many: Sequence[int],
        questions: Questions,
    ) -> Outputs:
        rows: list[array[int]] = []
        flat: list[int] = []
        most = self.config.max_positions
        for new, state, outputs in zip(tokens, states, many, strict=True):
            own = state.own
            sequence, count = own.sequence, len(new)
            length = sequence[2] = own.length
            if length + count > own.capacity or length < own.shared:
                own.reserve(min(length + count, most))
            if count != 1 or outputs != 1:
                sequence = sequence[:]
                sequence[3], sequence[6] = count, outputs
            rows.append(sequence)
            flat += new
        sequences = array("q", b"".join(rows))
        result = self.plan.step(sequences, array("i", flat), sum(many), questions)
        for new, state in zip(tokens, states, strict=True):
            state.own.length += len(new)
        return result
