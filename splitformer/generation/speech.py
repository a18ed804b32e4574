"""What targets of models of speech keep to (Whisper; Radford et al. 2022, section 4.5).

Times come in pairs around what was said, do not go back, and begin early; and where a time is more
likely than any text, it is a time that comes. The definitions are those of Hugging Face
Transformers' `WhisperTimeStampLogitsProcessor`, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitformer.generation.filters import Row, suppress
from splitformer.model.cache import DecoderState
from splitformer.model.speech import Speech
from splitformer.model.stepping import RULED_OUT, StepDecoder
from splitformer.native import Question


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """The rules of one model.

    Attributes:
        first_time_id: Token of time 0; all ids from there on are times.
        no_times_id: In a decoder's first input it says that no times shall be marked.
        eos_id: The end token; all ids below it are text.
        latest_begin: Largest time that a target may begin with, counted from 0; None: any.
        never_first: Ids that no target may begin with.
    """

    first_time_id: int
    no_times_id: int
    eos_id: int
    latest_begin: int | None = None
    never_first: tuple[int, ...] = ()

    @classmethod
    def of(cls, speech: Speech, eos_id: int) -> SpeechRules:
        """Return the rules of a model."""
        return cls(
            speech.first_time_id,
            speech.no_times_id,
            eos_id,
            speech.latest_begin,
            speech.never_first,
        )

    def times(self, start: Sequence[int]) -> bool:
        """True if times shall be marked in a target that begins so."""
        return self.no_times_id not in start

    def bear_on(self, start: Sequence[int], produced: int) -> bool:
        """True if they may change what comes next."""
        return self.times(start) or not produced

    def apply(self, logits: Row, start: Sequence[int], produced: Sequence[int]) -> Row:
        """Rule out what may not come next: (V,) -> (V,).

        Args:
            logits: What other filters have left.
            start: The decoder's first input.
            produced: Ids so far.
        """
        if not produced:
            logits = suppress(logits, self.never_first)
        if not self.times(start):
            return logits
        logits = logits.copy()
        logits[self.no_times_id] = RULED_OUT
        self._keep_pairs(logits, produced)
        self._keep_order(logits, produced)
        if not produced:
            self._begin(logits)
        self._prefer_times(logits)
        return logits

    def _keep_pairs(self, logits: Row, produced: Sequence[int]) -> None:
        """Behind a pair comes text, behind half of one its other half or the end."""
        if not produced or not self._is_time(produced[-1]):
            return
        if len(produced) < 2 or self._is_time(produced[-2]):
            logits[self.first_time_id :] = RULED_OUT
        else:
            logits[: self.eos_id] = RULED_OUT

    def _keep_order(self, logits: Row, produced: Sequence[int]) -> None:
        """A pair's second half may repeat its first; apart from that every time is later."""
        times = [token for token in produced if self._is_time(token)]
        if times:
            half = self._is_time(produced[-1]) and not (
                len(produced) < 2 or self._is_time(produced[-2])
            )
            earliest = times[-1] + (not half)
            logits[self.first_time_id : earliest] = RULED_OUT

    def _begin(self, logits: Row) -> None:
        """A target begins with a time, and an early one."""
        logits[: self.first_time_id] = RULED_OUT
        if self.latest_begin is not None:
            logits[self.first_time_id + self.latest_begin + 1 :] = RULED_OUT

    def _prefer_times(self, logits: Row) -> None:
        """Rule out all else if times together are likelier than any one of it."""
        times, text = logits[self.first_time_id :], logits[: self.first_time_id]
        if _log_sum(times) > text.max():
            text[:] = RULED_OUT

    def _is_time(self, token: int) -> bool:
        return token >= self.first_time_id


def likeliest_of(
    decoder: StepDecoder, state: DecoderState, token: int, among: Sequence[int]
) -> int:
    """Feed a sequence its first token, and return the likeliest of some ids to come next."""
    answer = decoder.advance([[token]], [state], asked={0: Question(logits=True)})
    ids = sorted(among)
    return ids[int(answer.logits[0][ids].argmax())]


def _log_sum(logits: Row) -> float:
    """Logarithm of the sum of exp(logit); minus infinity if all are ruled out."""
    largest = float(logits.max())
    if largest == RULED_OUT:
        return RULED_OUT
    return largest + float(np.log(np.exp(logits - largest).sum()))
