"""Transcribing: an audio, window by window, each starting where the last one's phrases end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, get_args

from splitformer.errors import InvalidArgumentError
from splitformer_client.audio import Audio, AudioForm
from splitformer_client.decoder import Opening
from splitformer_client.fan import Fan, Services
from splitformer_client.info import SpeechInfo
from splitformer_client.listening import Window
from splitformer_client.options import GenerationOptions
from splitformer_client.phrases import Phrases
from splitformer_client.scope import Scope
from splitformer_client.values import Segment, Token, Transcript

Task = Literal["transcribe", "translate"]
Heard = Token | Segment
"""A token as it comes, or a segment whose text is certain."""

_BLINK = 1e-6  # seconds; less than a sample


@dataclass(frozen=True, slots=True)
class SpeechJob:
    """What to transcribe and how.

    Attributes:
        audio: The audio.
        form: How it is to be read.
        language: What is spoken; empty: found out in the first window.
        task: Write what was said, or write it in English.
        timestamps: Mark times; segments are phrases then, and whole windows otherwise.
        max_tokens_per_message: 0 for one, which shows every token as soon as it is there.
        options: How tokens are chosen.

    Raises:
        InvalidArgumentError: An unknown task.
    """

    audio: Audio
    form: AudioForm = field(default_factory=AudioForm)
    language: str = ""
    task: Task = "transcribe"
    timestamps: bool = True
    max_tokens_per_message: int = 0
    options: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            rule = f"must be one of {', '.join(get_args(Task))}"
            raise InvalidArgumentError.of("task", rule, self.task)


class Transcribing:
    """One job under way.

    Args:
        services: Where to encode and decode.
        job: What to transcribe and how.
        scope: Id and deadline.

    Attributes:
        language: What is spoken, once it is known.
        duration: How much audio has been heard, in seconds.
    """

    def __init__(self, services: Services, job: SpeechJob, scope: Scope) -> None:
        self._services = services
        self._job = job
        self._scope = scope
        self.language = job.language
        self.duration = 0.0

    async def transcript(self) -> Transcript:
        """Wait for the whole."""
        segments = []
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, Segment):
                    segments.append(event)
        text = "".join(segment.text for segment in segments).strip()
        return Transcript(self.language, text, tuple(segments), self.duration)

    async def events(self) -> AsyncGenerator[Heard]:
        """Give tokens as they come, and each segment once its text is certain.

        Tokens that no segment takes up were cut off by the window's end, and are heard again.
        Closing the iterator early cancels what is running and lets go of everything.
        """
        speech, start = await self._speech(), 0.0
        job, encoder = self._job, self._services.encoder
        async with encoder.listening(job.audio, job.form, self._scope) as stream:
            while True:
                window = await stream.window(start)
                phrases = Phrases(
                    window, speech.first_time_token if job.timestamps else None, speech.time_seconds
                )
                heard = self._heard(window, phrases)
                async with contextlib.aclosing(heard):
                    async for event in heard:
                        yield event
                start, self.duration = phrases.next_start, window.end
                if window.last and start > window.end - _BLINK:
                    return

    async def _heard(self, window: Window, phrases: Phrases) -> AsyncGenerator[Heard]:
        """Decode one window."""
        job = self._job
        opening = Opening(window.memory, self.language, task=job.task, timestamps=job.timestamps)
        async with Fan(self._services, self._scope).over(opening) as session:
            self.language = session.language
            generation = session.generation(
                self._scope,
                job.options,
                max_tokens_per_message=job.max_tokens_per_message,
                close_on_end=True,
            )
            async with generation:
                async for token in generation:
                    yield token
                    if segment := phrases.add(token):
                        yield segment
            if segment := phrases.finish(generation.end):
                yield segment

    async def _speech(self) -> SpeechInfo:
        info = await self._services.encoder.known_info(self._scope)
        if info.speech is None:
            raise InvalidArgumentError.of(
                "model", "must take audio", info.name, reason="SOURCE_IS_TEXT"
            )
        return info.speech
