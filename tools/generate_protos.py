"""Generate splitformer/v1 from protos/splitformer/v1, or check that it is up to date.

Usage: `python tools/generate_protos.py [--check]`. With `--check` nothing is written: the code is
generated elsewhere and compared; the exit status is 1, and the files are named, if any differs.

The proto path equals the Python path, so that generated imports read
`from splitformer.v1 import ...`. gRPC stubs are made for `*_service.proto` only. The pinned
grpcio-tools brings its own protoc, and is the lowest version we support: what it generates refuses
to run on older grpcio and protobuf, so newer tools would silently raise our floors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("splitformer/v1")
MESSAGE_OUTPUTS = ("--python_out=", "--mypy_out=")
# Concrete stubs: a servicer need not have every method, and what it lacks is UNIMPLEMENTED.
SERVICE_OUTPUTS = ("--grpc_python_out=", "--mypy_grpc_out=generate_concrete_servicer_stubs:")


def generate(out: Path) -> None:
    """Generate all modules of the package under `out`."""
    protos = sorted((PROTOS / PACKAGE).glob("*.proto"))
    if not protos:
        sys.exit(f"no .proto file in {PROTOS / PACKAGE}")
    protoc(out, MESSAGE_OUTPUTS, protos)
    services = [proto for proto in protos if proto.stem.endswith("_service")]
    if services:
        protoc(out, SERVICE_OUTPUTS, services)


def protoc(out: Path, outputs: tuple[str, ...], protos: list[Path]) -> None:
    """Run grpcio-tools' protoc once; its plugins lie beside the interpreter, not always on PATH."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"]
    command += [f"{output}{out}" for output in outputs]
    command += [str(proto) for proto in protos]
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"protoc failed:\n{done.stderr}")


def generated_files(root: Path) -> dict[Path, bytes]:
    """Read the generated modules under `root`, by their paths relative to it."""
    files = sorted((root / PACKAGE).glob("*_pb2*.py*"))
    return {file.relative_to(root): file.read_bytes() for file in files}


def check() -> int:
    """Compare the committed modules with freshly generated ones; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = generated_files(Path(folder))
    committed = generated_files(ROOT)
    stale = sorted(
        name for name in fresh.keys() | committed if fresh.get(name) != committed.get(name)
    )
    for name in stale:
        print(f"{name} does not match its .proto: run `make protos`", file=sys.stderr)
    return 1 if stale else 0


def regenerate() -> None:
    """Replace the committed modules, dropping those whose .proto is gone."""
    for name in generated_files(ROOT):
        (ROOT / name).unlink()
    generate(ROOT)
    (ROOT / PACKAGE / "__init__.py").touch()


def main() -> int:
    """Read the command line and generate or check."""
    parser = argparse.ArgumentParser(description="Generate splitformer/v1 from the protos.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    if parser.parse_args().check:
        return check()
    regenerate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
