"""What a model's half runs on: the native library, torch where it cannot be used, or a GPU.

torch is imported only if it computes: it takes some 180 MiB and a second or two of every start.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from splitformer import native
from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import SourceEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import StepDecoder
from splitformer.native import Precision
from splitformer.serving.layout import cores_of, pin_engine
from splitformer.serving.logs import log
from splitformer.serving.settings import Settings, setting

KERNELS = ("auto", "native", "torch")
_ON_CPU = ("int8", "fp32")
_ON_CUDA = ("bf16", "fp16", "fp32")
_DEVICE = re.compile(r"cpu|cuda(?::\d+)?")

_logger = logging.getLogger("splitformer.kernels")


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a model's half runs on.

    Attributes:
        precision: "int8" or "fp32" on a CPU; "bf16", "fp16" or "fp32" on a GPU; "auto" is the
            first of them.
        kernels: "native", "torch", or "auto": native where it can be used.
        threads: Threads of a step on a CPU.
        device: "cpu", "cuda", or "cuda:" and the number of a GPU.
        cores: To pin those threads to, one each; empty: none.

    Raises:
        ConfigurationError: One of them is unknown or goes with none of the others.
    """

    precision: str = "auto"
    kernels: str = "auto"
    threads: int = 1
    device: str = "cpu"
    cores: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ConfigurationError(
                f"device: must be cpu, cuda, or cuda: and a number, got {self.device!r}"
            )
        known = ("auto", *(_ON_CUDA if self.on_gpu else _ON_CPU))
        _check("precision", self.precision, known, self.device)
        _check("kernels", self.kernels, ("auto", "torch") if self.on_gpu else KERNELS, self.device)

    @property
    def on_gpu(self) -> bool:
        """True if a GPU computes."""
        return self.device != "cpu"

    @property
    def native_precision(self) -> Precision:
        """The precision for the native library."""
        return "fp32" if self.precision == "fp32" else "int8"

    def pin(self) -> None:
        """Move the calling thread, which is to call the model, to its core."""
        pin_engine(self.cores, self.threads)

    @property
    def held(self) -> str:
        """The precision that the device holds weights in, if the kernels asked for can be used."""
        first = (_ON_CUDA if self.on_gpu else _ON_CPU)[0]
        return first if self.precision == "auto" else self.precision


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Settings of a service that runs a half of a model."""

    device: str = setting("cpu", "Where the model runs: cpu, cuda, or cuda:N.")
    precision: str = setting(
        "auto", "Arithmetic: int8 or fp32 on cpu, bf16, fp16 or fp32 on cuda; auto: the first."
    )
    kernels: str = setting(
        "auto", "What computes: native, torch, or auto (native where it can be used)."
    )

    cache: str = setting(
        "auto",
        "Where fingerprints and int8 weights are kept: auto (beside a model, or else in the user's"
        " cache), off, or a folder.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.arithmetic  # checks that they go together

    @property
    def arithmetic(self) -> Arithmetic:
        """What the model runs on."""
        cores = tuple(sorted(cores_of(self.engine_cores)))
        return Arithmetic(self.precision, self.kernels, self.threads, self.device, cores)

    @property
    def with_torch(self) -> bool:
        """True if torch is asked for; it may have to serve where it is not."""
        return self.kernels == "torch" or self.arithmetic.on_gpu


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


def _check(name: str, value: str, known: Sequence[str], device: str) -> None:
    if value not in known:
        where = "" if device == "cpu" else f" on {device}"
        raise ConfigurationError(f"{name}: must be one of {', '.join(known)}{where}, got {value!r}")


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
