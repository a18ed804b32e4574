"""The dashboards as files: as the script writes them, as Grafana's own types read them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.markdown import ROOT
from tools import dashboards
from tools.panels import DASHBOARDS
from tools.panels.overview import OVERVIEW

GRAFANA = ROOT / "deploy/grafana"
register_default_plugins()  # so that options and queries are read by the types of their plugins
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def plain(value: Any) -> Any:
    """Return what Grafana's types hold as plain JSON values."""
    if hasattr(value, "to_json"):
        value = value.to_json()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def lost(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Name what is in our file and not, or differently, in what Grafana's types made of it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            place
            for key, value in ours.items()
            for place in (
                lost(value, theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}"]
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [place for i, (a, b) in pairs for place in lost(a, b, f"{path}[{i}]")]
    return [] if ours == theirs else [path]


@EACH
def test_grafanas_own_types_know_every_field(file: Path) -> None:
    ours = read(file)
    assert lost(ours, plain(Dashboard.from_json(ours))) == []


def test_a_field_that_grafana_does_not_know_is_noticed() -> None:
    ours = read(FILES[0])
    panel = ours["panels"][1]
    panel["gridPos"]["width"] = panel["targets"][0]["query"] = panel["options"]["colour"] = "x"
    ours["titel"] = "x"
    assert set(lost(ours, plain(Dashboard.from_json(ours)))) == {
        ".titel",
        ".panels[1].gridPos.width",
        ".panels[1].targets[0].query",
        ".panels[1].options.colour",
    }


def test_there_is_a_file_for_each_dashboard_and_no_other() -> None:
    assert {file.stem for file in FILES} == {dashboard.key for dashboard in DASHBOARDS}
    assert len({read(file)["uid"] for file in FILES}) == len(FILES)


@EACH
def test_panels_have_their_own_ids_and_do_not_overlap(file: Path) -> None:
    panels = read(file)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in (panel["gridPos"] for panel in panels)
    ]
    assert all(a.isdisjoint(b) for a, b in combinations(cells, 2))
    assert max(x for place in cells for x, _ in place) < dashboards.GRID_WIDTH


def test_queries_speak_of_metrics_and_rules_that_exist() -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z_]+)` \| (?:counter|gauge|histogram)", page, re.MULTILINE))
    known = {name + suffix for name in listed for suffix in ("", "_bucket", "_count", "_sum")}
    rules = "".join(file.read_text() for file in (ROOT / "deploy/prometheus/rules").glob("*.yml"))
    known |= set(re.findall(r"record: (\S+)", rules))
    for file in FILES:
        for panel in read(file)["panels"]:
            for target in panel.get("targets", []):
                used = set(
                    re.findall(r"\b(?:splitformer|grpc_server)[a-z_]*(?::\w+)*", target["expr"])
                )
                names = {name for name in used if ":" in name or "_" in name}
                assert names - {"grpc_method", "grpc_code"} <= known, target["expr"]


def test_provisioning_points_to_what_is_there() -> None:
    (source,) = yaml.safe_load(text("datasources/prometheus.yml"))["datasources"]
    assert source["uid"] == dashboards.SOURCE["uid"]
    assert source["type"] == dashboards.SOURCE["type"]
    (provider,) = yaml.safe_load(text("dashboards/splitformer.yml"))["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    uids = {read(file)["panels"][1]["datasource"]["uid"] for file in FILES}
    assert uids == {source["uid"]}


def text(name: str) -> str:
    return (GRAFANA / "provisioning" / name).read_text(encoding="utf-8")


def test_the_picture_in_the_docs_shows_the_overviews_panels() -> None:
    picture = (ROOT / "docs/images/overview.svg").read_text(encoding="utf-8")
    words = " ".join(node.text or "" for node in ET.fromstring(picture).iter())
    for row in OVERVIEW.rows:
        assert row.title in words
        for panel in row.panels:
            assert panel.title in words
    assert "no data" not in words
