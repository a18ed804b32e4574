"""The decoder on a GPU: single tokens by recorded steps, everything else by the readable model.

A step of many sequences is hundreds of small kernels, and launching them one by one takes longer
than running them. A CUDA graph launches them all at once, but only as recorded: for a fixed number
of rows and of pages. Steps are therefore rounded up to the next power of two of both, and recorded
when they first occur. On a CPU the same steps run unrecorded, which is how they are tested without
a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from splitformer.model.cache import DecoderState
from splitformer.model.decoder import Decoder
from splitformer.model.paged_step import PagedStep, Rows
from splitformer.model.pool import PagedCross, PagePool
from splitformer.model.stepping import NOTHING, Advanced, Asked
from splitformer.model.torch_decoder import PRECISION_NAMES, answers, asks_attention, positions_of
from splitformer.native import PAGE_POSITIONS

MOST_ROWS = 256
"""Rows of the largest recorded step; more are several steps."""

Step = Callable[[Tensor], Tensor]
"""Input as in `Rows`, on the CPU, to logits (B, V) on the device."""


class PagedDecoder:
    """A torch decoder as a `StepDecoder`, with all keys and values in one pool; see there.

    Args:
        decoder: In evaluation mode, on its device and in its precision.
        pool_bytes: Bytes for keys and values, taken at once.

    Attributes:
        device: Where it runs.
    """

    kernel = "torch-paged"
    batch_invariant = False
    begins_beside = False
    source_page = PAGE_POSITIONS

    def __init__(self, decoder: Decoder, pool_bytes: int) -> None:
        self.config = decoder.config
        like = decoder.embedding.tokens.weight.detach()
        stack = self.config.decoder
        self.element_bytes = like.element_size()
        self.precision = PRECISION_NAMES[like.dtype]
        self.device = like.device
        page_bytes = stack.layers * 2 * stack.width * PAGE_POSITIONS * self.element_bytes
        count = pool_bytes // page_bytes
        self.pool = PagePool(stack.layers, stack.heads, stack.head_size, like, count)
        self._decoder = decoder
        self._step = PagedStep(decoder, self.pool)
        self._steps: dict[tuple[int, int], Step] = {}

    @torch.inference_mode()
    def begin(self, memory: ArrayLike) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""
        kind = self._decoder.embedding.tokens.weight.dtype
        rows = torch.as_tensor(memory).to(self.device, kind)
        return DecoderState(PagedCross(self.pool, self._decoder.project(rows)), self.pool.cache())

    @torch.inference_mode()
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
        """Compute the rows of new tokens and choose the next token of each sequence."""
        if asks_attention(asked):
            shown: list[Tensor] = []
            logits = self._decoder.step(tokens, states, outputs, shown).float()
            positions = positions_of(states, outputs)
            return answers(logits, never, asked, log_probabilities, positions, shown)
        logits = self._logits(tokens, states, outputs or [1] * len(states))
        positions = positions_of(states, outputs)
        return answers(logits, never, asked, log_probabilities, positions, None)

    def close(self) -> None:
        """Forget the recorded steps."""
        self._steps.clear()

    def _logits(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        outputs: Sequence[int],
    ) -> Tensor:
        """Single tokens by recorded steps, the others by the model's own: (sum of outputs, V)."""
        parts: dict[int, Tensor] = {}
        single = [i for i, new in enumerate(tokens) if len(new) == 1]
        for first in range(0, len(single), MOST_ROWS):
            some = single[first : first + MOST_ROWS]
            logits = self._computed([tokens[i][0] for i in some], [states[i] for i in some])
            if len(some) == len(tokens):
                return logits
            parts |= zip(some, logits.split(1), strict=True)
        if rest := [i for i, new in enumerate(tokens) if len(new) > 1]:
            many = [outputs[i] for i in rest]
            several = [tokens[i] for i in rest], [states[i] for i in rest]
            logits = self._decoder.step(*several, many).float()
            parts |= zip(rest, logits.split(many), strict=True)
        return torch.cat([parts[i] for i in range(len(tokens))])

    def _computed(self, tokens: list[int], states: Sequence[DecoderState]) -> Tensor:
        """One row per sequence, at most `MOST_ROWS`: logits (B, V)."""
        for state in states:
            state.own.reserve(state.length + 1)
        rows, pages = _rounded(len(tokens)), _rounded(max(map(_pages, states)))
        logits = self._recorded(rows, pages)(Rows.of(tokens, states, self.pool, rows, pages))
        for state in states:
            state.own.commit(1)
        return logits[: len(tokens)]

    def _recorded(self, rows: int, pages: int) -> Step:
        step = self._steps.get((rows, pages))
        if step is None:
            step = self._plain if self.device.type == "cpu" else self._record(rows, pages)
            self._steps[rows, pages] = step
        return step

    def _plain(self, data: Tensor) -> Tensor:
        return self._step(Rows(data))

    def _record(self, rows: int, pages: int) -> Step:
        """Record a step of unused rows; replayed, it computes whatever its input says."""
        given = Rows.empty(rows, pages).to(self.device)
        warming = torch.cuda.Stream(self.device)
        warming.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(warming):
            for _ in range(2):  # libraries set themselves up before anything is recorded
                self._step(Rows(given))
        torch.cuda.current_stream(self.device).wait_stream(warming)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._step(Rows(given))

        def replay(data: Tensor) -> Tensor:
            given.copy_(data)
            graph.replay()
            return logits

        return replay


def _pages(state: DecoderState) -> int:
    """Pages that a state needs of the larger kind."""
    assert isinstance(state.cross, PagedCross)
    return max(len(state.own.addresses), len(state.cross.pages.addresses))


def _rounded(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
