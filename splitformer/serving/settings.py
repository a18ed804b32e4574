"""The settings that both services have, and their rules; each service adds its own."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from splitformer.errors import ConfigurationError
from splitformer.serving.configuration import check_range, port_setting, setting, values_given
from splitformer.serving.layout import cores_of
from splitformer.serving.priority import check_policy
from splitformer.serving.process import check_event_loop
from splitformer.tls import TlsFiles

_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 (recognised, not bound to)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that both services have.

    Raises:
        ConfigurationError: A value breaks its rule.
    """

    prefix: ClassVar[str] = "SPLITFORMER_"

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.")
    port: int = port_setting(0, "Port of the gRPC server; 0 takes a free one.")
    metrics_port: int = port_setting(0, "Port of the /metrics page; 0 takes a free one.")
    model: str = setting("", "Model folder; empty: the embedded model.")
    models: str = setting(
        "", "Folder whose subfolders can be loaded as models by name; empty: none."
    )
    models_bytes: int = setting(
        4 * 2**30, "Budget for the weights of all models, in bytes.", at_least=1, size=True
    )
    admin: str = setting(
        "",
        "host:port for loading and unloading models, a loopback address unless tls_client_ca is"
        " set; empty: none.",
    )
    threads: int = setting(1, "Threads for the arithmetic.", at_least=1)
    cores: str = setting("", "Cores the process may use, for example 0-3,6; empty: all.")
    engine_cores: str = setting(
        "", "Cores to pin the computing threads to, one each, for example 0-3,6; empty: any."
    )
    nice: int = setting(
        0,
        "Added to the niceness of the process; higher yields to others, lower needs privileges.",
        at_least=-20,
        at_most=19,
    )
    policy: str = setting(
        "usual",
        "How Linux schedules the process once it serves: usual, or idle, which yields at once to"
        " whatever else needs a core.",
    )
    memory_bytes: int = setting(2**30, "Budget, in bytes.", at_least=1, size=True)
    max_message_bytes: int = setting(
        64 * 2**20, "Largest gRPC message accepted, in bytes.", at_least=2**16, size=True
    )
    tls_certificate: str = setting(
        "", "PEM file with the server's certificate and its chain; empty: no TLS."
    )
    tls_key: str = setting("", "PEM file with the certificate's private key, without a password.")
    tls_client_ca: str = setting(
        "",
        "PEM file with the authorities for callers' certificates; empty: any caller may connect.",
    )
    notice_seconds: float = setting(
        0.0,
        "How long new work is still accepted after SIGTERM, so that balancers see NOT_SERVING.",
        at_least=0,
    )
    drain_seconds: float = setting(30.0, "Longest wait for running calls after that.", at_least=0)
    event_loop: str = setting(
        "auto", "Event loop to use: asyncio, uvloop, or auto (uvloop if it is installed)."
    )
    log_level: str = setting("info", "Lowest severity to log: debug, info, warning or error.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_range(field, getattr(self, field.name))
        cores_of(self.cores)
        cores_of(self.engine_cores, "engine_cores")
        check_policy(self.policy)
        check_event_loop(self.event_loop)
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigurationError(
                "log_level: must be debug, info, warning or error, got " + repr(self.log_level)
            )
        self._check_tls()
        self._check_admin()

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Read flags and environment variables.

        Raises:
            ConfigurationError: A name is unknown or a value malformed.
        """
        return cls(**values_given(cls, arguments, environment))

    @property
    def tls_files(self) -> TlsFiles | None:
        """The server's TLS files; None: without TLS."""
        if not self.tls_certificate:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca, "tls_client_ca")

    @property
    def is_exposed(self) -> bool:
        """True if other machines may call us, and without TLS."""
        return not _is_loopback(self.host) and not self.tls_certificate

    @property
    def with_torch(self) -> bool:
        """True if torch is to compute."""
        return False

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of `admin`; None: there is none."""
        host, _, port = self.admin.rpartition(":")
        return (host.strip("[]"), int(port)) if self.admin else None

    @property
    def reachable_host(self) -> str:
        """A name others can reach us by: `host`, or this machine's name if that means all."""
        return socket.gethostname() if self.host in _EVERYWHERE else self.host

    @staticmethod
    def filled_in(name: str, template: str) -> str:
        """Return an address with this machine's name or IPv4 address put in.

        Args:
            name: The setting it comes from.
            template: It may hold {hostname}, or {address}, which has dashes as in the names that
                Kubernetes gives to pods.

        Raises:
            ConfigurationError: Something else stands in braces, or we have no address.
        """
        filled = template.replace("{hostname}", socket.gethostname())
        if "{address}" in filled:
            filled = filled.replace("{address}", _own_address(name).replace(".", "-"))
        if "{" in filled or "}" in filled:
            raise ConfigurationError(
                f"{name}: must hold nothing but {{hostname}} or {{address}} in braces,"
                f" got {template!r}"
            )
        return filled

    def describe(self) -> dict[str, Any]:
        """Return all settings as JSON-ready values, to be printed at start."""
        return dataclasses.asdict(self)

    def _check_admin(self) -> None:
        if not self.admin:
            return
        host, _, port = self.admin.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigurationError(f"admin: must be host:port, got {self.admin!r}")
        if not _is_loopback(host) and not self.tls_client_ca:
            raise ConfigurationError(
                "admin: must be on a loopback address unless tls_client_ca says who may call, got"
                f" {self.admin!r}"
            )
        if not self.models:
            raise ConfigurationError("admin: needs models, the folder that they are loaded from")

    def _check_tls(self) -> None:
        TlsFiles(self.tls_certificate, self.tls_key)
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigurationError(
                "tls_client_ca: needs tls_certificate and tls_key; without TLS no caller shows a"
                f" certificate, got {self.tls_client_ca!r}"
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def _own_address(name: str) -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError as error:
        raise ConfigurationError(
            f"{name}: {{address}} is not known, as the name of this machine,"
            f" {socket.gethostname()!r}, does not resolve: {error}"
        ) from error
