"""From the protocol's messages to the client's values."""

from __future__ import annotations

from typing import Any

from splitformer.v1 import decoder_service_pb2 as pb, model_pb2, tensor_pb2
from splitformer_client.info import ModelInfo, SessionInfo, SpeechInfo
from splitformer_client.spans import Rows
from splitformer_client.values import Alternative, End, EndReason, Hypothesis, Score, Timings, Token

_REASONS = {
    pb.END_REASON_EOS: EndReason.EOS,
    pb.END_REASON_LENGTH: EndReason.LENGTH,
    pb.END_REASON_STOP: EndReason.STOP,
    pb.END_REASON_CANCELLED: EndReason.CANCELLED,
}


def token_of(message: pb.Token, rows: Rows | None = None) -> Token:
    """Read a token; what it aligns with is told as parts of the source if those are given."""
    aligned = message.aligned_source
    return Token(
        message.index,
        message.id,
        message.text,
        message.log_probability,
        tuple(Alternative(a.id, a.text, a.log_probability) for a in message.alternatives),
        tuple(message.attention),
        tuple(aligned),
        rows.spans(aligned) if rows and aligned else (),
    )


def hypothesis_of(message: pb.Hypothesis) -> Hypothesis:
    """Read a candidate of a beam search."""
    return Hypothesis(
        message.text,
        tuple(map(token_of, message.tokens)),
        message.score,
        _REASONS.get(message.reason, EndReason.UNSPECIFIED),
    )


def end_of(message: pb.End, hypotheses: tuple[Hypothesis, ...] = ()) -> End:
    """Read the last message of a generation."""
    timings = message.timings
    return End(
        reason=_REASONS.get(message.reason, EndReason.UNSPECIFIED),
        tokens=message.tokens,
        total_tokens=message.total_tokens,
        steps=message.steps,
        seed=message.seed,
        log_probability=message.log_probability,
        text=message.text,
        timings=Timings(
            timings.queue_seconds,
            timings.first_token_seconds,
            timings.step_seconds,
            timings.total_seconds,
        ),
        drafted_tokens=message.drafted_tokens,
        accepted_tokens=message.accepted_tokens,
        hypotheses=hypotheses,
    )


def score_of(message: pb.ScoreResponse) -> Score:
    """Read the log-probabilities of a target."""
    return Score(tuple(map(token_of, message.tokens)), message.log_probability)


def model_info_of(message: model_pb2.ModelInfo) -> ModelInfo:
    """Read the description of a model."""
    return ModelInfo(
        name=message.name,
        family=message.family,
        fingerprint=message.fingerprint.model,
        numerics=message.fingerprint.numerics,
        memory_kind=_name(tensor_pb2.MemoryKind, message.memory_kind, "MEMORY_KIND_"),
        memory_dtype=_name(tensor_pb2.DataType, message.memory_dtype, "DATA_TYPE_"),
        d_model=message.d_model,
        layers=message.layers,
        heads=message.heads,
        vocabulary_size=message.vocabulary_size,
        max_positions=message.max_positions,
        source_language=message.source_language,
        target_languages=tuple(message.target_languages),
        language_on_decoder=message.language_on_decoder,
        parameters=message.parameters,
        weight_bytes=message.weight_bytes,
        precision=message.precision,
        device=message.device,
        batch_invariant=message.batch_invariant,
        server_version=message.server_version,
        speech=_speech_info_of(message.speech) if message.HasField("speech") else None,
        generation_defaults={
            field.name: value for field, value in message.generation_defaults.ListFields()
        },
    )


def _speech_info_of(message: model_pb2.SpeechInfo) -> SpeechInfo:
    return SpeechInfo(
        sample_rate=message.sample_rate,
        window_seconds=message.window_seconds,
        tasks=tuple(_name(model_pb2.SpeechTask, task, "SPEECH_TASK_") for task in message.tasks),
        detects_language=message.detects_language,
        first_time_token=message.first_time_token,
        time_seconds=message.time_seconds,
    )


def session_info_of(message: pb.GetSessionResponse) -> SessionInfo:
    """Read the description of a session."""
    return SessionInfo(
        id=message.session_id,
        state=_name(pb.SessionState, message.state, "SESSION_STATE_"),
        model=message.model,
        language=message.target_language,
        tokens=message.tokens,
        text=message.text,
        source_positions=message.source_positions,
        size_bytes=message.size_bytes,
        expires_in=message.expires_in_ms / 1000,
    )


def _name(values: Any, number: int, prefix: str) -> str:
    """Name of an enum's value, short and in lower case; a newer server's values stay numbers."""
    if number not in values.values():
        return str(number)
    return str(values.Name(number)).removeprefix(prefix).lower()
