"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

__all__ = ["Progress"]

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_BARS = 0.2
BAR = 24


class Progress:
    """Counts units of work, with rate and time left.

    with Progress("predict", total=100, unit="rows") as progress:
        progress.update(32)

    Args:
        total: None if it is not known.
        done: of them were done before.
        brief: nothing is left on the screen when all went well.
    """

    def __init__(
        self, title: str, *, total: int | None, unit: str, done: int = 0, brief: bool = False
    ) -> None:
        self._title, self._total, self._unit, self._brief = title, total, unit, brief
        self._done = self._before = done
        self._terminal = sys.stderr.isatty()
        self._every = SECONDS_BETWEEN_BARS if self._terminal else SECONDS_BETWEEN_LINES
        self._started = self._last = time.monotonic()
        self._shown = False

    def update(self, count: int = 1) -> None:
        """Report `count` more units."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Report that `done` units are done in all."""
        self._done = done
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self._show(self._state(now))

    def _state(self, now: float) -> str:
        rate = (self._done - self._before) / max(1e-9, now - self._started)
        if self._total is None:
            return f"{self._done:,} {self._unit}, {rate:,.0f}/s"
        share = min(1.0, self._done / max(1, self._total))
        text = f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f}/s"
        if rate:
            text += f", {_duration((self._total - self._done) / rate)} left"
        if not self._terminal:
            return f"{share:.0%}, {text}"
        filled = int(share * BAR)
        return f"{'#' * filled}{'.' * (BAR - filled)} {share:4.0%} {text}"

    def _show(self, state: str) -> None:
        text = f"{self._title}: {state}"
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        # Back to the line's begin, text, and what is left of a longer one erased.
        print(f"\r{text[:width]}\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if kind is None and not self._brief:
            seconds = time.monotonic() - self._started
            count = self._done - self._before
            rate = count / max(1e-9, seconds)
            print(
                f"{self._title}: {count:,} {self._unit} in {_duration(seconds)}, {rate:,.0f}/s",
                file=sys.stderr,
                flush=True,
            )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"
