"""What a model of speech must be told besides its audio, and how it marks times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splitformer.model.audio.features import LogMel

TRANSCRIBE = "transcribe"


@dataclass(frozen=True, slots=True)
class Speech:
    """A model of speech, apart from its Transformer.

    Its targets begin with a start token, a language, a task, and a token that says that no times
    shall be marked, unless they shall.

    Attributes:
        features: What its encoder takes in.
        languages: Language to its token; empty if it knows one only.
        tasks: Task to its token; empty if it knows transcribing only.
        no_times_id: The token that says that no times shall be marked; those of times follow it.
        latest_begin: Largest time that a target may begin with, so counted; None: any.
        never_first: Ids that no target may begin with.
    """

    features: LogMel
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    no_times_id: int
    latest_begin: int | None = None
    never_first: tuple[int, ...] = ()

    @property
    def first_time_id(self) -> int:
        """Token of time 0."""
        return self.no_times_id + 1

    @property
    def time_seconds(self) -> float:
        """From one time token to the next: a row of the memory."""
        features = self.features
        return 2 * features.hop / features.sample_rate

    @property
    def detects(self) -> bool:
        """True if there is a language to find out."""
        return bool(self.languages)

    def told(self, start: Sequence[int]) -> tuple[str, bool]:
        """Return the task that a decoder's first input names, and whether times are marked."""
        named = [task for task, token in self.tasks.items() if token in start]
        return (*named, TRANSCRIBE)[0], self.no_times_id not in start

    def behind_language(self, task: str, times: bool) -> tuple[int, ...]:
        """Return what follows the language in the decoder's first input; the task must be known."""
        tasks = (self.tasks[task],) if self.tasks else ()
        return (*tasks, *(() if times else (self.no_times_id,)))
