"""What the services tell of their models and sessions: frozen values that know nothing of gRPC.

Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SpeechInfo:
    """What is special about a model whose sources are audio.

    Attributes:
        sample_rate: Samples per second that it works on.
        window_seconds: Audio that one memory stands for.
        tasks: "transcribe", and "translate" if it knows that.
        detects_language: True if it finds out a language that is not named.
        first_time_token: Token that marks a window's beginning; later times follow it.
        time_seconds: From one of them to the next.
    """

    sample_rate: int
    window_seconds: float
    tasks: tuple[str, ...]
    detects_language: bool
    first_time_token: int
    time_seconds: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as one of the services runs it.

    Attributes:
        name: Name under which requests ask for it.
        family: Architecture family, for example "splitformer".
        fingerprint: Hash of the model, hexadecimal; equal on both services.
        numerics: Precision, wire type and kernel version.
        memory_kind: "sequence", "vector" or "none".
        memory_dtype: Element type of its memories: "f32", "f16", "bf16" or "i8".
        d_model: Width of its vectors (D).
        layers: Layers of the half that this service runs.
        heads: Attention heads (H).
        vocabulary_size: Vocabulary of that half (V).
        max_positions: Longest source or target, in tokens.
        source_language: Language of its sources; empty if not fixed.
        target_languages: Target languages it knows; empty if it has no notion of one.
        language_on_decoder: True if one memory serves all target languages.
        parameters: Parameters held by this service.
        weight_bytes: Bytes of weights held by this service.
        precision: For example "fp32" or "int8".
        device: For example "cpu".
        batch_invariant: True if answers are bit-identical whatever shares their batch.
        server_version: Version of the server software.
        speech: What is special about a model whose sources are audio; None: they are text.
        generation_defaults: Options that hold where a request leaves them out.
    """

    name: str
    family: str
    fingerprint: str
    numerics: str
    memory_kind: str
    memory_dtype: str
    d_model: int
    layers: int
    heads: int
    vocabulary_size: int
    max_positions: int
    source_language: str
    target_languages: tuple[str, ...]
    language_on_decoder: bool
    parameters: int
    weight_bytes: int
    precision: str
    device: str
    batch_invariant: bool
    server_version: str
    speech: SpeechInfo | None = None
    generation_defaults: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as the decoder sees it.

    Attributes:
        id: Its id.
        state: "idle", "running", "ended" or "closed".
        model: Name of the model.
        language: Target language; empty if the model has none.
        tokens: Tokens produced so far.
        text: Text so far.
        source_positions: Rows of the memory (S).
        size_bytes: Bytes of keys and values held for it.
        expires_in: Seconds until it is let go if nothing happens.
    """

    id: str
    state: str
    model: str
    language: str
    tokens: int
    text: str
    source_positions: int
    size_bytes: int
    expires_in: float
