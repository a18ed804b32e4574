"""Callers that never stop, for tests of what happens to them meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from splitformer.errors import SplitformerError
from splitformer_client.aio import AsyncClient
from splitformer_client.settings import Settings
from splitformer_client.values import Token
from tests.support.composed import within

_TEXTS = ("Open the file.", "Save all changes.", "Close the window and open the file again.")
_LANGUAGES = ("de", "fr", "es")
_TOKENS = 32
_READER_SECONDS = 0.05
"""A caller's pause after each token: that many streams are to run, not to fill the machine."""


class Load:
    """Streams translations, some at a time, from a thread of its own, until it is left.

    One text in one language gives the same tokens every time, whichever replicas are at work.

    Attributes:
        done: Streams that were read to their end.
        failures: What the others ended with.
        odd: Streams whose tokens were not those of the first of their kind.
    """

    def __init__(self, encoder: str, decoder: str, streams: int) -> None:
        self.done = 0
        self.failures: list[SplitformerError] = []
        self.odd: list[list[int]] = []
        self._settings = Settings(encoder=encoder, decoder=decoder, timeout=30.0)
        self._streams = streams
        self._known: dict[tuple[str, str], list[int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(60)

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been read to their end."""
        wanted = self.done + more
        within(60, lambda: self.done >= wanted, f"{self.done} done, failures: {self.failures}")

    async def _run(self) -> None:
        async with AsyncClient(self._settings) as client:
            await asyncio.gather(*(self._stream(client, n) for n in range(self._streams)))

    async def _stream(self, client: AsyncClient, number: int) -> None:
        while not self._stopping.is_set():
            number += 1
            text, language = _TEXTS[number % 3], _LANGUAGES[number // 3 % 3]
            tokens = client.stream(text, language, min_new_tokens=_TOKENS, max_new_tokens=_TOKENS)
            try:
                read = await _read(tokens)
            except SplitformerError as error:
                self.failures.append(error)
                await asyncio.sleep(0.1)
            else:
                self.done += 1
                if read != self._known.setdefault((text, language), read):
                    self.odd.append(read)


async def _read(tokens: AsyncGenerator[Token]) -> list[int]:
    """Read a stream to its end, in no hurry."""
    ids = []
    async with aclosing(tokens):
        async for token in tokens:
            ids.append(token.id)
            await asyncio.sleep(_READER_SECONDS)
    assert len(ids) == _TOKENS, ids
    return ids
