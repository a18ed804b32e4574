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
        "host:port in memory references, {hostname} or {address} being ours; empty: where we"
        " listen.",
    )
    memory_dtype: str = setting("f16", "Wire type memories are rounded to: f32, f16, bf16 or i8.")
    memory_bytes: int = setting(
        2**30, "Budget for memories kept under leases, in bytes.", at_least=1, size=True
    )
    inline_bytes: int = setting(
        64 * 2**10, "Largest memory returned inline, in bytes.", at_least=0, size=True
    )
    chunk_bytes: int = setting(
        256 * 2**10, "Chunk size where the caller names none, in bytes.", at_least=1, size=True
    )
    shared_memory: bool = setting(
        True, "Let decoders of this host and user map kept memories instead of fetching them."
    )
    lease_seconds: float = setting(30.0, "Lease where the caller asks for none.", at_least=0.001)
    max_lease_seconds: float = setting(600.0, "Longest lease granted.", at_least=0.001)
    max_batch_tokens: int = setting(512, "Most tokens per batch, padding included.", at_least=1)
    window_ms: float = setting(
        1.0, "How long a small batch waits for company while the encoder is busy.", at_least=0
    )
    max_queue: int = setting(1024, "Sources waiting at most; more are refused.", at_least=1)
    max_queue_seconds: float = setting(
        30.0, "Longest wait that a new source may expect; more is refused.", at_least=0.001
    )
    max_stream_sources: int = setting(
        256, "Sources in flight on one EncodeBatch at most; more are not read.", at_least=1
    )

    max_audio_streams: int = setting(
        16, "Audio streams open at once; more are refused.", at_least=1
    )
    audio_idle_seconds: float = setting(
        300.0, "Audio streams on which nothing happens for this long are ended.", at_least=0.001
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
