"""Draw docs/images/flow.svg: the life of a request in one picture, always the same bytes.

Usage: `python -m tools.draw_flow [--check]`. With `--check` nothing is written; the exit status is
1 if the committed picture differs from what would be drawn.

The picture brings its own background, so that it reads on light and dark pages alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tools.generated import checking, settle

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "flow.svg"
WIDTH, HEIGHT = 1040, 716
SANS = "Helvetica, Arial, 'Noto Sans', 'Noto Sans CJK JP', 'Hiragino Sans', sans-serif"

PAPER, INK, MUTED, WHITE = "#fbfaf6", "#1f2a37", "#566373", "#ffffff"
SLATE, BLUE, GREEN, AMBER, PURPLE = "#64748b", "#2563a8", "#23744f", "#b8730a", "#6d4aa8"
TINTS = {SLATE: "#eef1f5", BLUE: "#e8f1fb", GREEN: "#e7f5ed", AMBER: "#fdf1d8", PURPLE: "#f0eafa"}

SOURCE = ("Open", "the", "file", ".", "end")
TARGETS = (
    ("ja", ("ファイル", "を", "開く")),
    ("de", ("Datei", "öffnen", ".")),
    ("fr", ("Ouvrir", "le", "fichier")),
    ("es", ("Abrir", "el", "archivo")),
    ("zh", ("打开", "文件", "。")),
)
UNSPACED = ("ja", "zh")
SHADES = ("#f7d48a", "#f0bb55", "#fae3b3", "#e8a62f", "#f4c871", "#fcecca")
"""Cells of the memory; which cell gets which is decided by its place alone."""

LANE_TOP, LANE_STEP = 458, 44
"""Middle of the first language's lane, and the distance to the next, on both sides."""


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 15,
    color: str = INK,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    """Return words whose baseline is at y."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{color}"'
        f' text-anchor="{anchor}">{escape(words)}</text>'
    )


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    fill: str = WHITE,
    line: str = "none",
    radius: float = 8,
) -> str:
    """Return a rounded rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        f' fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
    )


def arrow(path: str, color: str, *, dashed: bool = False, width: float = 2.5) -> str:
    """Return a path that ends in an arrow head of its own color."""
    dash = ' stroke-dasharray="6 5"' if dashed else ""
    return (
        f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{dash}'
        f' stroke-linecap="round" marker-end="url(#head-{color[1:]})"/>'
    )


def badge(x: float, y: float, number: int, color: str) -> str:
    """Return the number of a step in a disc around (x, y)."""
    disc = f'<circle cx="{x:g}" cy="{y:g}" r="12" fill="{color}"/>'
    digit = text(x, y + 5, str(number), size=14, color=WHITE, weight=700, anchor="middle")
    return disc + digit


def chip(x: float, middle: float, words: str, color: str, width: float) -> str:
    """Return one token in a frame."""
    frame = box(x, middle - 13, width, 26, line=color, radius=6)
    return frame + text(x + width / 2, middle + 5, words, size=14, anchor="middle")


def chip_width(words: str) -> float:
    """Estimate the width of a chip; East Asian characters are as wide as they are high."""
    return 16 + sum(14 if ord(letter) > 0x2E80 else 7.6 for letter in words)


def service(y: float, height: float, color: str, name: str, motto: str) -> Iterator[str]:
    """Draw the frame of one service on the right side."""
    yield box(352, y, 664, height, fill=TINTS[color], line=color, radius=14)
    yield text(372, y + 32, name, size=19, color=color, weight=700)
    yield text(556, y + 32, motto, size=14, color=MUTED)


def client() -> Iterator[str]:
    """Draw the client: a source at the top, five growing texts at the bottom."""
    yield box(24, 24, 196, 668, fill=TINTS[SLATE], line=SLATE, radius=14)
    yield text(44, 56, "Client", size=19, color=SLATE, weight=700)
    yield text(44, 78, "SDK, CLI or gRPC stub", size=14, color=MUTED)
    yield box(44, 96, 156, 40, line=SLATE)
    yield text(122, 121, "“Open the file.”", size=15, anchor="middle")
    yield box(44, 172, 156, 58, fill=TINTS[AMBER], line=AMBER)
    yield text(122, 196, "memory reference", size=14, weight=700, color=AMBER, anchor="middle")
    yield text(122, 217, "id, shape, lease", size=14, color=MUTED, anchor="middle")
    yield arrow("M122 234V330", AMBER, dashed=True)
    yield box(44, 336, 156, 62, fill=WHITE, line=SLATE)
    yield text(122, 362, "one session", size=14, weight=700, color=SLATE, anchor="middle")
    yield text(122, 383, "per language", size=14, color=MUTED, anchor="middle")
    yield text(44, 430, "five texts grow", size=14, color=MUTED)
    for row, (language, tokens) in enumerate(TARGETS):
        middle = LANE_TOP + row * LANE_STEP
        yield box(44, middle - 16, 156, 32, line=SLATE)
        yield text(54, middle + 5, language, size=14, color=SLATE, weight=700)
        joined = ("" if language in UNSPACED else " ").join(tokens).replace(" .", ".")
        yield text(82, middle + 5, joined, size=14)


def encoder() -> Iterator[str]:
    """Draw the encoder service: tokens in, one matrix out."""
    yield from service(24, 234, BLUE, "Encoder service", "all positions at once · in batches")
    yield badge(384, 82, 2, BLUE)
    yield text(402, 87, "tokenise", size=14)
    yield text(512, 87, "encode in one pass", size=14)
    yield text(806, 87, "memory  S × D", size=15, color=AMBER, weight=700)
    yield box(512, 102, 228, 136, line=BLUE, radius=10)
    for row, (title, note) in enumerate(
        (("self-attention", "mixes the rows"), ("feed-forward", "works inside each row"))
    ):
        yield box(526, 118 + row * 54, 200, 46, fill=TINTS[BLUE])
        yield text(626, 137 + row * 54, title, size=14, weight=700, color=BLUE, anchor="middle")
        yield text(626, 155 + row * 54, note, size=13, color=MUTED, anchor="middle")
    for row, token in enumerate(SOURCE):
        middle = 116 + row * 27
        yield chip(394, middle, token, BLUE, 64)
        yield arrow(f"M464 {middle}H506", BLUE, width=1.5)
        yield arrow(f"M746 {middle}H800", BLUE, width=1.5)
    yield from matrix(806, 103, 5, 10, 18, 27)


def matrix(x: float, y: float, rows: int, columns: int, width: int, height: int) -> Iterator[str]:
    """Draw the memory: one row per source token, one column per element."""
    for row in range(rows):
        for column in range(columns):
            shade = SHADES[(row * 31 + column * 17 + row * column * 7) % 11 % len(SHADES)]
            cell = box(x + column * width, y + row * height, width - 2, height - 3, radius=3)
            yield cell.replace(WHITE, shade)


def decoder() -> Iterator[str]:
    """Draw the decoder service: keys and values once, then the loop over all sessions."""
    yield from service(
        346, 346, GREEN, "Decoder service", "stateful · all live sessions in one batch"
    )
    yield badge(806, 424, 5, PURPLE)
    yield text(826, 429, "K and V, projected once", size=14)
    for letter, y in (("K", 452), ("V", 538)):
        for layer in (2, 1, 0):
            yield box(842 + layer * 12, y - layer * 6 + 12, 96, 54, fill=TINTS[PURPLE], line=PURPLE)
        yield text(890, y + 45, letter, size=20, color=PURPLE, weight=700, anchor="middle")
    yield text(890, 642, "of every layer, kept for the", size=13, color=MUTED, anchor="middle")
    yield text(890, 660, "session until it is let go", size=13, color=MUTED, anchor="middle")
    yield from loop()
    for row, (language, tokens) in enumerate(TARGETS):
        middle = LANE_TOP + row * LANE_STEP
        yield text(370, middle + 5, language, size=14, color=GREEN, weight=700)
        x = 396.0
        for token in tokens:
            yield chip(x, middle, token, GREEN, chip_width(token))
            x += chip_width(token) + 5


def loop() -> Iterator[str]:
    """Draw the three verbs of the engine as a cycle."""
    yield badge(622, 424, 6, GREEN)
    yield text(642, 429, "one token a step", size=14)
    verbs = (
        ("schedule", "who takes part"),
        ("step", "one pass, all rows"),
        ("publish", "hand over"),
    )
    for row, (verb, note) in enumerate(verbs):
        y = 448 + row * 74
        yield box(628, y, 132, 50, line=GREEN, radius=10)
        yield text(694, y + 21, verb, size=15, color=GREEN, weight=700, anchor="middle")
        yield text(694, y + 40, note, size=13, color=MUTED, anchor="middle")
    yield arrow("M694 500V518", GREEN)
    yield arrow("M694 574V592", GREEN)
    yield arrow("M628 621H612V473H622", GREEN)
    yield arrow("M766 538H834", GREEN)
    yield text(798, 529, "Q", size=14, color=GREEN, weight=700, anchor="middle")
    yield arrow("M834 558H768", PURPLE)
    yield text(801, 577, "mix of V", size=13, color=PURPLE, anchor="middle")


def messages() -> Iterator[str]:
    """Draw what travels between the three."""
    yield arrow("M204 116H346", SLATE)
    yield badge(252, 94, 1, SLATE)
    yield text(272, 99, "source", size=14)
    yield arrow("M350 201H208", AMBER, dashed=True)
    yield text(286, 191, "reference", size=14, anchor="middle")
    yield arrow("M204 352H346", SLATE)
    yield badge(252, 331, 3, SLATE)
    yield text(272, 336, "open", size=14)
    yield arrow("M894 246V398", AMBER, width=5)
    yield badge(868, 302, 4, AMBER)
    yield text(848, 299, "the decoder pulls the memory;", size=14, anchor="end")
    yield text(848, 318, "it never crosses the client", size=14, color=MUTED, anchor="end")
    yield text(914, 299, "each holder", size=14)
    yield text(914, 318, "has a lease", size=14, color=MUTED)
    yield arrow("M204 384H346", SLATE)
    yield badge(240, 407, 7, SLATE)
    yield text(258, 412, "resume, stop", size=13)
    for row in range(len(TARGETS)):
        yield arrow(f"M364 {LANE_TOP + row * LANE_STEP}H208", GREEN, width=2)
    yield badge(240, 663, 8, GREEN)
    yield text(258, 668, "tokens, End", size=14)


def heads(colors: Sequence[str]) -> Iterator[str]:
    """Define one arrow head per color."""
    for color in colors:
        yield (
            f'<marker id="head-{color[1:]}" viewBox="0 0 10 10" refX="7" refY="5" markerWidth="11"'
            ' markerHeight="11" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0.5L10 5L0 9.5z" fill="{color}"/></marker>'
        )


def draw() -> str:
    """Return the whole picture."""
    title = "One source becomes one memory; five sessions decode it into five languages."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" role="img" aria-label="{title}" font-family="{SANS}">',
        f"<title>{title}</title>",
        "<defs>",
        *heads((SLATE, BLUE, GREEN, AMBER, PURPLE)),
        "</defs>",
        box(0.75, 0.75, WIDTH - 1.5, HEIGHT - 1.5, fill=PAPER, line="#d9d5c9", radius=18),
        *client(),
        *encoder(),
        *decoder(),
        *messages(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Draw the picture, or check it."""
    return settle({PICTURE: draw()}, checking("Draw docs/images/flow.svg."))


if __name__ == "__main__":
    sys.exit(main())
