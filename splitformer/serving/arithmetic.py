"""What a model's half is to run on: precision, kernels, device, threads and their cores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from splitformer.errors import ConfigurationError
from splitformer.native import Precision
from splitformer.serving.configuration import setting
from splitformer.serving.layout import cores_of, pin_engine
from splitformer.serving.settings import Settings

_KERNELS = ("auto", "native", "torch")
_ON_CPU = ("int8", "fp32")
_ON_CUDA = ("bf16", "fp16", "fp32")
_DEVICE = re.compile(r"cpu|cuda(?::\d+)?")


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
        _check("kernels", self.kernels, ("auto", "torch") if self.on_gpu else _KERNELS, self.device)

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
        "auto", "Arithmetic: int8 or fp32 on cpu; bf16, fp16 or fp32 on cuda; auto: the first."
    )
    kernels: str = setting("auto", "What computes: native, torch, or auto (native if possible).")
    cache: str = setting(
        "auto",
        "Where fingerprints and int8 weights are cached: auto (next to the model, or else in the"
        " user's cache), off, or a folder.",
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


def _check(name: str, value: str, known: Sequence[str], device: str) -> None:
    if value not in known:
        where = "" if device == "cpu" else f" on {device}"
        raise ConfigurationError(f"{name}: must be one of {', '.join(known)}{where}, got {value!r}")
