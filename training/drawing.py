"""How every picture is made: texts as they are, and a failure costs the picture alone."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mtl_edge.errors import one_line

__all__ = ["attempted", "drawn", "style", "without_formulas"]

DOTS_PER_INCH, MOST_DOTS = 110, 30_000_000
STYLE: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}

T = TypeVar("T")


def drawn(file: Path, draw: Callable[..., Any], *args: object) -> bool:
    """Whether the figure that `draw(*args)` makes is in `file`; if not, a note says why."""
    if attempted(file.name, _save, file, draw, *args) is not None:
        return True
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
    return False


def attempted(name: str, draw: Callable[..., T], *args: object) -> T | None:
    """What `draw(*args)` makes; none and a note if it fails: a picture is never worth an error."""
    try:
        with style({}):
            return draw(*args)
    except Exception as error:
        print(f"note: {name} was not drawn: {one_line(error)}", file=sys.stderr, flush=True)
        return None


@contextlib.contextmanager
def style(settings: dict[Any, Any]) -> Iterator[None]:
    """Matplotlib with these settings, dollar signs that are no formulas, and no warnings.

    It would warn of every character that its fonts lack, and of folders that it cannot write to.
    """
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib as mpl  # it looks for a folder to write to, and fails without one

        with warnings.catch_warnings(), mpl.rc_context({**STYLE, **settings}):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def without_formulas(axis: Any, base: int = 10) -> None:
    """Give a logarithmic axis plain numbers; by default they would be formulas."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:,.6g}" if super().__call__(x, pos) else ""  # some have no room for a number

    axis.set_major_formatter(Plain(base))
    axis.set_minor_formatter(Plain(base))


def _save(file: Path, draw: Callable[..., Any], *args: object) -> bool:
    figure = draw(*args)
    width, height = figure.get_size_inches()
    most = (MOST_DOTS / (width * height)) ** 0.5
    figure.savefig(file, dpi=min(DOTS_PER_INCH, most))
    return True
