"""A session on the decoder service: one target over one memory."""

# A `timeout` is the deadline of an RPC.
# ruff: noqa: ASYNC109

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Self, Unpack

from splitformer.v1 import decoder_service_pb2 as pb
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer_client.convert import end_of, score_of, session_info_of, token_of
from splitformer_client.generation import AsyncGeneration
from splitformer_client.info import SessionInfo
from splitformer_client.interaction import AsyncInteraction
from splitformer_client.link import Link
from splitformer_client.options import GenerationOptions
from splitformer_client.scope import REPLICA_KEY, Metadata, Scope
from splitformer_client.spans import Rows
from splitformer_client.values import End, Score, Token
from splitformer_client.writing import options_message, prefix_message, written

MakeScope = Callable[[float | None], Scope]
"""Starts an operation that may take the given seconds, None for the client's default."""


class AsyncSession:
    """An open session. Leaving its `async with` block closes it.

    Args:
        link: The decoder that holds it.
        reply: What the decoder answered to the opening.
        language: Target language; empty if the memory is bound to one or the model has none.
        make_scope: Starts the scope of each operation.
        rows: What the rows of its memory stand for.
    """

    def __init__(
        self,
        link: Link,
        reply: pb.OpenSessionResponse,
        language: str,
        make_scope: MakeScope,
        rows: Rows,
    ) -> None:
        self.id = reply.session_id
        self.language = language
        self.model = reply.model
        self.fingerprint = reply.fingerprint.model
        self.size_bytes = reply.size_bytes
        self.idle_timeout = reply.idle_timeout_ms / 1000  # seconds
        self.closed = False
        self._link = link
        self._make_scope = make_scope
        self._rows = rows
        self._metadata: Metadata = ((REPLICA_KEY, reply.replica),) if reply.replica else ()

    def generate(
        self,
        *,
        start_index: int | None = None,
        max_tokens_per_message: int = 0,
        close_on_end: bool = False,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGeneration:
        """Run the loop.

        Args:
            start_index: First token to stream; if left out, continue after the last one produced.
            max_tokens_per_message: Lets the server send more than one token at a time.
            close_on_end: Close the session when the generation ends.
            timeout: Seconds the whole generation may take.
            **options: How to choose.

        Returns:
            An iterator of tokens. Closing it early cancels the generation; the session stays.
        """
        return self.generation(
            self._make_scope(timeout), options, start_index, max_tokens_per_message, close_on_end
        )

    def generation(
        self,
        scope: Scope,
        options: GenerationOptions,
        start_index: int | None = None,
        max_tokens_per_message: int = 0,
        close_on_end: bool = False,
    ) -> AsyncGeneration:
        """Run the loop as part of an operation that has begun."""
        request = written(
            pb.GenerateRequest,
            session_id=self.id,
            options=options_message(options),
            start_index=start_index,
            max_tokens_per_message=max_tokens_per_message,
            close_on_end=close_on_end,
        )
        method = DecoderServiceStub(self._link.channel).Generate
        messages = self._link.stream(method, request, scope, self._metadata)
        return AsyncGeneration(messages, self._rows, self._mark_closed if close_on_end else None)

    def interact(
        self,
        *,
        start_index: int | None = None,
        hold: bool = False,
        max_tokens_per_message: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncInteraction:
        """Run the loop and steer it while it runs.

        Args:
            start_index: First token to stream; if left out, continue after the last one produced.
            hold: Stand still until an action comes that does not hold.
            max_tokens_per_message: Lets the server send more than one token at a time.
            timeout: Seconds all of it may take.
            **options: How to choose.

        Returns:
            An iterator of tokens and of the answers to actions. Closing it early cancels the loop;
            the session stays.
        """
        start = written(
            pb.GenerateRequest,
            session_id=self.id,
            options=options_message(options),
            start_index=start_index,
            max_tokens_per_message=max_tokens_per_message,
        )
        scope = self._make_scope(timeout)
        return AsyncInteraction(self._link, start, hold, scope, self._metadata, self._rows)

    async def step(
        self,
        index: int,
        *,
        forced_token: int | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Token | End:
        """Produce the token at `index`, or return it again; `End` if the target ends before it.

        Raises:
            FailedPreconditionError: The index lies beyond the next token.
            AbortedError: SESSION_BUSY, another call is using the session.
        """
        request = written(
            pb.StepRequest,
            session_id=self.id,
            index=index,
            options=options_message(options),
            forced_token=forced_token,
        )
        method = DecoderServiceStub(self._link.channel).Step
        answer = await self._link.call(method, request, self._make_scope(timeout), self._metadata)
        if answer.HasField("token"):
            return token_of(answer.token, self._rows)
        return end_of(answer.end)

    async def score(
        self,
        target: str | Sequence[int],
        *,
        include_end: bool = True,
        timeout: float | None = None,
    ) -> Score:
        """Return how probable a given target is, in one parallel pass; the session is unchanged.

        Args:
            target: Text, or token ids.
            include_end: Score the end token behind it too.
            timeout: Seconds it may take.
        """
        return await self.score_within(self._make_scope(timeout), target, include_end)

    async def score_within(
        self, scope: Scope, target: str | Sequence[int], include_end: bool
    ) -> Score:
        """Score a target as part of an operation that has begun."""
        request = written(
            pb.ScoreRequest,
            session_id=self.id,
            target=prefix_message(target, "target"),
            include_end=include_end,
        )
        method = DecoderServiceStub(self._link.channel).Score
        return score_of(await self._link.call(method, request, scope, self._metadata))

    async def fork(
        self,
        *,
        language: str = "",
        keep_tokens: int | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Open a session over the same memory that diverges from here.

        Args:
            language: Another target language, which starts from the beginning; empty: the same.
            keep_tokens: Produced tokens to keep; if left out: all, or none in another language.
            timeout: Seconds the fork may take.

        Raises:
            AbortedError: SESSION_BUSY, another call is using the session.
            FailedPreconditionError: KEEP_AHEAD, more tokens than were produced.
        """
        request = written(
            pb.ForkSessionRequest,
            session_id=self.id,
            request_id=uuid.uuid4().hex,
            target_language=language,
            keep_tokens=keep_tokens,
        )
        method = DecoderServiceStub(self._link.channel).ForkSession
        answer = await self._link.call(method, request, self._make_scope(timeout), self._metadata)
        language = language or self.language
        return AsyncSession(self._link, answer.session, language, self._make_scope, self._rows)

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Describe the session; NotFoundError once it is gone."""
        request = pb.GetSessionRequest(session_id=self.id)
        method = DecoderServiceStub(self._link.channel).GetSession
        scope = self._make_scope(timeout)
        return session_info_of(await self._link.call(method, request, scope, self._metadata))

    async def close(self, *, timeout: float | None = None) -> int:
        """Close the session; returns the bytes freed, 0 if it was already closed."""
        return await self.close_within(self._make_scope(timeout))

    async def close_within(self, scope: Scope) -> int:
        """Close the session as part of an operation that has begun."""
        if self.closed:
            return 0
        request = pb.CloseSessionRequest(session_id=self.id)
        method = DecoderServiceStub(self._link.channel).CloseSession
        answer = await self._link.call(method, request, scope, self._metadata)
        self._mark_closed()
        return answer.freed_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _mark_closed(self) -> None:
        self.closed = True
