"""The loop itself: one step of many targets at once.

A target goes in shifted right by one: what it has said so far, behind its start tokens, is the
input, and the last row's logits decide the next token. `Target` keeps both sides in step, so that
whatever has not been computed yet (a prefix, a forced token, the last token) is simply the next
input.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splitformer.generation.filters import suppress
from splitformer.generation.options import GenerationOptions
from splitformer.generation.selectors import select
from splitformer.model.decoder import DecoderState
from splitformer.model.stepping import StepDecoder
from splitformer.model.tokenizer import Detokenizer


class EndReason(enum.Enum):
    """Why a target or a generation has ended."""

    EOS = "eos"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Produced:
    """A token of the target.

    Attributes:
        id: Token id.
        text: Text that became certain with it.
        log_probability: Natural logarithm of its probability under the model, before filters.
    """

    id: int
    text: str
    log_probability: float


@dataclass(eq=False, slots=True)
class Target:
    """One target over one memory.

    Attributes:
        start: Decoder input before the first produced token: start or language token, then the
            caller's prefix. At least one.
        state: Keys and values.
        detokenizer: Turns produced ids into text; the prefix has been through it.
        max_positions: Longest decoder input.
        produced: Tokens so far, the prefix and the end token not among them.
        end: The produced end token, once there is one.
    """

    start: tuple[int, ...]
    state: DecoderState
    detokenizer: Detokenizer
    max_positions: int
    produced: list[Produced] = field(default_factory=list)
    end: Produced | None = None

    @property
    def pending(self) -> list[int]:
        """Inputs that have not been through the decoder yet; empty only once it has ended."""
        done = self.state.length
        produced = self.produced[max(0, done - len(self.start)) :]
        return [*self.start[done:], *(token.id for token in produced)]

    @property
    def full(self) -> bool:
        """True if there is no position left to take the last token as input."""
        return len(self.start) + len(self.produced) > self.max_positions

    @property
    def text(self) -> str:
        """The text so far."""
        ending = self.end.text if self.end else ""
        return "".join(token.text for token in self.produced) + ending


def step(
    decoder: StepDecoder,
    batch: Sequence[tuple[Target, GenerationOptions]],
    eos_id: int,
    never: tuple[int, ...],
) -> None:
    """Produce one token, or the end, of every target in the batch.

    Args:
        decoder: The model's decoder.
        batch: Targets that have not ended, each with its options.
        eos_id: The end token.
        never: Ids that no target may contain.
    """
    targets = [target for target, _ in batch]
    denied = [eos_id if len(t.produced) < o.min_new_tokens else -1 for t, o in batch]
    advanced = decoder.advance(
        [target.pending for target in targets],
        [target.state for target in targets],
        never,
        denied,
        [options.sampled for _, options in batch],
    )
    for row, (target, options) in enumerate(batch):
        token, log_probability = advanced.ids[row], advanced.log_probabilities[row]
        if options.sampled:
            token = _draw(advanced.logits[row], options, len(target.produced), never, denied[row])
            log_probability = float(advanced.logits[row][token]) - advanced.log_sums[row]
        _append(target, token, log_probability, eos_id)


def _draw(
    logits: Tensor, options: GenerationOptions, index: int, never: tuple[int, ...], denied: int
) -> int:
    ruled_out = never if denied < 0 else (*never, denied)
    return select(suppress(logits, torch.tensor(ruled_out)), options, index)


def _append(target: Target, token: int, log_probability: float, eos_id: int) -> None:
    if token == eos_id:
        target.end = Produced(token, target.detokenizer.finish(), log_probability)
    else:
        text = target.detokenizer.add(token)
        target.produced.append(Produced(token, text, log_probability))
