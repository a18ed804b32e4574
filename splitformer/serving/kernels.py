"""What a model's half runs on: the native library, torch where it cannot be used, or a GPU.

torch is imported only if it computes: it takes some 180 MiB and a second or two of every start.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging

from splitformer import native
from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import SourceEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import StepDecoder
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.logs import log

_logger = logging.getLogger("splitformer.kernels")


def step_decoder(
    checkpoint: Checkpoint, arithmetic: Arithmetic, pool_bytes: int = 0
) -> StepDecoder:
    """Return a decoder that takes steps, on the kernels and in the precision asked for.

    With "auto", torch in fp32 serves where the native library cannot be used, and the log says so.

    Args:
        checkpoint: The model, of which the decoder is loaded.
        arithmetic: What to run it on.
        pool_bytes: On a GPU, bytes for keys and values.

    Raises:
        ConfigurationError: The native library or the GPU cannot be used, or weights are not finite.
    """
    if _is_native(arithmetic):
        precision = arithmetic.native_precision
        half = checkpoint.half("decoder", precision)
        return NativeDecoder(half, precision, arithmetic.threads, arithmetic.cores[1:])
    from splitformer.serving import torch_kernels  # noqa: PLC0415 (see the module)

    return torch_kernels.step_decoder(checkpoint, arithmetic, pool_bytes)


def source_encoder(checkpoint: Checkpoint, arithmetic: Arithmetic) -> SourceEncoder:
    """Return an encoder of sources; as `step_decoder`."""
    if _is_native(arithmetic):
        precision = arithmetic.native_precision
        half = checkpoint.half("encoder", precision)
        return NativeEncoder(half, precision, arithmetic.threads, arithmetic.cores[1:])
    from splitformer.serving import torch_kernels  # noqa: PLC0415 (see the module)

    return torch_kernels.source_encoder(checkpoint, arithmetic)


def held_precision(arithmetic: Arithmetic) -> str:
    """Return the precision that weights will be held in."""
    by_torch = arithmetic.kernels == "torch" or not native.available()
    return "fp32" if by_torch and not arithmetic.on_gpu else arithmetic.held


def give_back() -> None:
    """Hand memory that loading has freed back to the system, where the C library can (glibc).

    Packed weights take the place of float32 copies, which would stay resident otherwise.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _is_native(arithmetic: Arithmetic) -> bool:
    """Tell whether the native library is to compute; if not, torch can."""
    if arithmetic.on_gpu:
        _check_torch(f"device: {arithmetic.device!r} needs torch")
        return False
    kernels = arithmetic.kernels
    if kernels != "torch" and native.available():
        return True
    why = "settings ask for torch" if kernels == "torch" else native.reason()
    if kernels == "native":
        raise ConfigurationError(f"kernels: the native library cannot be used: {why}")
    _check_torch(f"kernels: torch is to compute ({why})")
    log(_logger, logging.WARNING, "torch serves, in fp32 and slower", why=why)
    return False


def _check_torch(needed: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            f"{needed}, which is not installed here: `pip install splitformer[torch]`, or an image"
            " built with torch"
        )
