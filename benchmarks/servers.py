"""Server processes that benchmarks start: each prints its port once it serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from splitformer.serving.layout import Layout
from splitformer.serving.local import LocalServices, Ports, uninterrupted


@dataclass
class Started:
    """A server process."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @cached_property
    def address(self) -> str:
        """host:port, once it serves; waits until then."""
        assert self.process.stdout is not None
        return f"127.0.0.1:{int(self.process.stdout.readline())}"


@contextmanager
def started(commands: Mapping[str, list[str]]) -> Iterator[dict[str, Started]]:
    """Run `python -m …` for each command, all at once; kill them at the end."""
    servers: dict[str, Started] = {}
    try:
        for name, command in commands.items():
            with uninterrupted():
                servers[name] = _start(command)
        yield servers
    finally:
        for server in servers.values():
            server.process.kill()
        for server in servers.values():
            server.process.communicate()


def _start(command: list[str]) -> Started:
    whole = [sys.executable, "-m", *command]
    return Started(subprocess.Popen(whole, stdout=subprocess.PIPE, text=True))


def our_services(
    model: str, cache: Path, threads: int, *decoder_flags: str, flags: Sequence[str] = ()
) -> LocalServices:
    """Return our two services, which at the end wait for nobody: leases may be left."""
    flags = ("--threads", str(threads), "--drain-seconds", "0.1", *flags)
    log = cache / "services.log"
    return LocalServices(Ports.any(), model, log, flags=flags, decoder_flags=decoder_flags)


def laid_out(model: str, cache: Path) -> LocalServices:
    """Return our two services in the layout that `splitformer serve` gives them, and print it."""
    layout, flags = Layout.default(), ("--drain-seconds", "0.1")
    print(layout.line, flush=True)
    return LocalServices(Ports.any(), model, cache / "services.log", flags=flags, layout=layout)


def ctranslate2_server(model: Path, vocabulary: int, inter: int, *flags: str) -> list[str]:
    """Return the command of CTranslate2's thin server in a thread layout of two threads."""
    layout = ["--inter-threads", str(inter), "--intra-threads", str(2 // inter)]
    module = "benchmarks.peers.ctranslate2_server"
    return [module, str(model), "--vocabulary", str(vocabulary), *layout, *flags]
