"""A real Prometheus, where one is installed, with our configuration."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from splitformer.serving.local import Ports
from tests.support.markdown import ROOT

FOLDER = ROOT / "deploy/prometheus"
NEEDED = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus and promtool are not installed",
)
_PATIENCE_SECONDS = 60.0


class Prometheus:
    """Asks a running Prometheus.

    Args:
        url: Where its web page is.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expression: str) -> list[Any]:
        """Run a query; an HTTP error if Prometheus cannot parse it."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def get(self, page: str, **parameters: str) -> Any:
        """Return the data of a page of the HTTP interface."""
        quoted = urllib.parse.urlencode(parameters)
        url = f"{self.url}/api/v1/{page}?{quoted}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def wait_for(self, expression: str, count: int) -> list[Any]:
        """Ask again until there are `count` series."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        found: list[Any] = []
        while time.monotonic() < deadline:
            try:
                found = self.ask(expression)
            except OSError:  # not listening yet
                found = []
            if len(found) == count:
                return found
            time.sleep(0.2)
        raise AssertionError(f"{expression}: {found}")


@contextmanager
def prometheus(folder: Path, ports: Ports) -> Iterator[Prometheus]:
    """Run Prometheus over services on some ports, scraping once a second."""
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    text = re.sub(r"(interval|timeout): \ds", r"\1: 1s", text)
    text = text.replace(":9101", f":{ports.encoder_metrics}")
    (folder / "prometheus.yml").write_text(text.replace(":9102", f":{ports.decoder_metrics}"))
    shutil.copytree(FOLDER / "rules", folder / "rules")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)
