"""Every query of every dashboard, asked of a real Prometheus over services at work."""

from __future__ import annotations

import contextlib
import math
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitformer.errors import SplitformerError
from splitformer.serving.local import LocalServices, Ports
from splitformer_client import Client, connect
from tests.support.prometheus import NEEDED, Prometheus, prometheus
from tools import dashboards, draw_dashboard
from tools.panels import DASHBOARDS
from tools.panels.overview import OVERVIEW

pytestmark = NEEDED
_PATIENCE_SECONDS = 40.0
_TEXTS = ("Open the file.", "Save all changes.", "Close the window and open the file again.")


@pytest.fixture(scope="module")
def asked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus over both services, while they are at work."""
    log = tmp_path_factory.mktemp("dashboards") / "log"
    with (
        LocalServices(Ports.free(), str(tiny_model), log) as services,
        prometheus(tmp_path_factory.mktemp("tsdb"), services.ports) as running,
        connect(services.encoder, services.decoder) as client,
    ):
        running.wait_for("up == 1", 2)
        for _ in range(3):
            work(client)
            time.sleep(1.5)  # two scrapes at least lie between the first and the last
        yield running


def work(client: Client) -> None:
    """Do what shows in the panels: references, uploads, forks, and what is refused."""
    for text in _TEXTS:
        client.translate(text, to=("ja", "de", "fr"), max_new_tokens=8)
    memory = client.encode(_TEXTS[0], delivery="inline")
    with client.open_session(memory, language="de") as session:
        list(session.generate(max_new_tokens=4))
        session.fork(keep_tokens=2).close()
    for text, language in (("", "de"), ("Open the file.", "tlh")):
        with contextlib.suppress(SplitformerError):
            client.translate(text, to=language)


def queries() -> list[Any]:
    found = []
    for dashboard in DASHBOARDS:
        for panel in dashboards.dashboard_json(dashboard)["panels"]:
            for target in panel.get("targets", []):
                name = f"{dashboard.key}: {panel['title']}: {target['legendFormat']}"
                found.append(pytest.param(target["expr"], id=name))
    return found


@pytest.mark.parametrize("expression", queries())
def test_every_query_returns_numbers(asked: Prometheus, expression: str) -> None:
    expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not numbers(asked, expression):
        assert time.monotonic() < deadline, f"no data: {expression}"
        time.sleep(0.5)


def numbers(asked: Prometheus, expression: str) -> list[float]:
    values = [float(series["value"][1]) for series in asked.ask(expression)]
    return [value for value in values if math.isfinite(value)]


def test_the_overview_can_be_drawn(asked: Prometheus) -> None:
    for panel in (panel for row in OVERVIEW.rows for panel in row.panels):
        for query in panel.queries:  # what a rule records comes a little later
            test_every_query_returns_numbers(asked, query.expression)
    picture = draw_dashboard.draw(draw_dashboard.asker(asked.url, 1), "In a test.")
    words = [node.text or "" for node in ET.fromstring(picture).iter()]
    assert "no data" not in words
    assert "In a test." in words


def test_the_menu_of_instances_has_a_label_to_choose_from(asked: Prometheus) -> None:
    (menu,) = dashboards.dashboard_json(DASHBOARDS[-1])["templating"]["list"]
    assert menu["query"]["query"] == 'label_values(up{job=~"splitformer-.+"}, instance)'
    found = {series["metric"]["instance"] for series in asked.ask('up{job=~"splitformer-.+"}')}
    assert len(found) == 2
