"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Sequence
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
BiasOption = Annotated[
    list[str] | None,
    typer.Option("--logit-bias", metavar="ID=BIAS", help="Add this to the logits of a token."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_ENCODER",
    "BiasOption",
    "CaOption",
    "CertificateOption",
    "DecoderOption",
    "EncoderOption",
    "JsonOption",
    "KeyOption",
    "TlsOption",
    "biases_of",
    "tls_choice",
]


def biases_of(given: Sequence[str] | None) -> dict[int, float] | None:
    """Read `--logit-bias ID=BIAS`; BadParameter if one is none of that."""
    try:
        pairs = [each.split("=") for each in given or ()]
        return {int(token): float(bias) for token, bias in pairs} or None
    except ValueError:
        rule = f"must be ID=BIAS, such as 319=-2.5, got {', '.join(given or ())!r}"
        raise typer.BadParameter(rule, param_hint="--logit-bias") from None


def tls_choice(wanted: bool | None, ca: str, certificate: str, key: str) -> Tls | None:
    """Return how connections are to be secured; None: they are not.

    Raises:
        ConfigurationError: Only one of certificate and key is given.
    """
    tls = Tls(ca=ca, certificate=certificate, key=key)
    return tls if wanted or (wanted is None and tls != Tls()) else None
