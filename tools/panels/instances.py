"""The dashboard of single instances."""

from __future__ import annotations

from tools.panels.model import (
    RATE,
    Dashboard,
    Panel,
    Query,
    Row,
    line,
    quantiles,
    rates,
)

CHOSEN = '{instance=~"$instance"}'


def each(expression: str) -> tuple[Query, ...]:
    """Return a query with one series for each instance."""
    return line(expression, "{{instance}}")


INSTANCES = Dashboard(
    "instances",
    "Splitformer: instances",
    (
        Row(
            "State",
            (
                Panel("Serving", each(f"splitformer_serving{CHOSEN}"), kind="stat", limits=(1, 0)),
                Panel("Up for", each(f"time() - process_start_time_seconds{CHOSEN}"), "s", "stat"),
                Panel(
                    "What it serves",
                    line(
                        f"splitformer_model_info{CHOSEN}",
                        "{{instance}} {{model}} {{numerics}} {{version}}",
                    ),
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Process",
            (
                Panel("CPU", each(f"rate(process_cpu_seconds_total{CHOSEN}{RATE})"), "percentunit"),
                Panel("Resident memory", each(f"process_resident_memory_bytes{CHOSEN}"), "bytes"),
                Panel("Open files", each(f"process_open_fds{CHOSEN}")),
            ),
        ),
        Row(
            "RPCs",
            (
                Panel("Running", each(f"splitformer_in_flight{CHOSEN}")),
                Panel(
                    "Ended a second",
                    rates("grpc_server_handled_total", "instance, grpc_method", CHOSEN),
                    "reqps",
                ),
                Panel(
                    "Failed a second",
                    rates("splitformer_failures_total", "instance, grpc_code, reason", CHOSEN),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Python",
            (
                Panel(
                    "Garbage collections a second",
                    rates("python_gc_collections_total", "instance, generation", CHOSEN),
                ),
                Panel(
                    "Restarts within an hour",
                    each(f"changes(process_start_time_seconds{CHOSEN}[1h])"),
                ),
                Panel(
                    "Whole RPCs, p95",
                    quantiles("grpc_server_handling_seconds", "instance", CHOSEN),
                    "s",
                ),
            ),
        ),
    ),
    instances=True,
)
