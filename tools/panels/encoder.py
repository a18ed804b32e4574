"""The dashboard of the encoder services."""

from __future__ import annotations

from tools.panels.model import (
    ENCODER,
    Dashboard,
    Panel,
    Query,
    Row,
    line,
    of_job,
    quantiles,
    rate,
    rates,
)

ENCODERS = Dashboard(
    "encoder",
    "Splitformer: encoder",
    (
        Row(
            "Work",
            (
                Panel("Sources a second", line(rate("splitformer_encoder_sources_total"), "all")),
                Panel(
                    "Source tokens a second",
                    line("splitformer:source_tokens:rate1m", "{{instance}}"),
                ),
                Panel(
                    "Padding: share of positions computed for nothing",
                    line(
                        f"{rate('splitformer_encoder_padding_tokens_total')}"
                        f" / ({rate('splitformer_encoder_padding_tokens_total')}"
                        f" + {rate('splitformer_encoder_batch_tokens_sum')})",
                        "padding",
                    ),
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Batches",
            (
                Panel("Sources per batch", quantiles("splitformer_encoder_batch_size")),
                Panel("Tokens per batch", quantiles("splitformer_encoder_batch_tokens")),
                Panel(
                    "Queue: sources without an answer",
                    line(
                        "splitformer_encoder_open_sources",
                        "{{instance}}",
                        Query("splitformer_encoder_queue_limit", "limit of {{instance}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel("Wait for a batch", quantiles("splitformer_encoder_queue_seconds"), "s"),
                Panel("Encode a batch", quantiles("splitformer_encoder_encode_seconds"), "s"),
                Panel("Tokenise", quantiles("splitformer_encoder_tokenize_seconds"), "s"),
            ),
        ),
        Row(
            "RPCs and cost",
            (
                Panel(
                    "Whole RPCs, p95",
                    quantiles("grpc_server_handling_seconds", "grpc_method", of_job(ENCODER)),
                    "s",
                ),
                Panel(
                    "Failures",
                    rates("splitformer_failures_total", "grpc_code, reason", of_job(ENCODER)),
                    "reqps",
                ),
                Panel(
                    "Source tokens per CPU second",
                    line("splitformer:source_tokens_per_cpu_second:rate5m", "{{instance}}"),
                ),
            ),
        ),
    ),
)
