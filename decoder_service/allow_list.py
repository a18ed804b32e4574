"""Which encoders memories may be pulled from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from splitformer.errors import ConfigurationError

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_HOST = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])"
_ENTRY = re.compile(rf"(?P<host>{_HOST}|\*\.{_NAME}):(?P<port>[0-9]{{1,5}}|\*)")
_ENDPOINT = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")


class AllowList:
    """Endpoints by host and port; `*` stands for any port, or for the first label of a name.

    As in certificates, `*.example.com` is `a.example.com` but neither `example.com` nor
    `a.b.example.com`. What is not plainly host:port is never allowed, so that no endpoint can mean
    one host to this list and another to gRPC.

    Args:
        entries: host:port, host:*, *.domain:port or *.domain:*.

    Raises:
        ConfigurationError: An entry has none of these forms.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = frozenset(map(_parsed, entries))

    def allows(self, endpoint: str) -> bool:
        """True if `endpoint` is the host:port of an encoder on the list."""
        match = _ENDPOINT.fullmatch(endpoint)
        if match is None:
            return False
        host, port = match["host"].lower(), match["port"]
        domain = host.partition(".")[2] if not host.startswith("[") else ""
        hosts = (host, f"*.{domain}") if domain else (host,)
        return any((name, end) in self._entries for name in hosts for end in (port, "*"))


def _parsed(entry: str) -> tuple[str, str]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigurationError(
            f"encoders: must be host:port, host:* or *.domain:port each, got {entry!r}"
        )
    return match["host"].lower(), match["port"]
