"""Callers that never stop, for tests of what happens to them meanwhile."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from splitformer.errors import SplitformerError
from splitformer_client.aio import AsyncClient
from splitformer_client.settings import Settings
from tests.support.composed import within

_TEXTS = ("Open the file.", "Save all changes.", "Close the window and open the file again.")
_PAIRS = (("de", "fr"), ("es", "zh_CN"), ("ja", "de"))


class Load:
    """Translates on some streams at a time, from a thread of its own, until it is left.

    Attributes:
        done: Translations that succeeded.
        failures: What the others ended with.
    """

    def __init__(self, encoder: str, decoder: str, streams: int) -> None:
        self.done = 0
        self.failures: list[SplitformerError] = []
        self._settings = Settings(encoder=encoder, decoder=decoder, timeout=30.0)
        self._streams = streams
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
        """Wait until so many more have succeeded."""
        wanted = self.done + more
        within(60, lambda: self.done >= wanted, f"{self.done} done, failures: {self.failures}")

    async def _run(self) -> None:
        async with AsyncClient(self._settings) as client:
            await asyncio.gather(*(self._call(client, n) for n in range(self._streams)))

    async def _call(self, client: AsyncClient, number: int) -> None:
        while not self._stopping.is_set():
            number += 1
            try:
                await client.translate(
                    _TEXTS[number % len(_TEXTS)], to=_PAIRS[number % len(_PAIRS)], max_new_tokens=40
                )
            except SplitformerError as error:
                self.failures.append(error)
                await asyncio.sleep(0.1)
            else:
                self.done += 2
