"""The `/metrics` page of a registry, in Prometheus' text format 0.0.4.

It is written beside the engine's and the event loop's threads, which wait for Python's lock
meanwhile; so each line's beginning, which never changes, is put together once.
"""

from __future__ import annotations

import gzip
import selectors
import socket
import threading
from collections.abc import Iterable
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_CONTENT_TYPE = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Text:
    """Writes counters, gauges and histograms as text; the same lines as prometheus_client's."""

    def __init__(self) -> None:
        self._beginnings: dict[tuple[str, ...], str] = {}

    def of(self, families: Iterable[Metric]) -> bytes:
        """Return the page; when series were created is left out."""
        lines: list[str] = []
        for family in families:
            name = family.name + "_total" if family.type == "counter" else family.name
            about = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
            lines.append(f"# HELP {name} {about}\n# TYPE {name} {family.type}\n")
            created = family.name + "_created"
            lines += [self._line(each) for each in family.samples if each.name != created]
        return "".join(lines).encode()

    def _line(self, sample: Sample) -> str:
        key = (sample.name, *sample.labels.values())
        beginning = self._beginnings.get(key)
        if beginning is None:
            beginning = self._beginnings[key] = _beginning(sample)
        value = sample.value
        text = floatToGoString(value) if value else "0.0"  # type: ignore[no-untyped-call]
        return f"{beginning} {text}\n"


class MetricsPage:
    """Serves the page of a registry at every path; `?name[]=` asks for some metrics only.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._registry = registry
        self._text = Text()
        kind = _server_kind(host, port)
        self._server = make_server(host, port, self._answer, kind, handler_class=_QuietHandler)
        self._server.timeout = 0  # if who had connected is gone again
        self._closing, self._close = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._close.close()
        self._thread.join()
        self._closing.close()
        self._server.server_close()

    def _serve(self) -> None:
        """Answer until closed; unlike `serve_forever`, sleep until there is something to do."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._server, selectors.EVENT_READ)
            waiting.register(self._closing, selectors.EVENT_READ)
            while self._closing not in [key.fileobj for key, _ in waiting.select()]:
                self._server.handle_request()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return [b""]
        headers = [_CONTENT_TYPE]
        page = self._text.of(self._families(parse_qs(environ["QUERY_STRING"]).get("name[]")))
        if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            headers.append(("Content-Encoding", "gzip"))
            page = gzip.compress(page, compresslevel=1)
        start_response("200 OK", headers)
        return [page]

    def _families(self, names: list[str] | None) -> Iterable[Metric]:
        registry = self._registry.restricted_registry(names) if names else self._registry
        return registry.collect()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Log nothing: a page that is read every few seconds is no news."""


def _beginning(sample: Sample) -> str:
    pairs = (f'{key}="{value.translate(_ESCAPED)}"' for key, value in sorted(sample.labels.items()))
    labels = ",".join(pairs)
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _server_kind(host: str, port: int) -> type[ThreadingWSGIServer]:
    """A server class for the host's address family, IPv4 or IPv6."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return type("MetricsServer", (ThreadingWSGIServer,), {"address_family": family})
