"""A session for code without asyncio: the asynchronous one behind plain calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, Unpack

from splitformer_client.generation import AsyncGeneration
from splitformer_client.info import SessionInfo
from splitformer_client.interaction import AsyncInteraction, Steered
from splitformer_client.options import GenerationOptions
from splitformer_client.portal import Portal, Stream
from splitformer_client.session import AsyncSession
from splitformer_client.values import End, Score, Token


class Generation(Stream[Token]):
    """Tokens of one generation as they come, and afterwards how it ended."""

    def __init__(self, portal: Portal, generation: AsyncGeneration) -> None:
        super().__init__(portal, generation)
        self._generation = generation

    @property
    def end(self) -> End:
        """How the generation ended; FailedPreconditionError before all tokens have been read."""
        return self._generation.end


class Interaction(Stream[Steered]):
    """A loop that can be steered while it runs, as `AsyncInteraction`."""

    def __init__(self, portal: Portal, interaction: AsyncInteraction) -> None:
        super().__init__(portal, interaction)
        self._interaction = interaction

    @property
    def tokens(self) -> list[Token]:
        """The tokens that count, from the first one asked for on."""
        return self._interaction.tokens

    @property
    def text(self) -> str:
        """Text of the tokens that count."""
        return self._interaction.text

    def force(self, token: int, *, index: int | None = None, hold: bool = False) -> None:
        """Have a token taken, at its place or at the next one."""
        self._portal.run(self._interaction.force(token, index=index, hold=hold))

    def rewind(self, index: int, *, hold: bool = False) -> None:
        """Take back all tokens from an index on."""
        self._portal.run(self._interaction.rewind(index, hold=hold))

    def redirect(self, *, hold: bool = False, **options: Unpack[GenerationOptions]) -> None:
        """Go on with other options; those that are left out are off."""
        self._portal.run(self._interaction.redirect(hold=hold, **options))

    def finish(self) -> None:
        """Stop; a loop that is running ends as cancelled."""
        self._portal.run(self._interaction.finish())


class Session:
    """An open session, as `AsyncSession`. Leaving its `with` block lets it go.

    Args:
        portal: Where the session lives.
        session: What does the work.
    """

    def __init__(self, portal: Portal, session: AsyncSession) -> None:
        self._portal = portal
        self._session = session
        self.id = session.id
        self.language = session.language
        self.model = session.model
        self.fingerprint = session.fingerprint
        self.size_bytes = session.size_bytes
        self.idle_timeout = session.idle_timeout  # seconds

    @property
    def closed(self) -> bool:
        """True once it has been let go."""
        return self._session.closed

    def generate(
        self,
        *,
        start_index: int | None = None,
        max_tokens_per_message: int = 0,
        close_on_end: bool = False,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation:
        """Run the loop; closing the iterator early cancels the generation, the session stays."""

        async def start() -> AsyncGeneration:
            return self._session.generate(
                start_index=start_index,
                max_tokens_per_message=max_tokens_per_message,
                close_on_end=close_on_end,
                timeout=timeout,
                **options,
            )

        return Generation(self._portal, self._portal.run(start()))

    def interact(
        self,
        *,
        start_index: int | None = None,
        hold: bool = False,
        max_tokens_per_message: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Interaction:
        """Run the loop and steer it meanwhile; closing the iterator early cancels it."""

        async def start() -> AsyncInteraction:
            return self._session.interact(
                start_index=start_index,
                hold=hold,
                max_tokens_per_message=max_tokens_per_message,
                timeout=timeout,
                **options,
            )

        return Interaction(self._portal, self._portal.run(start()))

    def step(
        self,
        index: int,
        *,
        forced_token: int | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Token | End:
        """Produce the token at `index`, or return it again; `End` if the target ends before it."""
        return self._portal.run(
            self._session.step(index, forced_token=forced_token, timeout=timeout, **options)
        )

    def score(
        self,
        target: str | Sequence[int],
        *,
        include_end: bool = True,
        timeout: float | None = None,
    ) -> Score:
        """Say how probable a given target is; the session's own stays as it is."""
        return self._portal.run(
            self._session.score(target, include_end=include_end, timeout=timeout)
        )

    def fork(
        self,
        *,
        language: str = "",
        keep_tokens: int | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Open a session over the same memory, which goes its own way from here."""
        fork = self._session.fork(language=language, keep_tokens=keep_tokens, timeout=timeout)
        return Session(self._portal, self._portal.run(fork))

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Describe the session; NotFoundError once it is gone."""
        return self._portal.run(self._session.info(timeout=timeout))

    def close(self, *, timeout: float | None = None) -> int:
        """Let the session go; returns the bytes that this freed, 0 if it was closed already."""
        return self._portal.run(self._session.close(timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
