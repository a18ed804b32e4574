"""Translating: a text, whole or in pieces, into several languages at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from splitformer.errors import CancelledError, InvalidArgumentError, shown
from splitformer_client.fan import Services
from splitformer_client.options import (
    NO_PREFIXES,
    GenerationOptions,
    TargetPrefix,
    check_glossary,
    options_for,
    with_seed,
)
from splitformer_client.pieces import Opening, Piece, Pieces
from splitformer_client.rejoin import Rejoiner
from splitformer_client.scope import Scope
from splitformer_client.sentences import Sentence, has_paragraphs, split
from splitformer_client.spans import Places, Span
from splitformer_client.tasks import cancel, together
from splitformer_client.values import End, Token, Translation
from splitformer_client.wishes import NO_WISHES, Wishes, text_of

LongText = Literal["split", "refuse"]
Event = tuple[str, Token | End]


@dataclass(frozen=True, slots=True)
class Job:
    """What to translate and how.

    Attributes:
        text: The source.
        languages: Target languages, each once, in the order of the answer.
        source_language: Language of the text; empty: the model's own.
        long_text: "split" cuts a text that has several paragraphs, or is too long for the model,
            into sentences; "refuse" sends it as it is.
        max_in_flight: Sentences that are translated at the same time.
        max_tokens_per_message: 0 for one, which shows every token as soon as it is there.
        options: How tokens are chosen.
        prefixes: What targets begin with, by language; of a text in pieces, the first one's.
        wishes: What translations should be like.

    Raises:
        TypeError: The text is none.
        InvalidArgumentError: No language, one twice, an unknown `long_text`, or a glossary for a
            language that is not asked for.
    """

    text: str
    languages: tuple[str, ...]
    source_language: str = ""
    long_text: LongText = "split"
    max_in_flight: int = 8
    max_tokens_per_message: int = 0
    options: GenerationOptions = field(default_factory=GenerationOptions)
    prefixes: Mapping[str, TargetPrefix] = field(default_factory=dict)
    wishes: Wishes = NO_WISHES

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"text: must be a string, got {shown(self.text)}")
        if not self.languages or len(set(self.languages)) < len(self.languages):
            rule = "must name at least one language, and none twice"
            raise InvalidArgumentError.of("to", rule, list(self.languages))
        check_glossary(self.options, self.languages)
        if self.long_text not in ("split", "refuse"):
            raise InvalidArgumentError.of(
                "long_text", "must be 'split' or 'refuse'", self.long_text
            )


class Translating:
    """One job under way.

    Args:
        services: Where to encode and decode.
        job: What to translate and how.
        scope: Id and deadline.
    """

    def __init__(self, services: Services, job: Job, scope: Scope) -> None:
        self._services = services
        self._job = job
        self._pieces = Pieces(
            services,
            scope,
            job.source_language,
            job.max_tokens_per_message,
            job.wishes,
        )
        self._slots = asyncio.Semaphore(job.max_in_flight)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._rejoiners: dict[str, Rejoiner] = {}
        self._seeds = {language: secrets.randbits(64) for language in job.languages}

    async def translations(self) -> list[Translation]:
        """Wait for the whole, in the order of the job's languages."""
        tokens: dict[str, list[Token]] = {language: [] for language in self._job.languages}
        ends: dict[str, End] = {}
        async for language, event in self.events():
            if isinstance(event, End):
                ends[language] = event
            else:
                tokens[language].append(event)
        return [self._translation(each, tokens[each], ends[each]) for each in tokens]

    async def events(self) -> AsyncGenerator[Event]:
        """Give the tokens of every language in its order, then its end, all languages mixed.

        Closing the iterator early cancels what is running and lets go of everything.
        """
        work = asyncio.create_task(self._work())
        self._services.running.add(work)
        work.add_done_callback(self._services.running.discard)
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await _result(work)
        finally:
            await cancel([work])

    def _translation(self, language: str, tokens: list[Token], end: End) -> Translation:
        job, text = self._job, text_of([*tokens, end])
        prefix = job.prefixes.get(language, "")
        known = prefix if isinstance(prefix, str) else ""
        return Translation(language, text, tuple(tokens), end, job.text, known)

    async def _work(self) -> None:
        job = self._job
        try:
            if job.long_text == "split" and has_paragraphs(job.text):
                await self._sentence_by_sentence(self._sentences())
            else:
                await self._whole_or_pieces()
        finally:
            self._events.put_nowait(None)

    async def _whole_or_pieces(self) -> None:
        try:
            await self._whole()
        except InvalidArgumentError as error:
            await self._sentence_by_sentence(self._cut_after(error))

    async def _whole(self) -> None:
        self._arrange([Sentence(self._job.text)])
        await self._piece(0, self._job.text, _BEGINNING)

    async def _sentence_by_sentence(self, sentences: list[Sentence]) -> None:
        self._arrange(sentences)
        places = _places(sentences, self._job.text)
        await together(
            self._piece(number, sentence.text, place)
            for number, (sentence, place) in enumerate(zip(sentences, places, strict=True))
        )

    def _cut_after(self, error: InvalidArgumentError) -> list[Sentence]:
        """Cut the text if being too long is all that is wrong with it, else raise the error."""
        if error.reason != "SOURCE_TOO_LONG" or self._job.long_text == "refuse":
            raise error
        sentences = self._sentences()
        if len(sentences) < 2:
            raise error
        return sentences

    def _sentences(self) -> list[Sentence]:
        return split(self._job.text, self._job.source_language or "en")

    def _arrange(self, sentences: list[Sentence]) -> None:
        for language in self._job.languages:
            separators = [sentence.separator for sentence in sentences]
            self._rejoiners[language] = Rejoiner(language, separators)

    async def _piece(self, number: int, text: str, place: Span) -> None:
        """Translate one piece into all languages."""
        piece = Piece(number, text, place, NO_PREFIXES if number else self._job.prefixes)
        async with self._slots, self._pieces.spread(piece, self._job.languages) as sessions:
            await together(
                self._language(piece, language, opening) for language, opening in sessions.items()
            )

    async def _language(self, piece: Piece, language: str, opening: Opening) -> None:
        """Translate one piece into one language."""
        options = with_seed(options_for(self._job.options, language), self._seeds[language])
        async with contextlib.aclosing(
            self._pieces.events(piece, language, opening, options)
        ) as events:
            async for event in events:
                self._emit(piece.number, language, _moved(event, piece.place))

    def _emit(self, number: int, language: str, event: Token | End) -> None:
        """Pass on what is next in the language's order, which may be nothing yet."""
        for ready in self._rejoiners[language].add(number, event):
            self._events.put_nowait((language, ready))


_BEGINNING = Span(0, 0, 0, 0)


def _places(sentences: Sequence[Sentence], text: str) -> list[Span]:
    """Return where the sentences of a text are in it."""
    places, found, end = Places(text), list[Span](), 0
    for sentence in sentences:
        begin = text.index(sentence.text, end)
        end = begin + len(sentence.text)
        found.append(places.span(begin, end))
    return found


def _moved(event: Token | End, place: Span) -> Token | End:
    """Return a token of a piece that begins at a place in the whole text, or the piece's end."""
    if isinstance(event, End) or not (place.begin and event.aligned_spans):
        return event
    return dataclasses.replace(
        event, aligned_spans=tuple(span.behind(place) for span in event.aligned_spans)
    )


async def _result(work: asyncio.Task[None]) -> None:
    """Wait for a task; that it was cancelled by others does not cancel the caller."""
    await asyncio.wait([work])
    if work.cancelled():
        raise CancelledError("client: was closed while the call was running")
    work.result()
