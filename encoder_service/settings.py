"""Settings of the encoder service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from splitformer.errors import ConfigurationError
from splitformer.serving.arithmetic import ModelSettings
from splitformer.serving.configuration import port_setting, setting
from splitformer.serving.models import memory_dtype


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ModelSettings):
    """Settings of the encoder service."""

    prefix: ClassVar[str] = "SPLITFORMER_ENCODER_"

    port: int = port_setting(50051, "Port of the gRPC server; 0 takes a free one.")
    metrics_port: int = port_setting(9101, "Port of /metrics; 0 takes a free one.")
    advertise: str = setting(
        "",
        "host:port to put into memory references; {hostname} and {address} stand for this"
        " machine's; empty: where the service listens.",
    )
    memory_dtype: str = setting(
        "f16", "Wire type that memories are rounded to: f32, f16, bf16 or i8."
    )
    memory_bytes: int = setting(
        2**30, "Budget for memories kept under leases, in bytes.", at_least=1, size=True
    )
    inline_bytes: int = setting(
        64 * 2**10, "Largest memory returned inline, in bytes.", at_least=0, size=True
    )
    chunk_bytes: int = setting(
        256 * 2**10, "Chunk size if the caller names none, in bytes.", at_least=1, size=True
    )
    shared_memory: bool = setting(
        True, "Let decoders of the same host and user map memories instead of fetching them."
    )
    lease_seconds: float = setting(
        30.0, "Length of a lease if the caller names none.", at_least=0.001
    )
    max_lease_seconds: float = setting(600.0, "Longest lease granted.", at_least=0.001)
    max_batch_tokens: int = setting(512, "Most tokens per batch, including padding.", at_least=1)
    window_ms: float = setting(
        1.0, "How long a small batch waits for more sources while the encoder is busy.", at_least=0
    )
    max_queue: int = setting(1024, "Most sources waiting; more are refused.", at_least=1)
    max_queue_seconds: float = setting(
        30.0,
        "Longest expected wait of a new source; beyond it, sources are refused.",
        at_least=0.001,
    )
    max_stream_sources: int = setting(
        256,
        "Most sources in flight on one EncodeBatch; no more are read until some finish.",
        at_least=1,
    )

    max_audio_streams: int = setting(
        16, "Most audio streams open at once; more are refused.", at_least=1
    )
    audio_idle_seconds: float = setting(
        300.0, "Audio streams are ended after this long without activity.", at_least=0.001
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        memory_dtype(self.memory_dtype)
        self.filled_in("advertise", self.advertise)
        if self.lease_seconds > self.max_lease_seconds:
            raise ConfigurationError(
                f"lease_seconds: must be at most max_lease_seconds ({self.max_lease_seconds}),"
                f" got {self.lease_seconds}"
            )
        for name in ("inline_bytes", "chunk_bytes"):
            if getattr(self, name) > self.max_message_bytes // 2:
                raise ConfigurationError(
                    f"{name}: must be at most half of max_message_bytes ({self.max_message_bytes}),"
                    f" got {getattr(self, name)}"
                )
