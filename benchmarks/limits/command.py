"""`python -m mtl_edge.benchmarks.limits`: the machine's limits, and a bundle against them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.limits import measure as passes
from mtl_edge.benchmarks.limits import rates, report
from mtl_edge.benchmarks.limits.profile import profile, share_of_products
from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.shown import shown
from mtl_edge.bundle import Bundle, open_bundle
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.io.folders import staged_folder
from mtl_edge.table import text_table
from mtl_edge.training.progress import Progress

__all__ = ["main", "measure", "shapes_of"]

Shape = tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_edge.benchmarks.limits",
        description="Measure how fast this machine multiplies matrices and reads memory, and how "
        "near to that a bundle's graphs come.",
    )
    parser.add_argument("bundle", type=Path, nargs="*", help="bundles' folders")
    parser.add_argument("--threads", type=int, default=default_threads(),
                        help="default: the physical cores, at most 8")  # fmt: skip
    parser.add_argument("--shapes", default=",".join(f"{b}x{t}" for b, t in passes.SHAPES),
                        help="batch x tokens, comma-separated; default: %(default)s")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=passes.ROUNDS,
                        help="of each shape, at most; default: %(default)s")  # fmt: skip
    parser.add_argument("--profile", default="", metavar="SHAPES",
                        help="also say which operators take the time at these shapes")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="replace it by limits.json and limits.md")  # fmt: skip
    args = parser.parse_args(arguments)
    try:
        figures = {"command": shown("limits", arguments), **_measured(args)}
        _write(args, figures)
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")
    print(_printed(figures))


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    shapes, profiled = shapes_of("--shapes", args.shapes), shapes_of("--profile", args.profile)
    for option in ("threads", "rounds"):
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} is {getattr(args, option)}, expected 1 or more")
    bundles = {folder.name: open_bundle(folder) for folder in args.bundle}
    if len(bundles) != len(args.bundle):
        raise OptionError("two of the bundles have folders of one name; rename one of them")
    return measure(bundles, args.threads, shapes=shapes, rounds=args.rounds, profiled=profiled)


def measure(
    bundles: dict[str, Bundle],
    threads: int,
    *,
    shapes: Sequence[Shape] = passes.SHAPES,
    rounds: int = passes.ROUNDS,
    profiled: Sequence[Shape] = (),
) -> dict[str, Any]:
    """All figures, as they are written to JSON.

    Args:
        profiled: shapes at which to tell which operators take the time.

    Raises:
        EngineError, OptionError: see `mtl_edge.benchmarks.limits.measure`.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    total = rates.ROUNDS * len(rates.SHAPES)
    with Progress("the machine's limits", total=total, unit="rounds") as progress:
        limits = rates.measure(threads, between=progress.update)
    reached = {}
    for name, bundle in bundles.items():
        with Progress(f"timing {name}", total=rounds * len(shapes), unit="rounds") as progress:
            reached[name] = passes.against_the_floor(
                bundle, limits, shapes=shapes, rounds=rounds, between=progress.update
            )
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "load_before": load,
        "limits": limits.to_json(),
        "bundles": reached,
        "profiles": {name: _profiles(bundle, profiled, threads) for name, bundle in bundles.items()}
        if profiled
        else {},
    }


def _profiles(bundle: Bundle, shapes: Sequence[Shape], threads: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for batch, tokens in shapes:
        taken = {g.target: profile(bundle, g, (batch, tokens), threads)
                 for g in bundle.manifest.graphs}  # fmt: skip
        result[f"{batch}x{tokens}"] = {
            name: {"ms": ms, "products": share_of_products(ms)} for name, ms in taken.items()
        }
    return result


def shapes_of(option: str, text: str) -> list[Shape]:
    """Shapes such as `1x32,32x32`, as `(batch, tokens)`.

    Raises:
        OptionError: they are not of that form.
    """
    shapes = []
    for part in filter(None, text.split(",")):
        batch, _, tokens = part.partition("x")
        if not (batch.isdecimal() and tokens.isdecimal() and int(batch) and int(tokens)):
            raise OptionError(f"{option} has {part!r}, expected batch x tokens as in 1x32,32x32")
        shapes.append((int(batch), int(tokens)))
    return shapes


def _printed(figures: dict[str, Any]) -> str:
    limits = figures["limits"]
    tables = [
        text_table(*report.rates_table(limits)),
        f"triad in main memory: {limits['triad_gb_s']:.1f} GB/s; reads:",
        text_table(*report.reads_table(limits)),
    ]
    if figures["bundles"]:
        tables.append(text_table(*report.reached_table(figures["bundles"])))
    if figures["profiles"]:
        tables.append(text_table(*report.profile_table(figures["profiles"])))
    return "\n\n".join(tables)


def _write(args: argparse.Namespace, figures: dict[str, Any]) -> None:
    text = json.dumps(figures, indent=1) + "\n"
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    if args.out:
        with staged_folder(args.out, overwrite=True) as stage:
            (stage / "limits.json").write_text(text, encoding="utf-8")
            (stage / "limits.md").write_text(report.markdown(figures), encoding="utf-8")
