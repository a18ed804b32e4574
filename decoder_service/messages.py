"""From the decoder service's own values to protobuf messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from decoder_service.answers import Ended, IndexedToken, Yielded
from decoder_service.interaction import Part as Interacted
from decoder_service.steers import Rewind
from splitformer.generation import (
    Details,
    EndReason,
    Hypothesis,
    Produced,
)
from splitformer.v1 import decoder_service_pb2 as pb

Part = TypeVar("Part", pb.GenerateResponse, pb.DecodeResponse)

_REASONS = {
    EndReason.EOS: pb.END_REASON_EOS,
    EndReason.LENGTH: pb.END_REASON_LENGTH,
    EndReason.STOP: pb.END_REASON_STOP,
    EndReason.CANCELLED: pb.END_REASON_CANCELLED,
}


def score_message(scored: Sequence[Produced]) -> pb.ScoreResponse:
    """Write the tokens of a target that was scored."""
    return pb.ScoreResponse(
        tokens=[token_message(each) for each in enumerate(scored)],
        log_probability=sum(token.log_probability for token in scored),
    )


def interact_message(part: Interacted) -> pb.InteractResponse:
    """Write what an interaction yields."""
    message = pb.InteractResponse()
    if isinstance(part, Rewind):
        message.rewound.index = part.index
    elif isinstance(part, Ended):
        message.end.CopyFrom(end_message(part))
    else:
        _write_all(part, message.tokens)
    return message


def part_message(part: Yielded, message: Part) -> Part:
    """Write what a generation yields into an empty message, and return that."""
    if isinstance(part, list):
        _write_all(part, message.tokens)
    elif isinstance(part, Ended):
        message.end.CopyFrom(end_message(part))
    else:
        message.hypotheses.hypotheses.extend(map(_hypothesis_message, part))
    return message


def _write_all(tokens: Sequence[IndexedToken], message: pb.Tokens) -> None:
    add = message.tokens.add
    for index, token in tokens:
        _write(index, token, add())


def token_message(indexed: IndexedToken) -> pb.Token:
    """Write one token."""
    message = pb.Token()
    _write(*indexed, message)
    return message


def _hypothesis_message(hypothesis: Hypothesis) -> pb.Hypothesis:
    message = pb.Hypothesis(
        text=hypothesis.text, score=hypothesis.score, reason=_REASONS[hypothesis.reason]
    )
    for index, token in enumerate(hypothesis.tokens, hypothesis.first):
        _write(index, token, message.tokens.add())
    return message


def _write(index: int, token: Produced, message: pb.Token) -> None:
    """Fill a message field by field and in place: a third of the time of keyword arguments."""
    message.index = index
    message.id = token.id
    message.text = token.text
    message.log_probability = token.log_probability
    if token.details is not None:
        _write_details(token.details, message)


def _write_details(details: Details, message: pb.Token) -> None:
    message.attention.extend(details.attention)
    message.aligned_source.extend(details.aligned)
    for other in details.alternatives:
        message.alternatives.add(
            id=other.id, text=other.text, log_probability=other.log_probability
        )


def end_message(ended: Ended) -> pb.End:
    """Write an end."""
    closing = ended.closing if ended.reason is EndReason.EOS else None
    return pb.End(
        reason=_REASONS[ended.reason],
        tokens=ended.tokens,
        total_tokens=ended.total_tokens,
        steps=ended.steps,
        drafted_tokens=ended.drafted,
        accepted_tokens=ended.accepted,
        seed=ended.seed,
        log_probability=closing.log_probability if closing else 0.0,
        text=closing.text if closing else "",
        timings=pb.GenerateTimings(
            queue_seconds=ended.queue_seconds,
            first_token_seconds=ended.first_token_seconds,
            step_seconds=ended.step_seconds,
            total_seconds=ended.total_seconds,
        ),
    )
