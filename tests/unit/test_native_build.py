"""Building and loading the native library: rebuilt when it must be, refused politely otherwise."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from splitformer.native import InstructionSet, build
from tests.support.native import instruction_sets, linear, needs_native

REFUSING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>
extern "C" long syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_arch_prctl) return errno = EINVAL, -1;
  typedef long (*Call)(long, long, long, long, long, long, long);
  return ((Call)dlsym(RTLD_NEXT, "syscall"))(number, a, b, c, d, e, f);
}
"""
"""A `syscall` that knows no arch_prctl, as kernels of some sandboxes."""

IN_USE = """
extern "C" int tiles_in_use() {
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return (low >> 17 & 3) != 0;
}
"""
"""Whether the system would have to save tiles of the thread that asks."""

SAY = "import splitformer.native as n; print(n.available(), n.reason())"


def compiled(source: str, folder: Path) -> str:
    """Compile a shared library; return its path."""
    (folder / "source.cc").write_text(source)
    command = [*build.compiler(), "-shared", "-fPIC", "source.cc", "-o", "library.so"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "library.so")


def ask(program: str = SAY, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_it_imports_no_torch_and_builds_nothing(tmp_path: Path) -> None:
    program = "import sys, splitformer.native; print('torch' in sys.modules)"
    assert ask(program, XDG_CACHE_HOME=str(tmp_path), CXX="false") == "False"
    assert not list(tmp_path.iterdir())


def test_it_can_be_switched_off() -> None:
    assert ask(SPLITFORMER_NATIVE="off") == "False SPLITFORMER_NATIVE is off"


@needs_native
def test_the_instruction_set_can_be_chosen() -> None:
    program = "import splitformer.native as n; print(n.instruction_set().name)"
    assert ask(program, SPLITFORMER_NATIVE="avx2") == "AVX2"
    assert "must be" in ask(SPLITFORMER_NATIVE="sse")


needs_amx = pytest.mark.skipif(
    InstructionSet.AMX not in instruction_sets(), reason="this machine has no AMX to refuse"
)


@needs_amx
def test_a_kernel_that_refuses_amx_leaves_vnni(tmp_path: Path) -> None:
    refusing = compiled(REFUSING, tmp_path)
    program = "import splitformer.native as n; print(n.instruction_set().name)"
    build.find_or_build()  # or the compiler would be refused as well
    assert ask(program) == "AMX"
    assert ask(program, LD_PRELOAD=refusing) == "VNNI"
    asked = ask(LD_PRELOAD=refusing, SPLITFORMER_NATIVE="amx")
    assert asked == "False SPLITFORMER_NATIVE: this machine has no AMX"


@needs_amx
def test_a_thread_keeps_no_tiles(tmp_path: Path) -> None:
    in_use = ctypes.CDLL(compiled(IN_USE, tmp_path)).tiles_in_use
    x, weight = np.ones((20, 64), np.float32), np.ones((64, 64), np.float32)
    *_, out = linear(x, weight, None, "int8", InstructionSet.AMX)
    assert not in_use()
    np.testing.assert_allclose(out, 64, rtol=1e-6)


@needs_native
def test_a_compiler_without_amx_builds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, sources = tmp_path / "older", tmp_path / "src"
    path = " ".join(build.compiler())
    older.write_text(f'#!/bin/sh\ncase "$*" in *-mamx*) exit 1 ;; esac\nexec {path} "$@"\n')
    older.chmod(0o700)
    sources.mkdir()
    for name in ("kernels_amx.cc", "kernels.h", "row_kernels.h", "types.h"):
        shutil.copy(build.SOURCES / name, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "compiler", lambda: (str(older),))
    build.build(tmp_path / "library.so")
    assert (tmp_path / "library.so").exists()


def test_no_compiler_is_a_reason_and_no_error(tmp_path: Path) -> None:
    missing = ask(XDG_CACHE_HOME=str(tmp_path), CXX="/no/such/compiler")
    assert missing.startswith("False cannot run /no/such/compiler")
    broken = ask(XDG_CACHE_HOME=str(tmp_path), CXX="false")
    assert broken.startswith("False false failed")


def test_kernel_tests_are_skipped_without_a_compiler_but_fail_with_a_broken_one(
    tmp_path: Path,
) -> None:
    tests = [sys.executable, "-m", "pytest", "-qx", "tests/unit/test_native_kernels.py"]
    for variables, status, word in (
        ({"CXX": "", "PATH": ""}, 0, "skipped"),
        ({"CXX": "false"}, 1, "failed"),
    ):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **variables}
        done = subprocess.run(
            tests, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == status, done.stdout
        assert word in done.stdout.splitlines()[-1]


@needs_native
def test_a_processor_without_avx2_is_a_reason() -> None:
    program = """
import splitformer.native as native
from splitformer.native import binding

class Older(binding.Library):
    def __init__(self, path):
        super().__init__(path)
        self.best = native.InstructionSet.NONE

binding.Library = Older
print(native.available(), native.reason())
"""
    assert ask(program) == "False the processor lacks AVX2 or FMA"


def test_another_machine_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(build.BuildError, match="needs x86-64 Linux, this is aarch64"):
        build.find_or_build()


def test_a_change_of_any_source_changes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build._digest_of_sources()
    copy = Path(shutil.copytree(build.SOURCES, tmp_path / "src"))
    monkeypatch.setattr(build, "SOURCES", copy)
    for change in (lambda: None, lambda: (copy / "simd.h").open("a").write("// changed\n")):
        build._digest_of_sources.cache_clear()
        change()
        same = build._digest_of_sources() == before
        assert same is ("changed" not in (copy / "simd.h").read_text())
    build._digest_of_sources.cache_clear()


@needs_native
def test_concurrent_builds_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "one.cc").write_text('extern "C" int one() { return 1; }\n')
    monkeypatch.setattr(build, "SOURCES", sources)
    target = tmp_path / "out" / "library.so"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: build.build(target), range(4)))
    assert [path.name for path in target.parent.iterdir()] == ["library.so"]


def test_a_folder_that_others_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "open"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    folder = tmp_path / "open" / "splitformer" / "native"
    folder.mkdir(parents=True)
    assert build._cache_folder() == folder
    folder.chmod(0o777)
    private = tmp_path / "tmp" / f"splitformer-{os.getuid()}"
    assert build._cache_folder() == private
    assert private.stat().st_mode & 0o777 == 0o700


@needs_native
@pytest.mark.timeout(400)  # compiles everything
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizers: str) -> None:
    command = [sys.executable, "-m", "splitformer.native", "--sanitize", sanitizers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        pytest.skip(f"the compiler lacks {sanitizers}: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
