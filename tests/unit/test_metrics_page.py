"""The metrics page: what prometheus_client would write, in a fraction of the time."""

from __future__ import annotations

import gzip
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from decoder_service.metrics import DecoderMetrics
from encoder_service.metrics import EncoderMetrics
from splitformer.serving.metrics_page import MetricsPage, Text
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import decoder_service_pb2, encoder_service_pb2  # noqa: F401 (their methods)


def theirs(registry: CollectorRegistry) -> str:
    """What prometheus_client writes; without when series were created, which services leave out."""
    families = generate_latest(registry).decode().split("# HELP ")
    return "# HELP ".join(each for each in families if "_created " not in each.partition("\n")[0])


def without_own(text: str) -> list[str]:
    """Lines but those about this process and its memory, which differ from moment to moment."""
    return [each for each in text.splitlines() if not each.startswith(("process_", "python_gc"))]


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_it_says_of_a_service_what_prometheus_client_says(kind: str) -> None:
    telemetry = Telemetry()
    {"Encoder": EncoderMetrics, "Decoder": DecoderMetrics}[kind](telemetry.registry)
    telemetry.expect([f"splitformer.v1.{kind}Service"])
    telemetry.info.labels("a", "int8", "b", "1").set(1)
    text = Text()
    for _ in range(2):  # from scratch, then from memory
        telemetry.model_requests.labels("a").inc(3)
        telemetry.handling_seconds.labels(f"splitformer.v1.{kind}Service", "GetLoad").observe(0.3)
        ours = text.of(telemetry.registry.collect()).decode()
        assert without_own(ours) == without_own(theirs(telemetry.registry))
        assert "process_resident_memory_bytes " in ours


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    asked = Counter("asked", 'By "whom"\\\nand why.', ["who"], registry=registry)
    asked.labels('a "quoted" \\ name\nof two lines, 日本').inc()
    asked.labels("somebody").inc(12345678)
    Gauge("level", "Up and down.", registry=registry).set(float("-inf"))
    Histogram("took", "Seconds.", ["who"], registry=registry).labels("somebody").observe(2e7)
    return registry


def test_names_and_numbers_of_all_kinds(registry: CollectorRegistry) -> None:
    text = Text().of(registry.collect()).decode()
    assert text == theirs(registry)
    (labels, *_) = (
        sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "asked_total"
    )
    assert labels == {"who": 'a "quoted" \\ name\nof two lines, 日本'}


def test_series_come_and_go(registry: CollectorRegistry) -> None:
    text = Text()
    gone = Gauge("model", "Loaded.", ["name"], registry=registry)
    gone.labels("a").set(1)
    assert b'model{name="a"} 1.0\n' in text.of(registry.collect())
    gone.remove("a")
    gone.labels("b").set(2)
    assert text.of(registry.collect()).decode() == theirs(registry)


@pytest.fixture
def page(registry: CollectorRegistry) -> Iterator[str]:
    served = MetricsPage(registry, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{served.port}/metrics"
    served.close()


def test_a_page_is_packed_where_that_is_accepted(registry: CollectorRegistry, page: str) -> None:
    with urllib.request.urlopen(page) as plain:
        assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = plain.read()
    assert text.decode() == theirs(registry)
    asked = urllib.request.Request(page, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(asked) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.read()) == text


def test_some_metrics_can_be_asked_for(page: str) -> None:
    with urllib.request.urlopen(f"{page}?name[]=level&name[]=unknown") as answer:
        assert answer.read() == b"# HELP level Up and down.\n# TYPE level gauge\nlevel -Inf\n"


def test_it_is_only_read(page: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(page, data=b"")
