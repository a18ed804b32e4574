"""The first dashboard to look at: is it up, fast, full, and what does it do?"""

from __future__ import annotations

from tools.panels.model import (
    DECODER,
    ENCODER,
    FIRST_TOKEN,
    INTER_TOKEN,
    Dashboard,
    Panel,
    Query,
    Row,
    line,
    mean,
    of_job,
    quantiles,
    rate,
    rates,
)


def good(key: str, title: str, target: float) -> Panel:
    """Return the fraction of an objective that was good, over an hour."""
    expression = f"1 - splitformer:{key}:bad_ratio_rate1h"
    limits = (target, 1 - 2 * (1 - target))
    return Panel(title, line(expression), "percentunit", "stat", limits, f"Objective: {target:.1%}")


def full(title: str, ratio: str) -> Panel:
    """Return how full the instances are."""
    return Panel(title, line(ratio, "{{instance}}"), "percentunit", limits=(0.8, 0.9))


def serving(job: str, title: str) -> Panel:
    """Return how many instances serve."""
    return Panel(title, line(f"sum(splitformer_serving{of_job(job)})"), kind="stat", limits=(1, 0))


BURN = Panel(
    "Error budget burn, over 1 h",
    tuple(
        Query(f"splitformer:{key}:bad_ratio_rate1h / {budget}", called)
        for key, budget, called in (
            ("availability", "0.001", "availability"),
            ("first_token", "0.01", "first token"),
            ("inter_token", "0.01", "inter-token"),
        )
    ),
    limits=(1, 14.4),
    note="1: the budget of 30 days lasts 30 days. Above 14.4 somebody is paged.",
)
FAILURES = Panel(
    "Who fails, and why",
    line(
        "sum by (reason) (rate(splitformer_failures_total[$__rate_interval])) > 0",
        "{{reason}}",
    ),
    "reqps",
)
PER_CPU_SECOND = Panel(
    "Tokens per CPU second",
    line(
        "sum(splitformer:tokens_per_cpu_second:rate5m)",
        "decoders",
        Query("sum(splitformer:source_tokens_per_cpu_second:rate5m)", "encoders, source tokens"),
    ),
)
TOKENS = Panel(
    "Tokens a second",
    line(
        rate("splitformer_decoder_tokens_total"),
        "decoded",
        Query(rate("splitformer_encoder_source_tokens_total"), "encoded"),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "Splitformer: overview",
    (
        Row(
            "Is it up, and does it keep its objectives?",
            (
                serving(ENCODER, "Encoders serving"),
                serving(DECODER, "Decoders serving"),
                Panel(
                    "Alerts firing",
                    line('count(ALERTS{alertstate="firing"}) or vector(0)'),
                    kind="stat",
                    limits=(1, 2),
                ),
                good("availability", "RPCs without a failure of ours, 1 h", 0.999),
                good("first_token", "First tokens within 1 s, 1 h", 0.99),
                good("inter_token", "Tokens within 0.1 s of the last, 1 h", 0.99),
            ),
        ),
        Row("Is it fast?", (FIRST_TOKEN, INTER_TOKEN, BURN)),
        Row(
            "Where does the time go?",
            (
                Panel(
                    "The parts of a translation, p95",
                    tuple(
                        Query(quantiles(f"splitformer_{metric}_seconds")[1].expression, called)
                        for metric, called in (
                            ("encoder_queue", "wait for a batch"),
                            ("encoder_encode", "encode"),
                            ("decoder_transfer", "hand-off"),
                            ("decoder_project", "project"),
                            ("decoder_queue", "wait for a slot"),
                        )
                    ),
                    "s",
                ),
                Panel(
                    "Whole RPCs, p95",
                    quantiles("grpc_server_handling_seconds", "grpc_method"),
                    "s",
                ),
                Panel("RPCs a second", rates("grpc_server_handled_total", "grpc_method"), "reqps"),
            ),
        ),
        Row(
            "Is it full?",
            (
                full("Decoder slots", "splitformer:decoder_slots:used_ratio"),
                full("Decoder memory", "splitformer:decoder_memory:used_ratio"),
                full("Encoder queue", "splitformer:encoder_queue:used_ratio"),
                full("Encoder memory", "splitformer:encoder_memory:used_ratio"),
            ),
        ),
        Row(
            "What does it do, who fails, what does it cost?",
            (
                TOKENS,
                Panel(
                    "Sequences per step, sources per batch",
                    line(
                        mean("splitformer_decoder_batch_size"),
                        "decoder",
                        Query(mean("splitformer_encoder_batch_size"), "encoder"),
                    ),
                ),
                FAILURES,
                PER_CPU_SECOND,
            ),
        ),
    ),
)
