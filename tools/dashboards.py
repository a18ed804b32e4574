"""Write the Grafana dashboards in deploy/grafana/dashboards from `tools/panels/`.

Usage: `python -m tools.dashboards [--check]`. With `--check` nothing is written; the exit status is
1, and the files are named, if one differs. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.generated import checking, settle
from tools.panels import DASHBOARDS
from tools.panels.model import Dashboard, Panel, Row

FOLDER = Path(__file__).resolve().parent.parent / "deploy/grafana/dashboards"
SOURCE = {"type": "prometheus", "uid": "splitformer-prometheus"}
GRID_WIDTH, ROW_HEIGHT = 24, 1
HEIGHTS = {"stat": 4, "timeseries": 8}
Json = dict[str, Any]


def dashboard_json(dashboard: Dashboard) -> Json:
    """Return a dashboard as Grafana's JSON model."""
    return {
        "uid": f"splitformer-{dashboard.key}",
        "title": dashboard.title,
        "tags": ["splitformer"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 41,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [links()],
        "annotations": {"list": []},
        "templating": {"list": [instance_menu()] if dashboard.instances else []},
        "panels": list(panels(dashboard.rows)),
    }


def links() -> Json:
    """Return the menu that leads from one of our dashboards to the others."""
    return {
        "title": "Splitformer",
        "type": "dashboards",
        "icon": "external link",
        "tooltip": "",
        "tags": ["splitformer"],
        "asDropdown": True,
        "targetBlank": False,
        "includeVars": False,
        "keepTime": True,
    }


def instance_menu() -> Json:
    """Return the menu of instances."""
    query = 'label_values(up{job=~"splitformer-.+"}, instance)'
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": "All", "value": "$__all"},
    }


def panels(rows: tuple[Row, ...]) -> Iterator[Json]:
    """Yield the panels, each row under its title, across the whole width."""
    top, number = 0, 1
    for row in rows:
        place = {"h": ROW_HEIGHT, "w": GRID_WIDTH, "x": 0, "y": top}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        top += ROW_HEIGHT
        width, height = GRID_WIDTH // len(row.panels), max(HEIGHTS[p.kind] for p in row.panels)
        for column, panel in enumerate(row.panels):
            place = {"h": height, "w": width, "x": column * width, "y": top}
            yield panel_json(panel, number + 1 + column, place)
        top += height
        number += 1 + len(row.panels)


def panel_json(panel: Panel, number: int, place: Json) -> Json:
    """Return one panel."""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or panel.title,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": options(panel),
    }


def defaults(panel: Panel) -> Json:
    """Return unit, axis and colours of a panel."""
    found: Json = {"unit": panel.unit, "thresholds": thresholds(panel.limits)}
    if panel.kind == "timeseries":
        found["min"] = 0
        found["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
    return found


def thresholds(limits: tuple[float, float] | None) -> Json:
    """Return the colours by value."""
    steps: list[Json] = [{"value": None, "color": "green"}]
    if limits is not None:
        first, second = limits
        colors = ("yellow", "red") if first < second else ("yellow", "green")
        if first >= second:  # what is low is bad
            steps = [{"value": None, "color": "red"}]
        values = sorted(limits)
        steps += [{"value": v, "color": c} for v, c in zip(values, colors, strict=True)]
    return {"mode": "absolute", "steps": steps}


def options(panel: Panel) -> Json:
    """Return what is particular to a visualisation."""
    if panel.kind == "stat":
        calculated = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": calculated, "colorMode": "value", "graphMode": "area"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def written(dashboard: Dashboard) -> str:
    """Return a dashboard's file."""
    return json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files, or check them."""
    check = checking("Write the Grafana dashboards.")
    return settle({FOLDER / f"{each.key}.json": written(each) for each in DASHBOARDS}, check)


if __name__ == "__main__":
    sys.exit(main())
