"""Standard streams that take any text, whatever they lead to."""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["take_any_text"]


def take_any_text() -> None:
    """Let standard output and error take every character, those they have no code for as escapes.

    Windows gives a pipe the codes of one language, as the locale C does everywhere. A stream that
    is closed or missing, as without a console, is replaced by the null device.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # an app may have put something else there
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
