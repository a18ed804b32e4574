"""Certificates of our servers and of the calls they make; renewed files are taken up."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import grpc

from splitformer.errors import ConfigurationError
from splitformer.serving.logs import log
from splitformer.tls import Pem, Stamp, TlsFiles
from splitformer.validity import valid_until

_logger = logging.getLogger("splitformer.tls")


class Renewable:
    """Files that may be renewed while we run.

    Between two files of a renewal they may not fit each other; then the old ones stay in use, the
    log says why, and the next change is tried again.

    Attributes:
        pem: What was read last.

    Raises:
        ConfigurationError: The files cannot be used as they are at the start.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = self._look()
        self.pem = files.read()

    def renewed(self) -> bool:
        """True once after each change that left usable files."""
        stamp = self._look()
        if not stamp or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.pem = self._files.read()
        except ConfigurationError as error:
            log(_logger, logging.WARNING, "tls files changed, the old stay in use", why=str(error))
            return False
        log(_logger, logging.INFO, "tls files renewed")
        return True

    def _look(self) -> Stamp:
        try:
            return self._files.stamp()
        except OSError:
            return ()


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a server, renewed with their files at the next handshake.

    With authorities, callers must show a certificate from one of them (mutual TLS).

    Raises:
        ConfigurationError: The files cannot be used.
    """
    renewable = Renewable(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(renewable.pem) if renewable.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(renewable.pem),
        renewed,  # type: ignore[arg-type]  # None: no change, as gRPC documents it
        require_client_authentication=bool(files.authorities),
    )


def expiry(files: TlsFiles) -> float:
    """When the certificate in the file expires, in seconds since 1970; not a number if unknown."""
    try:
        return valid_until(Path(files.certificate).read_bytes()).timestamp()
    except (OSError, ValueError):
        return math.nan


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None
    assert pem.certificate is not None
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authorities)
