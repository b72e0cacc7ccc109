"""`mtl-edge info`: what a bundle holds, after every file was verified, and what runs it here."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from mtl_edge import engines
from mtl_edge.bundle import Bundle, open_bundle
from mtl_edge.bundle.signing import is_signed
from mtl_edge.choosing import Choice, Measure, choose, measuring
from mtl_edge.cli.info_bundle import describe
from mtl_edge.cli.info_engines import facts_of, facts_text
from mtl_edge.errors import MissingPackageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")
    parser.add_argument(
        "--public-key", type=Path, metavar="FILE", help="the bundle must be signed with this key"
    )
    parser.add_argument(
        "--engines", action="store_true", help="also what runs it on this machine, and how fast"
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure that anew; implies --engines"
    )
    parser.add_argument(
        "--threads", type=int, help="that will be used; default: the physical cores, at most 8"
    )
    parser.add_argument(
        "--device", default=engines.CPU, help="that will be used; default: %(default)s"
    )


def run(args: argparse.Namespace) -> None:
    bundle = open_bundle(args.bundle, verify="full", public_key=args.public_key)
    choice, missing = _choice(bundle, args)
    with_engines = args.engines or args.measure
    facts = facts_of(bundle, choice, missing, args) if with_engines else None
    if args.json:
        content = dataclasses.asdict(bundle.manifest)
        print(json.dumps(content | ({"on_this_machine": facts} if facts else {}), indent=2))
        return
    print(describe(bundle, choice))
    if args.public_key:
        print(f"\nsigned with the key that belongs to {args.public_key}")
    elif is_signed(bundle.path):
        print("\nsigned; by whom, --public-key tells")
    if facts:
        print()
        print(facts_text(facts))


def _choice(bundle: Bundle, args: argparse.Namespace) -> tuple[Choice | None, str]:
    """What `auto` takes, without measuring unless told to; or why it takes nothing."""
    known: Measure = "read" if measuring() else "never"
    try:
        choice = choose(
            bundle,
            setup=engines.Setup(args.threads, device=args.device),
            measure="anew" if args.measure else known,
        )
    except MissingPackageError as error:
        return None, str(error)
    if choice.started is not None:
        choice.started.close()
    return choice, ""
