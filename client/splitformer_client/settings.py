"""What a client is told when it connects."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from splitformer.errors import ConfigurationError
from splitformer.tls import TlsFiles

ENCODER_VARIABLE = "SPLITFORMER_ENCODER"
DECODER_VARIABLE = "SPLITFORMER_DECODER"
TLS_VARIABLE = "SPLITFORMER_TLS"
TLS_CA_VARIABLE = "SPLITFORMER_TLS_CA"
TLS_CERTIFICATE_VARIABLE = "SPLITFORMER_TLS_CERTIFICATE"
TLS_KEY_VARIABLE = "SPLITFORMER_TLS_KEY"
DEFAULT_ENCODER = "localhost:50051"
DEFAULT_DECODER = "localhost:50052"

_MAX_MESSAGE_BYTES = 64 << 20
_HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How connections are secured; the files are read when a client is made.

    Attributes:
        ca: PEM file with authorities that servers' certificates must come from; empty: those that
            gRPC brings.
        certificate: PEM file with the client's own certificate, for servers that ask for one.
        key: PEM file with its private key, without a password.

    Raises:
        ConfigurationError: Only one of `certificate` and `key` is given.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        self.files()

    def files(self) -> TlsFiles:
        """Return the files, for reading them."""
        return TlsFiles(self.certificate, self.key, self.ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Addresses and habits of a client.

    Attributes:
        encoder: Target of the encoder service; None: `SPLITFORMER_ENCODER` or localhost:50051.
        decoder: Target of the decoder service; None: `SPLITFORMER_DECODER` or localhost:50052.
        model: Name of the model on both; empty: the servers' default.
        tls: How connections are secured; None: they are not.
        timeout: Seconds that a call may take in all when it names no timeout; `math.inf`: no limit.
        allowed_endpoint_suffixes: Domains (or whole host names) of further servers that replies may
            send this client to, for example `("decoders.example.com",)`.
        chunk_bytes: Bytes per message when a memory is uploaded or fetched.
        upload_attempts: How often opening a session is tried while the decoder is unavailable.
        max_in_flight: Pieces of one long text that are translated at the same time.

    Raises:
        ConfigurationError: A setting breaks its rule.
    """

    encoder: str = DEFAULT_ENCODER
    decoder: str = DEFAULT_DECODER
    model: str = ""
    tls: Tls | None = None
    timeout: float = 30.0
    allowed_endpoint_suffixes: tuple[str, ...] = ()
    chunk_bytes: int = 512 * 1024
    upload_attempts: int = 4
    max_in_flight: int = 8

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            if not getattr(self, name):
                raise ConfigurationError(f"{name}: must be an address, got an empty string")
        if not self.timeout > 0 or math.isnan(self.timeout):
            raise ConfigurationError(f"timeout: must be above 0 seconds, got {self.timeout!r}")
        for name in ("chunk_bytes", "upload_attempts", "max_in_flight"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}: must be at least 1, got {getattr(self, name)!r}")
        if not all(suffix.strip(".") for suffix in self.allowed_endpoint_suffixes):
            raise ConfigurationError(
                "allowed_endpoint_suffixes: must not hold empty names,"
                f" got {self.allowed_endpoint_suffixes!r}"
            )

    def allows(self, endpoint: str) -> bool:
        """True if `endpoint` is a plain host:port whose host is, or lies under, an allowed name."""
        match = _HOST_AND_PORT.fullmatch(endpoint)
        if match is None:
            return False
        host = match["host"].lower()
        names = [suffix.lower().lstrip(".") for suffix in self.allowed_endpoint_suffixes]
        return any(host == name or host.endswith(f".{name}") for name in names)


def address(given: str | None, variable: str, default: str) -> str:
    """Choose an address: the one given, else the environment's, else the default."""
    return given if given is not None else os.environ.get(variable) or default


def tls_of(given: Tls | bool | None) -> Tls | None:
    """Choose how connections are secured: as given, else as the environment says.

    Files in the environment mean TLS unless `SPLITFORMER_TLS` is false.

    Raises:
        ConfigurationError: A variable has no valid value.
    """
    if isinstance(given, Tls):
        return given
    found = os.environ.get
    tls = Tls(
        ca=found(TLS_CA_VARIABLE, ""),
        certificate=found(TLS_CERTIFICATE_VARIABLE, ""),
        key=found(TLS_KEY_VARIABLE, ""),
    )
    wanted = given if given is not None else _wanted(found(TLS_VARIABLE, ""), tls != Tls())
    return tls if wanted else None


def _wanted(text: str, default: bool) -> bool:
    if text and text.lower() not in _SWITCH:
        raise ConfigurationError(f"{TLS_VARIABLE}: must be true or false, got {text!r}")
    return _SWITCH.get(text.lower(), default)


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple; a string is one name, not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def encoder_options() -> list[tuple[str, int | str]]:
    """Channel options for encoders: any healthy one will do, and every call may be repeated."""
    service = "splitformer.v1.EncoderService"
    return _with_service_config(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": service},
            "methodConfig": [
                {
                    "name": [
                        {"service": service, "method": method}
                        for method in ("Encode", "Embed", "GetModelInfo", "GetLoad")
                    ],
                    "retryPolicy": _RETRY_POLICY,
                }
            ],
        }
    )


def decoder_options() -> list[tuple[str, int | str]]:
    """Channel options for decoders: sessions stay where they are, so no balancing."""
    service = "splitformer.v1.DecoderService"
    names = [
        {"service": service, "method": method}
        for method in ("GetModelInfo", "GetLoad", "GetSession", "CloseSession")
    ]
    return _with_service_config({"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]})


def _with_service_config(config: dict[str, object]) -> list[tuple[str, int | str]]:
    return [*_CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(config))]
