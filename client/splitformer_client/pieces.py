"""Translating one piece of a text into one language, with the placeholders that it must keep.

Most translations have the placeholders of their source. One that lost some, or has too many, is
made again with the placeholders as terms of a glossary, which takes a beam search; so tokens of a
piece with placeholders are given when it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from splitformer.errors import FailedPreconditionError, InvalidArgumentError, UnimplementedError
from splitformer_client.fan import Fan, Services
from splitformer_client.options import GenerationOptions, TargetPrefix, with_terms
from splitformer_client.placeholders import astray, placeholders
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession
from splitformer_client.spans import Span
from splitformer_client.values import End, Token

Opening = asyncio.Task[AsyncSession]


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

    def astray(self, language: str, events: Sequence[Token | End]) -> int:
        """Return how many placeholders a translation lacks, or has beyond those of the piece.

        Of one whose beginning was given as token ids nothing is known: 0.
        """
        prefix = self.prefixes.get(language, "")
        if not isinstance(prefix, str):
            return 0
        return astray(self.text, prefix + "".join(event.text for event in events))


class Pieces:
    """Translates the pieces of a text.

    Args:
        services: Where to encode and decode.
        scope: The operation this is part of.
        source_language: Language of the pieces; empty: the model's own.
        max_tokens_per_message: 0 for one.
        keep_placeholders: Make a translation again that has not the placeholders of its source.
    """

    def __init__(
        self,
        services: Services,
        scope: Scope,
        source_language: str,
        max_tokens_per_message: int,
        keep_placeholders: bool,
    ) -> None:
        self._services = services
        self._scope = scope
        self._source_language = source_language
        self._max_tokens_per_message = max_tokens_per_message
        self._keep_placeholders = keep_placeholders

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
        kept = placeholders(piece.text) if self._keep_placeholders else ()
        strict = with_terms(options, kept) if kept else None
        events = self._generated(opening, options)
        if strict is not None:
            events = self._checked(piece, language, events, strict)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def _checked(
        self,
        piece: Piece,
        language: str,
        plain: AsyncGenerator[Token | End],
        strict: GenerationOptions,
    ) -> AsyncGenerator[Token | End]:
        """Give what was generated, or what the stricter options give if fewer go astray there."""
        found = [event async for event in plain]
        if wrong := piece.astray(language, found):
            again = await self._again(piece, language, strict)
            if again and piece.astray(language, again) < wrong:
                found = again
        for event in found:
            yield event

    async def _again(
        self, piece: Piece, language: str, strict: GenerationOptions
    ) -> list[Token | End]:
        """Translate a piece once more; nothing if its placeholders cannot be demanded."""
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
