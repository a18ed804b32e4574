"""The dashboard of the decoder services."""

from __future__ import annotations

from tools.panels.model import (
    DECODER,
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

DECODERS = Dashboard(
    "decoder",
    "Splitformer: decoder",
    (
        Row(
            "Work",
            (
                Panel("Tokens a second", line("splitformer:tokens:rate1m", "{{instance}}")),
                Panel(
                    "Tokens and sequences per step",
                    line(
                        f"{rate('splitformer_decoder_tokens_total')}"
                        f" / {rate('splitformer_decoder_steps_total')}",
                        "tokens",
                        Query(mean("splitformer_decoder_batch_size"), "sequences"),
                    ),
                ),
                Panel("One step", quantiles("splitformer_decoder_step_seconds"), "s"),
            ),
        ),
        Row(
            "Guesses",
            (
                Panel(
                    "Guessed tokens a second",
                    line(
                        rate("splitformer_decoder_drafted_tokens_total", "draft"),
                        "{{draft}}, guessed",
                        Query(
                            rate("splitformer_decoder_accepted_tokens_total", "draft"),
                            "{{draft}}, right",
                        ),
                    ),
                ),
                Panel(
                    "Share of guesses that were right",
                    line(
                        f"{rate('splitformer_decoder_accepted_tokens_total', 'draft')}"
                        f" / {rate('splitformer_decoder_drafted_tokens_total', 'draft')}",
                        "{{draft}}",
                    ),
                    "percentunit",
                ),
                Panel(
                    "Share of tokens that were guessed",
                    line(
                        f"{rate('splitformer_decoder_accepted_tokens_total')}"
                        f" / {rate('splitformer_decoder_tokens_total')}",
                        "tokens",
                    ),
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Streams",
            (
                FIRST_TOKEN,
                INTER_TOKEN,
                Panel("Wait for a slot", quantiles("splitformer_decoder_queue_seconds"), "s"),
            ),
        ),
        Row(
            "Sessions",
            (
                Panel(
                    "Sessions and generations",
                    line(
                        "sum(splitformer_decoder_sessions)",
                        "open",
                        Query("sum(splitformer_decoder_running)", "running"),
                        Query("sum(splitformer_decoder_queued)", "waiting for a turn"),
                        Query("sum(splitformer_decoder_paused)", "paused for slow readers"),
                        Query("sum(splitformer_decoder_slots)", "slots"),
                    ),
                ),
                Panel("Generations ended", rates("splitformer_decoder_generations_total", "how")),
                Panel("Sessions let go", rates("splitformer_decoder_sessions_closed_total", "how")),
            ),
        ),
        Row(
            "Memory",
            (
                Panel(
                    "Bytes reserved for sessions",
                    line(
                        "splitformer_decoder_memory_bytes",
                        "{{instance}}",
                        Query("splitformer_decoder_memory_budget_bytes", "budget of {{instance}}"),
                    ),
                    "bytes",
                ),
                Panel(
                    "Sessions opened", rates("splitformer_decoder_sessions_opened_total", "route")
                ),
                Panel("Project a memory", quantiles("splitformer_decoder_project_seconds"), "s"),
            ),
        ),
        Row(
            "RPCs and cost",
            (
                Panel(
                    "Whole RPCs, p95",
                    quantiles("grpc_server_handling_seconds", "grpc_method", of_job(DECODER)),
                    "s",
                ),
                Panel(
                    "Failures",
                    rates("splitformer_failures_total", "grpc_code, reason", of_job(DECODER)),
                    "reqps",
                ),
                Panel(
                    "Tokens per CPU second",
                    line("splitformer:tokens_per_cpu_second:rate5m", "{{instance}}"),
                ),
            ),
        ),
    ),
)
