"""Bytes that may be used at once: taken before the work, given back whatever happens."""

from __future__ import annotations

from splitformer.errors import ResourceExhaustedError

_RETRY_SECONDS = 1.0


class Budget:
    """Bytes that may be used at once."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def reserve(self, count: int, field_name: str) -> None:
        """Take bytes; ResourceExhaustedError OVER_BUDGET if there are not enough.

        The error says when to try again, unless there would never be enough.
        """
        if self.used + count > self.total:
            raise ResourceExhaustedError(
                f"{field_name}: needs {count} bytes, {self.total - self.used} of {self.total} are"
                " free",
                retry_after=_RETRY_SECONDS if count <= self.total else None,
            )
        self.used += count

    def release(self, count: int) -> None:
        """Give bytes back."""
        self.used -= count
        assert self.used >= 0


class Share:
    """Bytes that several sessions hold together: a memory's keys and values.

    Args:
        budget: What they were taken from, already.
        count: How many.
    """

    def __init__(self, budget: Budget, count: int) -> None:
        self.count = count
        self._budget = budget
        self._holders = 0

    def hold(self) -> None:
        """Count one more holder."""
        self._holders += 1

    def let_go(self) -> int:
        """Count one less; the last one gives the bytes back. Returns the bytes given back."""
        self._holders -= 1
        if self._holders:
            return 0
        self._budget.release(self.count)
        return self.count


class Details:
    """Bytes of what was told of a session's tokens.

    Args:
        budget: What they are taken from.
        count: How many were taken already.
    """

    def __init__(self, budget: Budget, count: int = 0) -> None:
        self.count = count
        self._budget = budget
        self._gone = False

    def settle(self, reserved: int, kept: int) -> None:
        """Take note of what is kept after a run; what was reserved beyond that goes back."""
        kept = 0 if self._gone else kept
        self._budget.release(reserved - (kept - self.count))
        self.count = kept

    def let_go(self) -> None:
        """Give everything back, also what a run that is still going on will leave."""
        self._budget.release(self.count)
        self.count, self._gone = 0, True


class Reservation:
    """Bytes taken from a budget that go back unless they are kept."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.count = 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.release(self.count)
        self.count = 0

    def add(self, count: int, field: str) -> None:
        """Take more bytes; ResourceExhaustedError OVER_BUDGET if there are not enough."""
        self._budget.reserve(count, field)
        self.count += count

    def keep(self, count: int) -> None:
        """Leave `count` bytes taken for good; somebody else gives them back."""
        self.count -= count
