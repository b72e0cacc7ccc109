"""`mtl-edge export`: checkpoint in, bundle out."""

from __future__ import annotations

import argparse
import time

from mtl_edge.errors import OptionError
from mtl_edge.export.cli.arguments import Request, add_arguments, request_of
from mtl_edge.export.cli.budget_options import limits_of
from mtl_edge.export.cli.check_exits import check_exits
from mtl_edge.export.cli.combinations import require_meant
from mtl_edge.export.cli.modes import best_within, explain, new_bundle, new_heads
from mtl_edge.export.cli.summary import targets_table

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    request = request_of(args)
    if request.list:
        print(targets_table())
        return 0
    limits = limits_of(args, request.given())
    if request.check_exits:
        return check_exits(request)
    if request.checkpoint is None or not _names_one_mode(request):
        raise OptionError(
            "expected a checkpoint and one of --out FOLDER, --heads-only --into BUNDLE and "
            "--explain; or --list"
        )
    checkpoint, options = request.checkpoint, request.options
    options.require_in_range()
    require_meant(request)
    started = time.monotonic()
    if request.into is not None:
        new_heads(checkpoint, request.into, options, update=request.update)
    elif request.out is None:
        explain(checkpoint, options)
        return 0
    elif limits:
        best_within(limits, checkpoint, request.out, options, overwrite=request.overwrite)
    else:
        new_bundle(checkpoint, request.out, options, overwrite=request.overwrite)
    print(f"\nbundle {request.into or request.out}, {time.monotonic() - started:.0f} s")
    return 0


def _names_one_mode(request: Request) -> bool:
    """Whether there is one place to write to, or none because --explain writes nothing."""
    modes = (request.out is not None, request.into is not None, request.explain)
    return sum(modes) == 1 and request.heads_only == (request.into is not None)
