"""`families`' figures as the table in docs/models.md: a row for each model."""

from __future__ import annotations

import re
from collections.abc import Mapping

BEGIN, END = "<!-- begin measured -->\n", "<!-- end measured -->"
HEAD = (
    "model",
    "tokens/s",
    "× CTranslate2 int8",
    "× Transformers fp32",
    "first token, ms",
    "encoder, MiB",
    "decoder, MiB",
    "both, MiB",
    "CTranslate2, MiB",
)
STREAMS = ("b1", "b8")
PARTS = ("encoder", "decoder", "both", "ctranslate2")


def in_page(page: str, figures: Mapping[str, float], machine: str) -> str:
    """Return a page with the table between its marks written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(figures)}\n\n{machine}\n{END}{after}"


def table(figures: Mapping[str, float]) -> str:
    """Return the table; "a / b" is one stream and eight."""
    names = dict.fromkeys(name.split(".")[1] for name in figures)
    lines = [HEAD, ["---"] * len(HEAD), *(_row(name, figures) for name in sorted(names, key=_size))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, figures: Mapping[str, float]) -> list[str]:
    def both(figure: str, digits: int) -> str:
        values = (figures.get(f"families.{name}.{b}.{figure}") for b in STREAMS)
        return " / ".join("–" if value is None else f"{value:.{digits}f}" for value in values)

    peaks = (figures.get(f"families.{name}.memory.{part}_mib") for part in PARTS)
    return [
        name,
        both("tokens_per_second", 0),
        both("vs_ctranslate2", 1),
        both("vs_hf", 1),
        both("ttft_ms", 0),
        *("–" if peak is None else f"{peak:.0f}" for peak in peaks),
    ]


def _size(name: str) -> tuple[str, int]:
    """Families side by side, smaller models first."""
    sizes = ("base", "small", "large")
    family, _, size = re.sub(r"-mt$", "", name).partition("-")
    return family, sizes.index(size) if size in sizes else 0
