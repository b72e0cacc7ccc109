"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

__all__ = ["Progress"]

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` units of work on standard error, with rate and time left.

    with Progress("encoding", total=100, unit="text") as progress:
        progress.update(32)

    `done` of them were done before.
    """

    def __init__(self, title: str, *, total: int, unit: str, done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._before = done
        self._note = ""
        self._started = self._last = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=title, unit=unit, leave=False, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def update(self, count: int = 1, note: str = "") -> None:
        """Report `count` more units, and a word on how it is going."""
        self._done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            rate = (self._done - self._before) / (self._last - self._started)
            left = (self._total - self._done) / rate
            self._line(f"{self._done:,}/{self._total:,}, {rate:,.0f}/s, {left:.0f} s left")

    def _line(self, text: str) -> None:
        note = f" ({self._note})" if self._note else ""
        print(f"{self._title}: {text}{note}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            seconds = time.monotonic() - self._started
            self._line(f"{self._done - self._before:,} {self._unit} in {seconds:.1f} s")
