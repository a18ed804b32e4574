"""What the project wants of its figures, and where is written why one falls short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for one figure.

    Attributes:
        figure: Its name, as benchmarks print it.
        bound: The value to reach.
        record: Name of the decision record that has the profile of what is in its way.
        at_most: True if less is better.
    """

    figure: str
    bound: float
    record: str = ""
    at_most: bool = False

    def met(self, value: float) -> bool:
        """True if a value is as good as wanted, to the three digits that are shown."""
        value = float(f"{value:.3g}")
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"


PRODUCTS = "0045-what-a-row-waits-for"
PATH = "0046-what-a-request-costs-its-loops"
DRAWS = "0049-work-beside-a-matrix-unit"
MODES = "0050-a-question-that-a-sequence-keeps"
GUESSES = "0051-guesses-where-the-model-looks"
LAYOUT = "0037-an-encoder-that-gives-way"
ENCODER = "0028-what-surrounds-the-products"
HAND_OFF = "0021-where-a-hand-off-spends-its-time"

GOALS = (
    Goal("decode.b1.vs_ctranslate2", 6, PRODUCTS),
    Goal("decode.b8.vs_ctranslate2", 4, PRODUCTS),
    Goal("decode.b32.vs_ctranslate2", 2.2, PRODUCTS),
    Goal("decode.b64.vs_ctranslate2", 1.8, PRODUCTS),
    Goal("decode.b1.vs_floor", 0.8, PRODUCTS),
    Goal("decode.b8.vs_floor", 0.7, PRODUCTS),
    Goal("decode.b32.vs_floor", 0.7, PRODUCTS),
    Goal("decode.b64.vs_floor", 0.7, PRODUCTS),
    Goal("decode.int8_error_vs_ctranslate2", 1, PRODUCTS, at_most=True),
    Goal("serve.s16.vs_ctranslate2_server", 10, PATH),
    Goal("serve.s32.vs_ctranslate2_server", 10, PATH),
    Goal("serve.s16.vs_ctranslate2_batching_server", 3, PATH),
    Goal("serve.s32.vs_ctranslate2_batching_server", 3, PATH),
    Goal("serve.s32.vs_ctranslate2_offline", 1.5, PATH),
    Goal("serve.s64.vs_ctranslate2_offline", 1.2, PATH),
    Goal("serve.s32.ttft_vs_batching_server", 0.1, PATH, at_most=True),
    Goal("serve.s16.itl_p99_over_p50", 3, PATH, at_most=True),
    Goal("serve.s32.itl_p99_over_p50", 3, PATH, at_most=True),
    Goal("split_tax.added_ms", 3, PATH, at_most=True),
    Goal("split_tax.added_ttft_ms", 3, PATH, at_most=True),
    Goal("split_tax.s32.throughput_ratio", 0.95, PATH),
    Goal("idle.s1000.grown_over_counted", 1.1, at_most=True),
    Goal("invariance.differing_bits", 0, at_most=True),
    Goal("modes.beam5.b8.vs_ctranslate2", 1.5, MODES),
    Goal("modes.beam5.b32.vs_ctranslate2", 1.5, MODES),
    Goal("modes.sampling_vs_greedy", 0.9, DRAWS),
    Goal("modes.logprobs_vs_plain", 0.95, DRAWS),
    Goal("modes.mixed_vs_greedy", 0.8, MODES),
    Goal("speculative.overlap60_speedup", 1.5, GUESSES),
    Goal("speculative.overlap30_speedup", 1.2, GUESSES),
    Goal("speculative.plain_speedup", 0.98, GUESSES),
    Goal("speculative.differing_tokens", 0, at_most=True),
    Goal("encode.vs_hf", 5, ENCODER),
    Goal("encode.vs_ctranslate2", 1.5, ENCODER),
    Goal("encode.vs_floor", 0.7, PRODUCTS),
    Goal("handoff.reference_mb_s", 400, HAND_OFF),
    Goal("handoff.shm_mb_s", 4000, HAND_OFF),
    Goal("handoff.sentence_ms", 1.5, HAND_OFF, at_most=True),
    Goal("isolation.itl_p99_ratio", 1.3, LAYOUT, at_most=True),
    Goal("isolation.idle_vs_alone_p99", 1.1, LAYOUT, at_most=True),
    Goal("fanout.encode_work_ratio", 1.1, at_most=True),
)


def compared(figures: Mapping[str, float]) -> Iterator[tuple[Goal, float]]:
    """Yield the goals whose figures were measured, each with its value."""
    return ((goal, figures[goal.figure]) for goal in GOALS if goal.figure in figures)
