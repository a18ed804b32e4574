"""Line charts as SVG: always the same bytes for the same numbers, and readable on any page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 48, 52
PAPER, INK, MUTED, GRID = "#fbfaf6", "#1f2a37", "#566373", "#dfe3e8"
COLORS = ("#2563a8", "#b8730a", "#23744f", "#6d4aa8", "#b3423a", "#64748b")
FONT = "Helvetica, Arial, sans-serif"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of lines over the same axes; x values are spread evenly, y starts at 0.

    Attributes:
        title: What is shown.
        x: What the horizontal axis counts.
        y: What the vertical axis counts.
        lines: Points (x, y) by name.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[Point]]

    def draw(self) -> str:
        """Return the SVG."""
        lines = {name: points for name, points in self.lines.items() if points}
        names = sorted({x for points in lines.values() for x, _ in points})
        top = nice_top(max(y for points in lines.values() for _, y in points))
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' font-family="{FONT}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
            _text(LEFT, 28, self.title, size=16, weight=700),
            *self._axes(names, top),
        ]
        for number, (name, points) in enumerate(lines.items()):
            placed = [(_across(names.index(x), len(names)), _up(y, top)) for x, y in points]
            parts += _line(number, name, placed)
        return "\n".join([*parts, "</svg>\n"])

    def _axes(self, names: Sequence[float], top: float) -> list[str]:
        parts = []
        for step in range(5):
            value = top * step / 4
            y = _up(value, top)
            parts.append(
                f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"'
                f' stroke="{GRID}"/>'
            )
            parts.append(_text(LEFT - 8, y + 5, f"{value:g}", anchor="end"))
        for number, name in enumerate(names):
            x = _across(number, len(names))
            parts.append(_text(x, HEIGHT - BOTTOM + 20, f"{name:g}", anchor="middle"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 10, self.x, anchor="middle"))
        parts.append(_text(LEFT, TOP - 2, self.y))
        return parts


def nice_top(value: float) -> float:
    """Return the smallest of 1, 2, 4, 6, 8 or 10 times a power of ten that is not below."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * digit for digit in (1, 2, 4, 6, 8, 10) if power * digit >= value)


def _across(number: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (number + 0.5) / count


def _up(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM - 8) * value / top


def _line(number: int, name: str, placed: Sequence[Point]) -> list[str]:
    color = COLORS[number % len(COLORS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    legend = TOP + 24 + 24 * number
    x = WIDTH - RIGHT + 16
    return [
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in placed),
        f'<rect x="{x}" y="{legend - 10}" width="12" height="12" fill="{color}"/>',
        _text(x + 18, legend, name),
    ]


def _text(
    x: float, y: float, words: str, *, size: int = 13, weight: int = 400, anchor: str = "start"
) -> str:
    color = INK if weight > 400 else MUTED
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{color}"'
        f' text-anchor="{anchor}">{escape(words)}</text>'
    )
