"""What was run, as it stands under the figures."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

__all__ = ["shown"]


def shown(module: str, given: Sequence[str] | None) -> str:
    """The command line, with `$DATA` for the folder that the variable of this name stands for.

    Args:
        module: of this package, as `exits`.
        given: its arguments; none: those of this process.
    """
    arguments = sys.argv[1:] if given is None else given
    command = shlex.join(["python", "-m", f"mtl_edge.benchmarks.{module}", *arguments])
    data = os.environ.get("DATA")
    return command.replace(data, "$DATA") if data else command
