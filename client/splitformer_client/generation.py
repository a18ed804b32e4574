"""The tokens of one generation as they come, and how it ended."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Self

from splitformer.errors import DataLossError, FailedPreconditionError, SplitformerError
from splitformer.v1 import decoder_service_pb2 as pb
from splitformer_client.convert import end_of, hypothesis_of, token_of
from splitformer_client.link import Incoming
from splitformer_client.spans import Rows
from splitformer_client.values import End, Hypothesis, Token


class AsyncGeneration:
    """Tokens of one generation as they are produced, and afterwards how it ended.

    Dropping it, or `aclose`, cancels a generation that is still running.
    """

    def __init__(
        self,
        messages: Incoming[pb.GenerateRequest, pb.GenerateResponse]
        | Incoming[pb.DecodeRequest, pb.DecodeResponse],
        rows: Rows,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._messages = messages
        self._rows = rows
        self._on_end = on_end
        self._ready: deque[Token] = deque()
        self._hypotheses: tuple[Hypothesis, ...] = ()
        self._end: End | None = None

    @property
    def end(self) -> End:
        """How the generation ended.

        Raises:
            FailedPreconditionError: GENERATION_RUNNING, not all tokens have been read.
        """
        if self._end is None:
            raise FailedPreconditionError(
                "generation.end: known only after the last token", reason="GENERATION_RUNNING"
            )
        return self._end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        while not self._ready:
            if self._end is not None:
                raise StopAsyncIteration
            await self._receive()
        return self._ready.popleft()

    async def _receive(self) -> None:
        """Take in one message.

        Raises:
            DataLossError: STREAM_TRUNCATED, the stream ended without saying why.
        """
        async for message in self._messages:
            if message.HasField("tokens"):
                self._ready.extend(token_of(each, self._rows) for each in message.tokens.tokens)
            elif message.HasField("hypotheses"):
                self._hypotheses = tuple(map(hypothesis_of, message.hypotheses.hypotheses))
            elif message.HasField("end"):
                self._end = end_of(message.end, self._hypotheses)
                if self._on_end is not None:
                    self._on_end()
                await self._finish()
            return
        raise DataLossError("generation: ended without an end", reason="STREAM_TRUNCATED")

    async def _finish(self) -> None:
        """Wait for the status, so that the server does not see a cancelled call.

        All is known by now: a failure after the end changes nothing.
        """
        with contextlib.suppress(SplitformerError):
            async for _ in self._messages:
                pass

    async def aclose(self) -> None:
        """Cancel the generation if it is still running."""
        self._messages.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
