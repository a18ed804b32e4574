"""One operation of a caller: an id for the logs and a deadline, shared by all its RPCs."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from splitformer import tracing
from splitformer.errors import DeadlineExceededError

T = TypeVar("T")

REQUEST_ID_KEY = "splitformer-request-id"
"""Metadata under which every RPC carries the id of its operation."""

REPLICA_KEY = "splitformer-replica"
"""Metadata that lets a proxy route calls to the replica that holds their session or memory."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """Id and deadline of one operation.

    Attributes:
        timeout: Seconds the operation may take in all; `math.inf`: no limit.
        request_id: Written to the servers' logs.
        started: Clock reading at the start, in seconds.
        trace: What the spans of its RPCs are below.
    """

    timeout: float
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    trace: tracing.Span = field(default_factory=tracing.here)

    @property
    def metadata(self) -> Metadata:
        """Metadata of every RPC of the operation."""
        return ((REQUEST_ID_KEY, self.request_id),)

    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.started + self.timeout - time.monotonic())

    def rpc_timeout(self) -> float | None:
        """What is left, as the `timeout` of the next RPC.

        Raises:
            DeadlineExceededError: Nothing is left.
        """
        if math.isinf(self.timeout):
            return None
        left = self.left()
        if left <= 0:
            raise DeadlineExceededError(f"timeout: {self.timeout:g} s were not enough")
        return left

    async def within(self, work: Awaitable[T]) -> T:
        """Wait for something of ours that knows no deadline.

        Raises:
            DeadlineExceededError: It is not there in time.
        """
        try:
            async with asyncio.timeout(self.rpc_timeout()):
                return await work
        except TimeoutError as error:
            raise DeadlineExceededError(f"timeout: {self.timeout:g} s were not enough") from error

    def aftermath(self, seconds: float) -> Scope:
        """Return a scope of the same id for cleaning up, whatever is left of this one."""
        return Scope(seconds, self.request_id, trace=self.trace)
