"""Connections to encoders, one for each, with or without TLS."""

from __future__ import annotations

import asyncio

from grpc import aio

from splitformer.serving.tls import Renewable
from splitformer.tls import TlsFiles

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),  # 30 s else: a restarted encoder may move
]
_FAREWELL_SECONDS = 60.0


class EncoderChannels:
    """Makes and keeps channels.

    Once TLS files are renewed, calls go over new connections; those that run finish on the old.

    Args:
        files: TLS files; None: without TLS.

    Raises:
        ConfigurationError: The files cannot be used.
    """

    def __init__(self, files: TlsFiles | None) -> None:
        self._renewable = Renewable(files) if files else None
        self._channels: dict[str, aio.Channel] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def to(self, endpoint: str) -> aio.Channel:
        """Return the channel to an encoder."""
        if self._renewable is not None and self._renewable.renewed():
            self._let_go()
        if endpoint not in self._channels:
            self._channels[endpoint] = self._open(endpoint)
        return self._channels[endpoint]

    async def close(self) -> None:
        """Close all channels, failing what still runs on them."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    def _open(self, endpoint: str) -> aio.Channel:
        if self._renewable is None:
            return aio.insecure_channel(endpoint, _OPTIONS)
        credentials = self._renewable.pem.channel_credentials()
        return aio.secure_channel(endpoint, credentials, _OPTIONS)

    def _let_go(self) -> None:
        for channel in self._channels.values():
            task = asyncio.ensure_future(channel.close(_FAREWELL_SECONDS))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._channels = {}
