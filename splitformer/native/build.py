"""Compiles the native library, again whenever its sources, its flags or the compiler change.

The result lies in the user's cache folder under a name that is a hash of all of these; or inside
the package, put there while an image or a wheel was made, under a hash of sources and flags. Both
are only ever written whole and then renamed, so any number of processes may build at once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCES = PACKAGE / "src"
SELF_TEST = "self_test.cc"

# Contraction would let the compiler choose where to round; our bits are the same everywhere because
# every fused multiply-add is written out.
_COMMON = (
    *("-std=c++17", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wshadow"),
)
_OPTIMISED = ("-O3",)
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni")
_AMX = (*_AVX512, "-mamx-tile", "-mamx-int8")
_TARGETS = {
    "cpu.cc": (),
    "kernels_amx.cc": _AMX,
    "kernels_avx512.cc": _AVX512,
    "row_kernels_avx512.cc": _AVX512,
}
# The C++ runtime comes along: the machine's own, or torch's, may be older than the compiler's.
_LINK = ("-shared", "-pthread", "-static-libstdc++", "-static-libgcc")
_SANITIZED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")


class BuildError(Exception):
    """The library cannot be built here; the message says why."""


def find_or_build() -> Path:
    """Return the library's path; BuildError if there is none and none can be made."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BuildError(f"needs x86-64 Linux, this is {platform.machine()} {sys.platform}")
    inside = PACKAGE / _library_name(_digest_of_sources())
    if inside.exists():
        return inside
    target = _cache_folder() / _library_name(_digest_of_build())
    if not target.exists():
        build(target)
    return target


def build_into_package() -> Path:
    """Build the library inside the package, for images and wheels; return its path."""
    target = PACKAGE / _library_name(_digest_of_sources())
    build(target)
    return target


def build(target: Path) -> None:
    """Compile and link the library at `target`."""
    _make(target, _names(with_self_test=False), _OPTIMISED, _LINK)


def build_self_test(sanitizers: str) -> Path:
    """Build the self-test with the given sanitizers, for example "address,undefined".

    Returns:
        The path of an executable.
    """
    flags = (*_SANITIZED, *([f"-fsanitize={sanitizers}"] if sanitizers else []))
    name = f"self-test-{sanitizers.replace(',', '-') or 'plain'}-{_digest_of_build()}"
    target = _cache_folder() / name
    if not target.exists():
        _make(target, _names(with_self_test=True), flags, (*flags, "-pthread"))
    return target


@cache
def compiler() -> tuple[str, ...]:
    """The C++ compiler: $CXX, or the first of g++, clang++ and c++."""
    if given := os.environ.get("CXX"):
        return tuple(shlex.split(given))
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return (path,)
    raise BuildError("no C++ compiler: found neither $CXX nor g++, clang++ or c++")


def _make(target: Path, names: Sequence[str], flags: Sequence[str], link: Sequence[str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:

        def compile_one(name: str) -> str:
            to = str(Path(folder, name).with_suffix(".o"))
            every = (*_COMMON, *flags, *_target(name))
            _run([*compiler(), *every, "-c", str(SOURCES / name), "-o", to])
            return to

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, names))
        made = Path(folder, target.name)
        _run([*compiler(), *objects, *link, "-o", str(made)])
        made.replace(target)


def _target(name: str) -> tuple[str, ...]:
    """Return the flags of a source's instructions; without AMX, which older compilers lack."""
    flags = _TARGETS.get(name, _AVX2)
    if flags is not _AMX:
        return flags
    try:
        _run([*compiler(), *_AMX, "-E", "-x", "c++", os.devnull])
    except BuildError:
        return _AVX512
    return _AMX


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _names(with_self_test: bool) -> list[str]:
    names = sorted(path.name for path in SOURCES.glob("*.cc"))
    return [name for name in names if with_self_test or name != SELF_TEST]


def _library_name(digest: str) -> str:
    return f"splitformer-native-{digest}.so"


@cache
def _digest_of_sources() -> str:
    return _digest(_parts_of_sources())


@cache
def _digest_of_build() -> str:
    version = _run([*compiler(), "--version"])
    return _digest([*_parts_of_sources(), " ".join(compiler()).encode(), version.encode()])


def _digest(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:20]


def _parts_of_sources() -> list[bytes]:
    def parts() -> Iterator[bytes]:
        yield repr((_COMMON, _OPTIMISED, _AVX2, _TARGETS, _LINK, _SANITIZED)).encode()
        for path in sorted(SOURCES.iterdir()):
            if path.suffix in {".h", ".cc"}:
                yield path.name.encode()
                yield path.read_bytes()

    return list(parts())


def _cache_folder() -> Path:
    """Return a folder that is ours alone: whoever can write to it can run code as us."""
    given = os.environ.get("XDG_CACHE_HOME")
    home = Path(given) if given else Path.home() / ".cache"
    temporary = Path(tempfile.gettempdir()) / f"splitformer-{os.getuid()}"
    for folder in (home / "splitformer" / "native", temporary):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        state = folder.stat()
        ours = state.st_uid == os.getuid() and not state.st_mode & 0o022
        if ours and not folder.is_symlink() and os.access(folder, os.W_OK):
            return folder
    raise BuildError(f"no private folder to build in: neither {home} nor {temporary} will do")
