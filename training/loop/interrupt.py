"""Ctrl-C while training: the step that is under way is finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["deferred_interrupt"]


@contextmanager
def deferred_interrupt(active: bool) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of a step; a second one stops at once.

    Gives a function that says whether Ctrl-C came. Only the main thread can wait for it.
    """
    came = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        came.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
