"""Steering a session's loop while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Self, Unpack

from splitformer.v1 import decoder_service_pb2 as pb
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer_client.convert import end_of, token_of
from splitformer_client.link import Link
from splitformer_client.options import GenerationOptions
from splitformer_client.scope import Metadata, Scope
from splitformer_client.spans import Rows
from splitformer_client.values import End, Rewound, Token
from splitformer_client.writing import options_message, written

Steered = Token | Rewound | End
"""What comes from a loop that is steered."""


class AsyncInteraction:
    """A loop that can be steered while it runs: an iterator of what comes from it.

    Tokens come as they are chosen. After `Rewound` those of its index and beyond do not count any
    more. `End` comes whenever the loop has come to an end; it can be steered on from there, and
    otherwise `finish` ends the iteration. Leaving the `async with` block cancels what is running;
    the session stays.

    Args:
        link: The decoder that holds the session.
        start: What to begin with.
        hold: Stand still at first.
        scope: Id and deadline.
        metadata: Of the session.
        rows: What the rows of its memory stand for.

    Attributes:
        tokens: The tokens that count, from the first one asked for on.
    """

    def __init__(
        self,
        link: Link,
        start: pb.GenerateRequest,
        hold: bool,
        scope: Scope,
        metadata: Metadata,
        rows: Rows,
    ) -> None:
        self._rows = rows
        self.tokens: list[Token] = []
        self._requests: asyncio.Queue[pb.InteractRequest | None] = asyncio.Queue()
        self._requests.put_nowait(pb.InteractRequest(start=start, hold=hold))
        self._ready: deque[Steered] = deque()
        method = DecoderServiceStub(link.channel).Interact
        self._messages = link.exchange(method, self._sent(), scope, metadata)

    @property
    def text(self) -> str:
        """Text of the tokens that count."""
        return "".join(token.text for token in self.tokens)

    async def force(self, token: int, *, index: int | None = None, hold: bool = False) -> None:
        """Have a token taken.

        Args:
            token: Its id.
            index: Its place; what is there already is taken back. Left out: the next place for
                which nothing has been chosen yet.
            hold: More belongs to this: the loop stands still until something does not hold.
        """
        self._send(
            pb.InteractRequest(
                force=written(pb.Force, "force.", token=token, index=index), hold=hold
            )
        )

    async def rewind(self, index: int, *, hold: bool = False) -> None:
        """Take back all tokens from an index on."""
        place = written(pb.Rewind, "rewind.", index=index)
        self._send(pb.InteractRequest(rewind=place, hold=hold))

    async def redirect(self, *, hold: bool = False, **options: Unpack[GenerationOptions]) -> None:
        """Go on with other options; those that are left out are off."""
        self._send(pb.InteractRequest(redirect=options_message(options), hold=hold))

    async def finish(self) -> None:
        """Stop; a loop that is running ends as cancelled."""
        self._send(pb.InteractRequest(finish=pb.Finish()))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Steered:
        while not self._ready:
            self._take(await self._messages.__anext__())
        event = self._ready.popleft()
        if isinstance(event, Token):
            self.tokens.append(event)
        elif isinstance(event, Rewound):
            self.tokens = [token for token in self.tokens if token.index < event.index]
        return event

    async def aclose(self) -> None:
        """Cancel what is running."""
        self._requests.put_nowait(None)
        self._messages.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _send(self, request: pb.InteractRequest) -> None:
        self._requests.put_nowait(request)

    async def _sent(self) -> AsyncIterator[pb.InteractRequest]:
        """Requests as they are made, until it is over."""
        while (request := await self._requests.get()) is not None:
            yield request

    def _take(self, message: pb.InteractResponse) -> None:
        part = message.WhichOneof("part")
        if part == "tokens":
            self._ready.extend(token_of(each, self._rows) for each in message.tokens.tokens)
        elif part == "rewound":
            self._ready.append(Rewound(message.rewound.index))
        elif part == "end":
            self._ready.append(end_of(message.end))
