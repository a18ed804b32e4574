"""TLS files of any end of a connection: read, checked, and turned into what gRPC takes.

All files are PEM. What is wrong with one is found when it is read, and not at the first handshake.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from splitformer.errors import ConfigurationError
from splitformer.validity import valid_until

if TYPE_CHECKING:
    import grpc

Stamp = tuple[tuple[int, int, int], ...]
"""Changes when one of the files does."""


@dataclass(frozen=True, slots=True)
class Pem:
    """Contents of checked files; None where there is no such file."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a caller; without authorities, those that gRPC brings are trusted."""
        import grpc  # noqa: PLC0415 (a client without TLS is quicker to import)

        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where one end of a connection has its files; empty: there is none.

    Attributes:
        certificate: Our certificate, followed by those that lead to its authority.
        key: Its private key, without a password.
        authorities: Authorities that the other end's certificate must come from.
        authorities_setting: What the user calls that setting.
    """

    certificate: str = ""
    key: str = ""
    authorities: str = ""
    authorities_setting: str = "tls_ca"

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            given, missing = ("tls_certificate", "tls_key")[:: 1 if self.certificate else -1]
            raise ConfigurationError(f"{missing}: must be given with {given}, got an empty name")

    def read(self) -> Pem:
        """Read and check all files.

        Raises:
            ConfigurationError: One cannot be read, is no such file or has expired, or the key is
                another's.
        """
        certificate = _read("tls_certificate", self.certificate)
        key = _read("tls_key", self.key)
        authorities = _read(self.authorities_setting, self.authorities)
        if certificate is not None:
            self._check_pair()
            self._check_validity(certificate)
        if authorities is not None:
            self._check_authorities()
        return Pem(certificate, key, authorities)

    def stamp(self) -> Stamp:
        """Tell this state of the files from others; OSError while one is missing."""
        found = [
            Path(name).stat() for name in (self.certificate, self.key, self.authorities) if name
        ]
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)

    def _check_pair(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"tls_key: {self.key!r} is not the key of tls_certificate {self.certificate!r}"
                ) from error
            raise ConfigurationError(
                f"tls_certificate: {self.certificate!r} and tls_key {self.key!r} must hold a PEM"
                f" certificate and its key without a password: {error}"
            ) from error

    def _check_validity(self, certificate: bytes) -> None:
        until = valid_until(certificate)
        if until < datetime.now(UTC):
            raise ConfigurationError(
                f"tls_certificate: {self.certificate!r} must be valid, it expired at {until}"
            )

    def _check_authorities(self) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self.authorities)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{self.authorities_setting}: {self.authorities!r} must hold PEM certificates:"
                f" {error}"
            ) from error


def _read(setting: str, name: str) -> bytes | None:
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"{setting}: {name!r} cannot be read: {why}") from error
