"""Loads the library and declares its functions; ctypes lets other threads run during a call."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from functools import cache
from typing import Any

from numpy.typing import NDArray

from splitformer.native.build import BuildError, find_or_build

ENVIRONMENT = "SPLITFORMER_NATIVE"
"""Operators' and tests' choice: "off", "avx2", "vnni" or "amx"; unset: the machine's best."""


class NativeUnavailableError(RuntimeError):
    """The native library cannot be used here; the message says why."""


class InstructionSet(IntEnum):
    """Which micro-kernels multiply; the bits of results do not depend on it."""

    NONE = 0
    AVX2 = 1
    VNNI = 2
    AMX = 3


class NormStruct(ctypes.Structure):
    """splitformer_norm."""

    _fields_ = (
        ("kind", c_int32),
        ("epsilon", c_float),
        ("gain", c_void_p),
        ("shift", c_void_p),
    )


class WeightsStruct(ctypes.Structure):
    """splitformer_weights."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("scale", c_void_p),
        ("width", c_int64),
        ("element", c_int32),
        ("mapped", c_int32),
    )


_NORM = POINTER(NormStruct)
_WEIGHTS = POINTER(WeightsStruct)
_I, _P, _F = c_int32, c_void_p, c_float

# Name without "splitformer_": result, arguments; as in src/api.h.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "instruction_set": (_I, ()),
    "error": (c_char_p, ()),
    "plan_create": (_P, (_I, _I, _I, _I, POINTER(_I), _I, _I, _I, _I, _I, _I, _I)),
    "plan_destroy": (None, (_P,)),
    "plan_embedding": (_I, (_P, _P, _I, _P, _F)),
    "plan_rows": (_I, (_P, _I, _NORM, _NORM, _I)),
    "plan_linear": (_I, (_P, _WEIGHTS, _I, _I, _I, _I, _I)),
    "plan_attend": (_I, (_P, _I, _I, _F, _P, _I)),
    "plan_vocabulary": (_I, (_P, _WEIGHTS)),
    "plan_convolution": (_I, (_P, _WEIGHTS, _I, _I)),
    "plan_projection": (_I, (_P, _WEIGHTS, _I)),
    "plan_finish": (_I, (_P,)),
    "plan_step": (_I, (_P, _P)),
    "plan_encode": (_I, (_P, _I, _P, _P, _P, _P)),
    "plan_project": (_I, (_P, _P, _I, _P)),
    "plan_products": (_I, (_P, _I, _I)),
    "quantise": (_I, (_I, _P, _I, _I, _P, _P)),
    "narrow": (None, (_P, c_int64, _P)),
    "widen": (None, (_P, c_int64, _P)),
    "draw": (_I, (_P, _P, _P, _I)),
    "rank": (_I, (_P, _P, _P, _I, _I, _P, _P, _P, _P, _I)),
    "plan_profile": (_I, (_P, _I, POINTER(c_double))),
    "probe_linear": (_I, (_I, _I, _P, _I, _I, _P, _P, _I, _P, _P, _P, _P)),
    "probe_norm": (None, (_I, _NORM, _P, _I, _P)),
    "probe_activation": (None, (_I, _I, _P, _I)),
    "probe_logits": (_I, (_I, _P, _P, _I, POINTER(_F), POINTER(_F))),
    "probe_attention": (None, (_I, _P, _P, _P, _I, _I, _F, _P, _I, _P)),
}


class Library:
    """The loaded library: one attribute per function of src/api.h.

    Attributes:
        instruction_set: What plans use unless they are told otherwise.
    """

    def __init__(self, path: os.PathLike[str]) -> None:
        loaded = ctypes.CDLL(os.fspath(path))
        self._functions = {}
        for name, (result, arguments) in _FUNCTIONS.items():
            function = loaded[f"splitformer_{name}"]
            function.restype, function.argtypes = result, arguments
            self._functions[name] = function
        self.best = InstructionSet(self._functions["instruction_set"]())

    def __getattr__(self, name: str) -> Any:
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(name) from None

    def check(self, code: int) -> None:
        """Raise ValueError with the library's message if `code` says that a call failed."""
        if code < 0:
            raise ValueError(self.error().decode())


def library() -> Library:
    """Return the library, built first if need be; NativeUnavailableError if it cannot be used."""
    loaded = _load()
    if isinstance(loaded, str):
        raise NativeUnavailableError(loaded)
    return loaded


def loaded() -> Library | None:
    """Return the library if something has loaded it and it can be used; this builds nothing."""
    return library() if _load.cache_info().currsize and available() else None


def available() -> bool:
    """True if the native library can be used on this machine."""
    return reason() is None


def reason() -> str | None:
    """Why the native library cannot be used; None if it can."""
    try:
        instruction_set()
    except NativeUnavailableError as error:
        return str(error)
    return None


def instruction_set() -> InstructionSet:
    """Return what $SPLITFORMER_NATIVE asks for, or else the best this machine has."""
    choice = os.environ.get(ENVIRONMENT, "")
    if choice == "off":
        raise NativeUnavailableError(f"{ENVIRONMENT} is off")
    best = library().best
    if choice == "":
        return best
    wanted = InstructionSet.__members__.get(choice.upper(), InstructionSet.NONE)
    if wanted is InstructionSet.NONE:
        raise NativeUnavailableError(
            f'{ENVIRONMENT}: must be "off", "avx2", "vnni" or "amx", got {choice!r}'
        )
    if wanted > best:
        raise NativeUnavailableError(f"{ENVIRONMENT}: this machine has no {wanted.name}")
    return wanted


@cache
def _load() -> Library | str:
    try:
        loaded = Library(find_or_build())
    except (BuildError, OSError) as error:
        return str(error)
    if loaded.best is InstructionSet.NONE:
        return "the processor lacks AVX2 or FMA"
    return loaded


def address(array: NDArray[Any] | None) -> int | None:
    """Return where a contiguous array's data is; None stays None."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data
