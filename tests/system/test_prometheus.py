"""A real Prometheus, where one is installed, scrapes both services with our configuration."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitformer.serving.local import LocalServices, Ports
from splitformer_client import connect
from tests.support.markdown import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
Ask = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    log = tmp_path_factory.mktemp("prometheus") / "log"
    with LocalServices(Ports.free(), str(tiny_model), log) as services:
        yield services


@pytest.fixture(scope="module")
def ask(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Starts Prometheus; gives a function that runs a query."""
    folder = tmp_path_factory.mktemp("tsdb")
    ports = local.ports
    text = CONFIG.read_text(encoding="utf-8").replace(": 5s", ": 1s").replace(": 4s", ": 1s")
    text = text.replace(":9101", f":{ports.encoder_metrics}")
    (folder / "prometheus.yml").write_text(text.replace(":9102", f":{ports.decoder_metrics}"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stderr=subprocess.DEVNULL,
    )

    def query(expression: str) -> list[Any]:
        quoted = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{quoted}", timeout=5) as page:
            found: list[Any] = json.load(page)["data"]["result"]
            return found

    yield query
    process.terminate()
    process.wait(30)


def wait_for(ask: Ask, expression: str, count: int) -> list[Any]:
    """Ask again until there are `count` series."""
    deadline = time.monotonic() + 60
    found: list[Any] = []
    while time.monotonic() < deadline:
        try:
            found = ask(expression)
        except OSError:  # not listening yet
            found = []
        if len(found) == count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{expression}: {found}")


def test_both_services_are_scraped(ask: Ask) -> None:
    jobs = {series["metric"]["job"] for series in wait_for(ask, "up == 1", 2)}
    assert jobs == {"splitformer-encoder", "splitformer-decoder"}


def test_the_queries_of_the_operating_page_are_understood(ask: Ask, local: LocalServices) -> None:
    wait_for(ask, "up == 1", 2)
    with connect(local.encoder, local.decoder) as client:
        client.translate("Open the file.", to=("ja", "de"), max_new_tokens=5)
    counted = wait_for(ask, "splitformer_decoder_tokens_total == 10", 1)
    assert counted[0]["metric"]["job"] == "splitformer-decoder"
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    queries = re.findall(r"^\| [^|`]+\? \| `([^`]+)` \|$", page, re.MULTILINE)
    assert len(queries) > 5
    for query in queries:
        ask(query)  # a query that Prometheus cannot parse is an HTTP error
