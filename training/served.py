"""Translates through the two services, as users do: one encode, a decode for every language."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from splitformer.serving.local import LocalServices, Ports
from splitformer_client import EndReason, GenerationOptions, Translation, aio

IN_FLIGHT = 24
"""Texts at the services at the same time."""
SECONDS = 600.0
"""Longest wait for one text: it may queue behind others on a busy machine."""


@dataclass(frozen=True, slots=True)
class Request:
    """A text and the languages it is wanted in."""

    text: str
    languages: Sequence[str]


@dataclass(frozen=True, slots=True)
class Output:
    """What came back: the text, and whether it ended by itself."""

    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the model.

    Attributes:
        precision: of both services.
        beams: hypotheses followed; 1 is greedy.
        plain: what the model says stays as it is: no loop is broken and no placeholder demanded.
    """

    precision: str
    beams: int = 1
    plain: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        search = "greedy" if self.beams == 1 else f"beam{self.beams}"
        plain = "-plain" if self.plain else ""
        object.__setattr__(self, "name", f"{self.precision}-{search}{plain}")

    @property
    def options(self) -> GenerationOptions:
        """Options of the request."""
        return {} if self.beams == 1 else {"num_beams": self.beams}


@contextmanager
def services(model: Path, precision: str) -> Iterator[LocalServices]:
    """Runs both services on free ports of the loopback interface."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--precision", precision, "--drain-seconds", "0.1")
        log = Path(folder) / "services.log"
        with LocalServices(Ports.any(), str(model), log, seconds=180.0, flags=flags) as running:
            yield running


def translate_all(
    running: LocalServices, requests: Sequence[Request], variant: Variant
) -> list[Mapping[str, Output]]:
    """Returns the translations of every request by language, in the requests' order."""
    return asyncio.run(_translate_all(running, requests, variant))


async def _translate_all(
    running: LocalServices, requests: Sequence[Request], variant: Variant
) -> list[Mapping[str, Output]]:
    wished = not variant.plain
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with aio.connect(running.encoder, running.decoder, timeout=SECONDS) as client:

        async def one(request: Request) -> Mapping[str, Output]:
            async with gate:
                found = await client.translate(
                    request.text,
                    list(request.languages),
                    keep_placeholders=wished,
                    break_loops=wished,
                    **variant.options,
                )
            return {translation.language: _output(translation) for translation in found}

        return await asyncio.gather(*map(one, requests))


def _output(translation: Translation) -> Output:
    return Output(translation.text, translation.end.reason is not EndReason.LENGTH)
