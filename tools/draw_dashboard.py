"""Draw the overview dashboard's panels as a picture, from what a running Prometheus answers.

Usage: `python tools/draw_dashboard.py [--prometheus URL] [--minutes N] [--note TEXT] [FILE]`.
Every query is the dashboard's own; nothing is drawn that Prometheus did not return. Needs nothing
but Python's standard library.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.draw_flow import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    PURPLE,
    SANS,
    SLATE,
    WHITE,
    box,
    text,
)
from tools.panels.model import Panel, Query
from tools.panels.overview import OVERVIEW

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "overview.svg"
WIDTH, MARGIN, GAP = 1040, 20, 12
HEIGHTS = {"stat": 78, "timeseries": 196}
COLORS = (BLUE, AMBER, GREEN, PURPLE, SLATE, "#b23b3b", "#2b8a8a", "#8a6d2b", "#c05a9d", INK)
STEPS = 120
MOST_IN_LEGEND = 5

Points = list[tuple[float, float]]
Ask = Callable[[str], list[Any]]


@dataclass(frozen=True)
class Series:
    """One line of a panel."""

    name: str
    points: Points


def asker(prometheus: str, minutes: float) -> Ask:
    """Return what runs a query over the last minutes."""
    end = time.time()
    start = end - minutes * 60
    step = max(1.0, (end - start) / STEPS)
    window = f"{math.ceil(max(15.0, 4 * step))}s"

    def ask(expression: str) -> list[Any]:
        query = expression.replace("$__rate_interval", window)
        asked = {"query": query, "start": start, "end": end, "step": step}
        url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found

    return ask


def series_of(query: Query, panel: Panel, ask: Ask) -> list[Series]:
    """Run a query and name what comes as its legend says."""
    found = []
    for result in ask(query.expression):
        name = query.legend
        for label in re.findall(r"\{\{(\w+)\}\}", name):
            name = name.replace(f"{{{{{label}}}}}", result["metric"].get(label, ""))
        points = [(float(at), float(value)) for at, value in result["values"]]
        points = [(at, value) for at, value in points if math.isfinite(value)]
        if points:
            found.append(Series(name or panel.title, points))
    return found


def shown(value: float, unit: str) -> str:
    """Write a value in its unit."""
    if unit == "percentunit":
        return f"{100 * value:.4g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def stat(
    panel: Panel, series: list[Series], left: float, top: float, width: float
) -> Iterator[str]:
    """Draw the last value, large."""
    value = shown(series[0].points[-1][1], panel.unit) if series else "no data"
    yield box(left, top, width, HEIGHTS["stat"], fill=WHITE, line="#d9d6cc")
    for number, words in enumerate(wrapped(panel.title, width, 7.0)):
        yield text(left + 10, top + 18 + 14 * number, words, size=13, color=MUTED)
    yield text(left + 10, top + 68, value, size=24, color=GREEN, weight=700)


def wrapped(words: str, width: float, letter: float) -> list[str]:
    """Cut a title into lines that fit."""
    lines = [""]
    for word in words.split():
        if lines[-1] and letter * len(f"{lines[-1]} {word}") > width - 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def chart(
    panel: Panel, series: list[Series], left: float, top: float, width: float
) -> Iterator[str]:
    """Draw lines over time, with the largest value and a legend of last values."""
    height = HEIGHTS["timeseries"]
    yield box(left, top, width, height, fill=WHITE, line="#d9d6cc")
    titles = wrapped(panel.title, width, 7.8)
    for number, words in enumerate(titles):
        yield text(left + 10, top + 19 + 15 * number, words, size=13, weight=700)
    most = sorted(series, key=lambda each: -max(value for _, value in each.points))
    listed = most[:MOST_IN_LEGEND]
    floor, ceiling = top + height - 14 - 15 * len(listed), top + 24 + 15 * len(titles)
    highest = max((value for each in series for _, value in each.points), default=0.0) or 1.0
    yield f'<path d="M {left + 10:g} {floor:g} h {width - 20:g}" stroke="#d9d6cc"/>'
    yield text(left + 10, ceiling - 4, f"max {shown(highest, panel.unit)}", size=13, color=MUTED)
    for number, each in enumerate(most):
        color = COLORS[min(number, len(COLORS) - 1)]
        yield curve(
            each.points,
            span(series),
            highest,
            (left + 10, floor, width - 20, floor - ceiling),
            color,
        )
    for number, each in enumerate(listed):
        y = floor + 16 + 15 * number
        yield box(left + 10, y - 8, 9, 8, fill=COLORS[number], radius=1)
        value = shown(each.points[-1][1], panel.unit)
        room = int((width - 40) / 7.8) - len(value)
        yield text(left + 24, y, f"{each.name[:room]}  {value}", size=13, color=INK)


def span(series: list[Series]) -> tuple[float, float]:
    """Return the first and the last time."""
    times = [at for each in series for at, _ in each.points]
    return min(times), max(times)


def curve(
    points: Points,
    times: tuple[float, float],
    highest: float,
    place: tuple[float, float, float, float],
    color: str,
) -> str:
    """Return one line, 0 at the floor of its place and the highest value at its top."""
    left, floor, width, height = place
    start, seconds = times[0], max(times[1] - times[0], 1.0)
    spots = (
        f"{left + width * (at - start) / seconds:.1f} {floor - height * value / highest:.1f}"
        for at, value in points
    )
    return f'<path d="M {" L ".join(spots)}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def draw(ask: Ask, note: str) -> str:
    """Return the picture."""
    parts, top = [text(MARGIN, 34, OVERVIEW.title, size=20, weight=700)], 58.0
    parts.append(text(MARGIN, 54, note, size=13, color=MUTED))
    for row in OVERVIEW.rows:
        top += 34
        parts.append(text(MARGIN, top - 8, row.title, size=15, color=MUTED, weight=700))
        width = (WIDTH - 2 * MARGIN - GAP * (len(row.panels) - 1)) / len(row.panels)
        for column, panel in enumerate(row.panels):
            series = [each for query in panel.queries for each in series_of(query, panel, ask)]
            drawn = stat if panel.kind == "stat" else chart
            parts += drawn(panel, series, MARGIN + column * (width + GAP), top, width)
        top += max(HEIGHTS[panel.kind] for panel in row.panels)
    return framed(parts, top + MARGIN)


def framed(parts: list[str], height: float) -> str:
    """Put a background behind the parts."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        f' font-family="{SANS}">\n<title>{OVERVIEW.title}</title>\n'
        f"{box(0, 0, WIDTH, height, fill=PAPER, radius=12)}\n{body}\n</svg>\n"
    )


def main() -> None:
    """Read the command line, ask and draw."""
    parser = argparse.ArgumentParser(description="Draw the overview from a running Prometheus.")
    parser.add_argument("--prometheus", default="http://localhost:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=15, help="how far to look back")
    parser.add_argument("--note", default="", help="a line below the title")
    parser.add_argument("file", nargs="?", type=Path, default=PICTURE)
    given = parser.parse_args()
    picture = draw(asker(given.prometheus, given.minutes), given.note)
    given.file.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
