"""How the next token is chosen, as one frozen value checked in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from splitformer.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Options of one generation; None means that the option is off.

    Attributes:
        max_new_tokens: Most tokens to produce; None: as many as there are positions.
        min_new_tokens: Fewest tokens before the end token is allowed.
        temperature: Divides the logits before sampling; 0 is greedy.
        top_k: Sample among the k likeliest tokens.
        top_p: Sample among the likeliest tokens whose probabilities reach p (Holtzman et al. 2020).
        seed: Key of the generator; token i depends on (seed, i) only. Sampling needs one.

    Raises:
        InvalidArgumentError: A value is out of range; names `options.<field>`.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_new_tokens, "max_new_tokens", "must be at least 1", lambda v: v >= 1)
        _require(self.min_new_tokens, "min_new_tokens", "must be at least 0", lambda v: v >= 0)
        _require(
            self.temperature,
            "temperature",
            "must be a finite number of at least 0",
            lambda v: math.isfinite(v) and v >= 0,
        )
        _require(self.top_k, "top_k", "must be at least 1", lambda v: v >= 1)
        _require(self.top_p, "top_p", "must be above 0 and at most 1", lambda v: 0 < v <= 1)
        _require(self.seed, "seed", "must be below 2**64", lambda v: 0 <= v < 2**64)
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise InvalidArgumentError.of(
                "options.min_new_tokens",
                f"must be at most max_new_tokens ({self.max_new_tokens})",
                self.min_new_tokens,
                reason="BAD_OPTION",
            )

    @property
    def sampled(self) -> bool:
        """True if tokens are drawn, False if the likeliest is taken."""
        if self.temperature is not None:
            return self.temperature > 0
        return self.top_k is not None or self.top_p is not None


def _require(value: float | None, name: str, rule: str, holds: Callable[[float], bool]) -> None:
    if value is not None and not holds(value):
        raise InvalidArgumentError.of(f"options.{name}", rule, value, reason="BAD_OPTION")
