"""The dashboard of memories on their way from encoder to decoder."""

from __future__ import annotations

from tools.panels.model import (
    Dashboard,
    Panel,
    Query,
    Row,
    line,
    mean,
    quantiles,
    rate,
    rates,
)

HAND_OFF = Dashboard(
    "hand-off",
    "Splitformer: memory hand-off",
    (
        Row(
            "From encoder to decoder",
            (
                Panel(
                    "Hand-off by route, p95",
                    quantiles("splitformer_decoder_transfer_seconds", "route"),
                    "s",
                ),
                Panel(
                    "Memory bytes a second",
                    line(
                        rate("splitformer_encoder_memory_sent_bytes_total"),
                        "sent by encoders",
                        Query(
                            rate("splitformer_decoder_memory_received_bytes_total"),
                            "received by decoders",
                        ),
                        Query(
                            rate("splitformer_encoder_memory_shared_bytes_total"),
                            "mapped on the same host",
                        ),
                    ),
                    "Bps",
                ),
                Panel(
                    "Memories by path",
                    rates("splitformer_decoder_memory_transfers_total", "path"),
                    "reqps",
                ),
                Panel(
                    "Same host, yet fetched",
                    rates("splitformer_decoder_shared_memory_fallbacks_total", "why"),
                    "reqps",
                ),
                Panel(
                    "Hand-offs that failed",
                    rates(
                        "splitformer_failures_total",
                        "reason",
                        '{reason=~"ENCODER_UNREACHABLE|CORRUPT_CHUNK|MEMORY_TRUNCATED'
                        '|MEMORY_NOT_FOUND|FINGERPRINT_MISMATCH"}',
                    ),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Memories and leases",
            (
                Panel(
                    "Fan-out: fetches per memory",
                    line(mean("splitformer_encoder_memory_fetches"), "mean"),
                ),
                Panel(
                    "Memories and leases held",
                    line(
                        "sum(splitformer_encoder_memories)",
                        "memories",
                        Query("sum(splitformer_encoder_leases)", "leases"),
                    ),
                ),
                Panel("Leases ended", rates("splitformer_encoder_lease_ends_total", "how")),
            ),
        ),
        Row(
            "Room",
            (
                Panel(
                    "Bytes under leases",
                    line(
                        "splitformer_encoder_memory_bytes",
                        "{{instance}}",
                        Query("splitformer_encoder_memory_budget_bytes", "budget of {{instance}}"),
                    ),
                    "bytes",
                ),
                Panel(
                    "Sessions opened", rates("splitformer_decoder_sessions_opened_total", "route")
                ),
                Panel(
                    "FetchMemory, whole",
                    quantiles("grpc_server_handling_seconds", "", '{grpc_method="FetchMemory"}'),
                    "s",
                ),
            ),
        ),
    ),
)
