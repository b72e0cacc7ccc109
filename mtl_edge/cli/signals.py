"""Ctrl-C and SIGTERM: at once while waiting, after the current step while working."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Stopped", "Stopper", "stoppable"]


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came, and the current step is done.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


class Stopper:
    """Delays signals to the end of a step; see `stoppable`."""

    def __init__(self) -> None:
        self._working = False
        self._received: int | None = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A block that a signal does not interrupt; a second Ctrl-C does.

        Raises:
            Stopped: when it is done, if a signal came.
        """
        self._working = True
        try:
            yield
        finally:
            self._working = False
        if self._received is not None:
            raise Stopped(self._received)

    def handle(self, number: int, frame: FrameType | None) -> None:
        again = self._received is not None and number == signal.SIGINT
        self._received = number
        if again or not self._working:
            raise Stopped(number)


@contextlib.contextmanager
def stoppable() -> Iterator[Stopper]:
    """Turn SIGINT and SIGTERM into `Stopped`; threads other than the main one get no signals."""
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored, as under nohup, or is handled by who embeds Python, stays theirs.
    before = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, stopper.handle)
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
