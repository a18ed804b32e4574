"""Options that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

from splitformer_client.settings import (
    DECODER_VARIABLE,
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    ENCODER_VARIABLE,
    TLS_CA_VARIABLE,
    TLS_CERTIFICATE_VARIABLE,
    TLS_KEY_VARIABLE,
    TLS_VARIABLE,
    Tls,
)

EncoderOption = Annotated[
    str,
    typer.Option("--encoder", envvar=ENCODER_VARIABLE, help="Address of the encoder service."),
]
DecoderOption = Annotated[
    str,
    typer.Option("--decoder", envvar=DECODER_VARIABLE, help="Address of the decoder service."),
]
TlsOption = Annotated[
    bool | None,
    typer.Option(
        "--tls/--no-tls",
        envvar=TLS_VARIABLE,
        help="Use TLS; default: if one of its files is given.",
    ),
]
CaOption = Annotated[
    str,
    typer.Option(
        "--tls-ca", envvar=TLS_CA_VARIABLE, help="PEM file with the authorities for the servers."
    ),
]
CertificateOption = Annotated[
    str,
    typer.Option(
        "--tls-certificate",
        envvar=TLS_CERTIFICATE_VARIABLE,
        help="PEM file with the client certificate.",
    ),
]
KeyOption = Annotated[
    str, typer.Option("--tls-key", envvar=TLS_KEY_VARIABLE, help="PEM file with its private key.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_ENCODER",
    "CaOption",
    "CertificateOption",
    "DecoderOption",
    "EncoderOption",
    "JsonOption",
    "KeyOption",
    "TlsOption",
    "tls_choice",
]


def tls_choice(wanted: bool | None, ca: str, certificate: str, key: str) -> Tls | None:
    """Return how connections are to be secured; None: they are not.

    Raises:
        ConfigurationError: Only one of certificate and key is given.
    """
    tls = Tls(ca=ca, certificate=certificate, key=key)
    return tls if wanted or (wanted is None and tls != Tls()) else None
