"""What a call on a session yields, whether it is computed or remembered."""

from __future__ import annotations

from dataclasses import dataclass

from splitformer.generation import EndReason, Hypotheses, Produced

IndexedToken = tuple[int, Produced]
"""A produced token behind its index in the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call ended; times are in seconds.

    Attributes:
        reason: Why.
        tokens: Streamed by this call.
        total_tokens: In the target.
        steps: Computed for this call.
        drafted: Tokens guessed for this call.
        accepted: Tokens of those that were right.
        seed: Key of the generator; 0 for greedy.
        closing: The end token, if the reason is EOS.
        queue_seconds: Waiting for the first turn.
        first_token_seconds: From the call to the first token.
        step_seconds: Mean time per step after the first.
        total_seconds: The whole call.
    """

    reason: EndReason
    tokens: int
    total_tokens: int
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    seed: int = 0
    closing: Produced | None = None
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    step_seconds: float = 0.0
    total_seconds: float = 0.0


Yielded = list[IndexedToken] | Hypotheses | Ended
"""What a call yields: tokens, then the candidates of a beam search, then the end."""
