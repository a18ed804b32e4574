"""Translating one piece of a text into one language, as it is wished.

Most translations are as they should be. One that lost placeholders or repeats itself is made again
under stricter options; so tokens of a piece that is looked at are given when it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from splitformer.errors import FailedPreconditionError, InvalidArgumentError, UnimplementedError
from splitformer_client.fan import Fan, Services
from splitformer_client.options import GenerationOptions, TargetPrefix
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession
from splitformer_client.spans import Span
from splitformer_client.values import End, Token
from splitformer_client.wishes import Wishes, text_of

Opening = asyncio.Task[AsyncSession]

_ATTEMPTS = 2
"""Times that a translation is made again, at most: what breaks a loop may lose a placeholder."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text.

    Attributes:
        number: Which, from 0.
        text: The source.
        place: Where it begins in the whole text.
        prefixes: What its targets begin with, by language.
    """

    number: int
    text: str
    place: Span
    prefixes: Mapping[str, TargetPrefix]

    def whole(self, language: str, events: Sequence[Token | End]) -> str:
        """Return a translation behind its beginning, which is text."""
        return f"{self.prefixes.get(language, '')}{text_of(events)}"


class Pieces:
    """Translates the pieces of a text.

    Args:
        services: Where to encode and decode.
        scope: The operation this is part of.
        source_language: Language of the pieces; empty: the model's own.
        max_tokens_per_message: 0 for one.
        wishes: What translations should be like.
    """

    def __init__(
        self,
        services: Services,
        scope: Scope,
        source_language: str,
        max_tokens_per_message: int,
        wishes: Wishes,
    ) -> None:
        self._services = services
        self._scope = scope
        self._source_language = source_language
        self._max_tokens_per_message = max_tokens_per_message
        self._wishes = wishes

    def spread(
        self, piece: Piece, languages: Sequence[str]
    ) -> AbstractAsyncContextManager[Mapping[str, Opening]]:
        """Encode a piece and give its sessions as they open; leaving lets go of them."""
        fan = Fan(self._services, self._scope)
        return fan.spread(piece.text, self._source_language, languages, piece.prefixes)

    async def events(
        self, piece: Piece, language: str, opening: Opening, options: GenerationOptions
    ) -> AsyncGenerator[Token | End]:
        """Give the tokens of a piece in one language, then the end."""
        known = isinstance(piece.prefixes.get(language, ""), str)
        events = self._generated(opening, options)
        if known and self._wishes.bear_on(piece.text):
            events = self._best(piece, language, events, options)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def _best(
        self,
        piece: Piece,
        language: str,
        plain: AsyncGenerator[Token | End],
        options: GenerationOptions,
    ) -> AsyncGenerator[Token | End]:
        """Give what was generated, or what stricter options give if less is wrong with it."""
        found, wishes = [event async for event in plain], self._wishes
        for _ in range(_ATTEMPTS):
            strict = wishes.stricter(piece.text, piece.whole(language, found), options)
            if strict == options:
                break
            again, options = await self._again(piece, language, strict), strict
            tries = (found, again) if again else (found,)
            found = min(tries, key=lambda t: wishes.flaws(piece.text, piece.whole(language, t)))
        for event in found:
            yield event

    async def _again(
        self, piece: Piece, language: str, strict: GenerationOptions
    ) -> list[Token | End]:
        """Translate a piece once more; nothing if what is demanded cannot be."""
        try:
            async with self.spread(piece, (language,)) as sessions:
                return [e async for e in self._generated(sessions[language], strict)]
        except (FailedPreconditionError, InvalidArgumentError, UnimplementedError):
            return []  # no room for them, no text in the memory, no beams in the model

    async def _generated(
        self, opening: Opening, options: GenerationOptions
    ) -> AsyncGenerator[Token | End]:
        session = await asyncio.shield(opening)  # stopping it is up to the fan
        generation = session.generation(
            self._scope,
            options,
            max_tokens_per_message=self._max_tokens_per_message,
            close_on_end=True,
        )
        async with generation:
            async for token in generation:
                yield token
        yield generation.end
