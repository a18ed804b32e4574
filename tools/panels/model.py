"""Panels, rows, dashboards, and the queries that several of them are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """One query and how its series are called; `{{label}}` stands for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What the panel answers.
        queries: In the order of the legend.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the visualisation.
        limits: Values from which on it turns yellow and red; downwards if they fall.
        note: Shown on hovering over the title.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    limits: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Panels side by side under a title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        key: Name of its file, and part of its uid.
        title: As shown.
        rows: From top to bottom.
        instances: True if it is about the instances chosen in a menu.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    instances: bool = False


RATE = "[$__rate_interval]"
ENCODER, DECODER = "splitformer-encoder", "splitformer-decoder"


def line(expression: str, legend: str = "", *more: Query) -> tuple[Query, ...]:
    """Return queries, of which the first has this expression."""
    return (Query(expression, legend), *more)


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the rate of a counter, summed over all instances or by labels."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({metric}{where}{RATE}))"


def rates(metric: str, by: str, where: str = "") -> tuple[Query, ...]:
    """Return the rates of a counter by labels, called by their values."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return line(rate(metric, by, where), legend)


def quantiles(histogram: str, by: str = "", where: str = "") -> tuple[Query, ...]:
    """Return the median and the 95th and 99th percentile of a histogram."""
    labels, called = (f", {by}", f" {{{{{by}}}}}") if by else ("", "")
    percents = (95,) if by else (50, 95, 99)
    return tuple(
        Query(
            f"histogram_quantile({percent / 100:g}, sum by (le{labels})"
            f" (rate({histogram}_bucket{where}{RATE})))",
            f"p{percent}{called}",
        )
        for percent in percents
    )


def mean(histogram: str) -> str:
    """Return the mean of what a histogram counts."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def of_job(job: str) -> str:
    """Return a selector of one service's instances."""
    return f'{{job="{job}"}}'


FIRST_TOKEN = Panel(
    "Time to first token", quantiles("splitformer_decoder_time_to_first_token_seconds"), "s"
)
INTER_TOKEN = Panel("Between two tokens", quantiles("splitformer_decoder_inter_token_seconds"), "s")
