"""Which arithmetic a model's half runs on: the native library, or torch where it cannot be used."""

from __future__ import annotations

import logging
from typing import cast

from splitformer import native
from splitformer.errors import ConfigurationError
from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder
from splitformer.model.encoding import SourceEncoder, TorchEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import StepDecoder, TorchDecoder
from splitformer.native import Precision
from splitformer.serving.logs import log

PRECISIONS = ("int8", "fp32")
KERNELS = ("auto", "native", "torch")

_logger = logging.getLogger("splitformer.kernels")


def check_choices(precision: str, kernels: str) -> None:
    """ConfigurationError unless both settings are among the known ones."""
    for name, value, known in (
        ("precision", precision, PRECISIONS),
        ("kernels", kernels, KERNELS),
    ):
        if value not in known:
            raise ConfigurationError(f"{name}: must be one of {', '.join(known)}, got {value!r}")


def step_decoder(decoder: Decoder, precision: str, kernels: str, threads: int) -> StepDecoder:
    """Return a decoder that takes steps, on the kernels and in the precision asked for.

    With "auto", torch in fp32 serves where the native library cannot be used, and the log says so.

    Raises:
        ConfigurationError: "native" was asked for and cannot be used.
    """
    if _use_native(kernels):
        return NativeDecoder(decoder, cast(Precision, precision), threads)
    return TorchDecoder(decoder)


def source_encoder(encoder: Encoder, precision: str, kernels: str, threads: int) -> SourceEncoder:
    """Return an encoder of sources; as `step_decoder`."""
    if _use_native(kernels):
        return NativeEncoder(encoder, cast(Precision, precision), threads)
    return TorchEncoder(encoder)


def _use_native(kernels: str) -> bool:
    if kernels != "torch" and native.available():
        return True
    why = "settings ask for torch" if kernels == "torch" else native.reason()
    if kernels == "native":
        raise ConfigurationError(f"kernels: the native library cannot be used: {why}")
    log(_logger, logging.WARNING, "torch serves, in fp32 and slower", why=why)
    return False
