"""A real Prometheus, where one is installed, scrapes both services with our configuration."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitformer.serving.local import LocalServices, Ports
from splitformer_client import connect
from tests.support.markdown import ROOT
from tests.support.prometheus import FOLDER, NEEDED, Prometheus, prometheus

pytestmark = NEEDED
OPERATING = ROOT / "docs/operating.md"
RULE_FILES = sorted((FOLDER / "rules").glob("*.yml"))
ALERT = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    log = tmp_path_factory.mktemp("prometheus") / "log"
    with LocalServices(Ports.free(), str(tiny_model), log) as services:
        yield services


@pytest.fixture(scope="module")
def asked(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("tsdb"), local.ports) as running:
        yield running


def test_both_services_are_scraped(asked: Prometheus) -> None:
    jobs = {series["metric"]["job"] for series in asked.wait_for("up == 1", 2)}
    assert jobs == {"splitformer-encoder", "splitformer-decoder"}


def test_the_queries_of_the_operating_page_are_understood(
    asked: Prometheus, local: LocalServices
) -> None:
    asked.wait_for("up == 1", 2)
    with connect(local.encoder, local.decoder) as client:
        client.translate("Open the file.", to=("ja", "de"), max_new_tokens=5)
    counted = asked.wait_for("splitformer_decoder_tokens_total == 10", 1)
    assert counted[0]["metric"]["job"] == "splitformer-decoder"
    page = OPERATING.read_text(encoding="utf-8")
    queries = re.findall(r"^\| [^|`]+\? \| `([^`]+)` \|$", page, re.MULTILINE)
    assert len(queries) > 5
    for query in queries:
        asked.ask(query)  # a query that Prometheus cannot parse is an HTTP error


def test_every_rule_is_loaded_and_evaluates(asked: Prometheus) -> None:
    asked.wait_for("splitformer:decoder_slots:used_ratio", 1)
    rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == alerts()
    assert len(rules) == sum(text_of(file).count(" expr: ") for file in RULE_FILES)
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown: not yet evaluated
    states = {rule["state"] for rule in rules if rule["type"] == "alerting"}
    assert states <= {"inactive", "pending"}  # pending: before the first scrape


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def alerts() -> set[str]:
    return {name for file in RULE_FILES for name in ALERT.findall(text_of(file))}


# --- without the services


def test_configuration_and_rules_are_valid() -> None:
    config = str(FOLDER / "prometheus.yml")
    done = promtool("check", "config", "--lint=all", "--lint-fatal", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULE_FILES)} rule files found" in done.stdout


@pytest.mark.parametrize(
    "file", sorted((FOLDER / "tests").glob("*.yml")), ids=lambda file: file.name
)
def test_alerts_fire_when_they_should_and_at_no_other_time(file: Path) -> None:
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_every_alert_fires_in_some_test() -> None:
    tests = "".join(text_of(file) for file in (FOLDER / "tests").glob("*.yml"))
    fired = set(re.findall(r"alertname: (\w+)\n +eval_time: \S+\n +exp_alerts:\n", tests))
    assert fired == alerts()
