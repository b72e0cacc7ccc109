"""`mtl-edge update`: bring a bundle to its next version, or back to the one before."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_edge.bundle.update import apply_update, previous_of, restore
from mtl_edge.errors import OptionError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument(
        "update", type=Path, nargs="?", help="a file that `mtl-edge export --update` wrote"
    )
    parser.add_argument("--restore", action="store_true", help="go back to the version before")
    parser.add_argument(
        "--public-key", type=Path, metavar="FILE", help="the version must be signed with this key"
    )


def run(args: argparse.Namespace) -> None:
    if args.restore == (args.update is not None):
        raise OptionError("expected a bundle and an update, or a bundle and --restore")
    key = args.public_key
    if args.restore:
        bundle = restore(args.bundle, public_key=key)
    else:
        bundle = apply_update(args.bundle, args.update, public_key=key)
    tasks = ", ".join(task.name for task in bundle.manifest.tasks)
    print(f"bundle {args.bundle}, tasks {tasks}; the version before is {previous_of(args.bundle)}")
