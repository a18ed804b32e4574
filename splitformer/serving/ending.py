"""Signals that unwind a process, wherever they find it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

_SOON = 0.01
"""Seconds after which a signal is raised again."""


def unwind_on(numbers: tuple[signal.Signals, ...], error: Callable[[int], BaseException]) -> None:
    """Let signals raise in the main thread; and once more, if what they raised was dropped.

    Python drops what is raised in a finaliser or in a callback of a weak reference, and a signal
    may come just there: imports have such callbacks. Uses SIGALRM.

    Args:
        numbers: Which signals.
        error: Makes what is to be raised, of the signal's number.
    """
    came = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = came if number == signal.SIGALRM else number
        raise error(came)

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if came and isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            sys.__unraisablehook__(unraisable)

    for number in (*numbers, signal.SIGALRM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, handle)
    sys.unraisablehook = dropped
