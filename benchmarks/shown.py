"""What was run, as it stands under the figures."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["shown"]


def shown(module: str, given: Sequence[str] | None) -> str:
    """The command line, without folders that only one machine has.

    Of an absolute path the name alone is kept, but within the folder that `$DATA` stands for.

    Args:
        module: of this package, as `exits`.
        given: its arguments; none: those of this process.
    """
    arguments = sys.argv[1:] if given is None else given
    words = ["python", "-m", f"mtl_edge.benchmarks.{module}", *map(_shown, arguments)]
    # The variable's name is left as it is, for a shell to fill in.
    return " ".join(word if "$DATA/" in word else shlex.quote(word) for word in words)


def _shown(argument: str) -> str:
    before, sign, value = argument.rpartition("=")
    if not os.path.isabs(value):
        return argument
    path, data = Path(value), os.environ.get("DATA")
    inside = data and path.is_relative_to(data)
    return before + sign + (f"$DATA/{path.relative_to(data)}" if data and inside else path.name)
