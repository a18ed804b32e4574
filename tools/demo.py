"""The demo behind `make demo`: one sentence, encoded once, decoded into five languages at a time.

Starts both services with the embedded model, translates over gRPC and streams the tokens; then
shows, from the services' own metrics, that one memory fed five decodings. On a terminal the lines
grow token by token; elsewhere each language has one line, printed when it is complete.
"""

from __future__ import annotations

import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from splitformer.serving.local import LocalServices, Ports, StartError
from splitformer_client import Client, End, SplitformerError, Token, connect

SENTENCE = "Do you want to delete the selected files?"
LANGUAGES = ("ja", "de", "fr", "es", "zh_CN")
SECONDS_PER_TOKEN = 0.02
"""On a terminal we hold each token back this long, because the eye is slower than the engine."""

SHOWN_METRICS = {
    "encoder": ("splitformer_encoder_sources_total", "splitformer_encoder_source_tokens_total"),
    "decoder": (
        'splitformer_decoder_sessions_opened_total{route="reference"}',
        "splitformer_decoder_tokens_total",
        "splitformer_decoder_steps_total",
    ),
}


def main() -> int:
    """Run the demo; return the exit status."""
    try:
        with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as services:
            show(services, Console())
    except (StartError, SplitformerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def started(folder: Path) -> Iterator[LocalServices]:
    """Start both services; if a port is snatched away in between, once more with other ports."""
    with ExitStack() as stack:
        try:
            services = stack.enter_context(LocalServices(Ports.free(), log=folder / "first.log"))
        except StartError:
            services = stack.enter_context(LocalServices(Ports.free(), log=folder / "second.log"))
        yield services


def show(services: LocalServices, console: Console) -> None:
    """Translate the sentence and show how, as far as the console can."""
    print(f"encoder service {services.encoder}, decoder service {services.decoder}")
    print(f"source\t{SENTENCE}")
    with connect(services.encoder, services.decoder) as client:
        if console.is_terminal:
            stream_live(client, console)
        else:
            print_lines(client)
    print_metrics(services.ports)


def stream_live(client: Client, console: Console) -> None:
    """Let one line per language grow as its tokens come."""
    texts = dict.fromkeys(LANGUAGES, "")
    with Live(table_of(texts), console=console, auto_refresh=False) as live:
        for language, text in pieces(client):
            texts[language] += text
            live.update(table_of(texts), refresh=True)
            time.sleep(SECONDS_PER_TOKEN)


def print_lines(client: Client) -> None:
    """Print one line per language, code first."""
    texts = dict.fromkeys(LANGUAGES, "")
    for language, text in pieces(client):
        texts[language] += text
    for language, text in texts.items():
        print(f"{language}\t{text}")


def pieces(client: Client) -> Iterator[tuple[str, str]]:
    """Yield (language, text) as it becomes certain, all languages at once, from one memory."""
    for language, event in client.translate_stream(SENTENCE, to=LANGUAGES):
        assert isinstance(event, Token | End)
        yield language, event.text


def table_of(texts: dict[str, str]) -> Table:
    """Lay the languages out, one line each."""
    table = Table.grid(padding=(0, 2))
    for language, text in texts.items():
        table.add_row(f"[bold cyan]{language}[/]", text)
    return table


def print_metrics(ports: Ports) -> None:
    """Show what the services counted, and where to read it."""
    pages = {
        "encoder": f"http://127.0.0.1:{ports.encoder_metrics}/metrics",
        "decoder": f"http://127.0.0.1:{ports.decoder_metrics}/metrics",
    }
    print("\none encode, five decodings, as the services count them:")
    for service, names in SHOWN_METRICS.items():
        samples = read_metrics(pages[service])
        for name in names:
            print(f"  {name} {samples[name]:.0f}")
    print("metrics: " + "  ".join(pages.values()))


def read_metrics(page: str) -> dict[str, float]:
    """Return the samples of a /metrics page by name and labels."""
    with urllib.request.urlopen(page, timeout=5) as response:
        lines = response.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


if __name__ == "__main__":
    sys.exit(main())
