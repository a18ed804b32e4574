"""Settings of the decoder service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decoder_service.allow_list import AllowList
from splitformer.errors import ConfigurationError
from splitformer.serving.arithmetic import ModelSettings
from splitformer.serving.configuration import port_setting, setting
from splitformer.serving.models import memory_dtype
from splitformer.tls import TlsFiles


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(ModelSettings):
    """Settings of the decoder service."""

    prefix: ClassVar[str] = "SPLITFORMER_DECODER_"

    port: int = port_setting(50052, "Port of the gRPC server; 0 takes a free one.")
    metrics_port: int = port_setting(9102, "Port of /metrics; 0 takes a free one.")
    endpoint: str = setting(
        "",
        "host:port to give clients for calls on a session; {hostname} and {address} stand for this"
        " machine's; empty: the same connection.",
    )
    encoders: tuple[str, ...] = setting(
        ("127.0.0.1:50051", "localhost:50051"),
        "Encoders that memories may be pulled from, separated by commas: host:port, with * for any"
        " port or for the first part of a name.",
    )
    encoder_tls: bool = setting(
        False, "Pull memories over TLS, presenting tls_certificate to encoders that ask for one."
    )
    encoder_ca: str = setting(
        "", "PEM file with the authorities for encoders' certificates; empty: gRPC's own."
    )
    memory_dtype: str = setting("f16", "Wire type of memories; must be the encoder's.")
    memory_bytes: int = setting(
        2**30, "Budget for memories, keys and values, in bytes.", at_least=1, size=True
    )
    shared_memory: bool = setting(
        True, "Map memories of encoders of the same host and user instead of fetching them."
    )
    idle_seconds: float = setting(
        120.0, "Sessions are closed after this long without a call.", at_least=0.001
    )
    record_seconds: float = setting(
        30.0, "How long the tokens of a closed session stay available.", at_least=0
    )
    fetch_seconds: float = setting(10.0, "Longest wait for a memory.", at_least=0.001)
    max_batch: int = setting(64, "Most sequences per step.", at_least=1)
    window_tokens: int = setting(
        64, "Tokens that a session may be ahead of its reader before it pauses.", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        memory_dtype(self.memory_dtype)
        AllowList(self.encoders)
        self.filled_in("endpoint", self.endpoint)
        if self.encoder_ca and not self.encoder_tls:
            raise ConfigurationError(
                f"encoder_ca: needs encoder_tls to be true, got {self.encoder_ca!r}"
            )

    @property
    def encoder_tls_files(self) -> TlsFiles | None:
        """TLS files for calls to encoders; None: without TLS."""
        if not self.encoder_tls:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.encoder_ca, "encoder_ca")
