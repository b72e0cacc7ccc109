"""What stages cost where they save nothing: `python -m mtl_edge.benchmarks.stage_overhead BUNDLE`.

overhead   a text that the cheapest stage answers, by the bundle and by that stage alone
           (`max_depth`), text by text in alternating rows
memory     resident in a fresh process after 100 single texts and 500 in one call: the bundle,
           its cheapest stage alone, and what it would be without stages
budgets    how long a call takes that is given some of the time between the cheapest stage's
           and all of them
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.benchmarks.fresh_process import memory
from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.single_texts import answered, in_turn, overhead
from mtl_edge.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.errors import OptionError
from mtl_edge.io.labelled import read_texts
from mtl_edge.table import markdown_table
from mtl_edge.training.progress import Progress

__all__ = ["budgets", "main", "resident", "single_overhead", "without_stages"]

SINGLE, TOGETHER = 100, 500
PASSES, LEAVING = 5, 150
SHARES = (0.25, 0.5, 0.75)  # of the time between the cheapest stage's and all of them
REPEATS = 4


def single_overhead(bundle: Path, target: str, texts: Sequence[str]) -> dict[str, float]:
    """Of texts that the cheapest stage answers: see `mtl_edge.benchmarks.single_texts.overhead`.

    Raises:
        OptionError: it answers none of them.
    """
    load = partial(EdgeClassifier.load, bundle, target=target)
    depth = open_bundle(bundle, verify="size").manifest.exits[0].depth
    with load(max_depth=depth) as alone, load() as staged:
        leaving = (text for text in texts if staged.predict(text).depth == depth)
        leaves = list(islice(leaving, LEAVING))
        if not leaves:
            raise OptionError("the cheapest stage answers none of these texts; give others")
        if any(staged.predict(text) != alone.predict(text) for text in leaves):
            raise RuntimeError("the cheapest stage answers otherwise in the bundle than alone")
        times = in_turn({"staged": answered(staged), "alone": answered(alone)}, leaves, PASSES)
    found = overhead(times["staged"], times["alone"])
    return found | {"texts": len(leaves), "alone_us": 1e3 * float(np.median(times["alone"]))}


def resident(bundle: Path, texts: Sequence[str], **options: Any) -> float:
    """Megabytes of a process that has loaded a bundle and answered some texts."""
    with EdgeClassifier.load(bundle, **options) as classifier:
        for text in texts[:SINGLE]:
            classifier.predict(text)
        classifier.predict(texts[:TOGETHER])
        return memory()["now"] or float("nan")


def without_stages(bundle: Bundle, folder: Path) -> Path:
    """The same bundle with the graphs of full depth alone."""
    manifest = bundle.manifest
    graphs = tuple(replace(graph, exits=()) for graph in manifest.graphs)
    kept = {name for graph in graphs for name in graph.files}
    dropped = {name for graph in manifest.graphs for name in graph.all_files} - kept
    for entry in manifest.files:
        if entry.path not in dropped | {MANIFEST}:
            (folder / entry.path).hardlink_to(bundle.file(entry.path))
    write_manifest(folder, replace(manifest, graphs=graphs, exits=()))
    return folder


def budgets(bundle: Path, target: str, texts: Sequence[str]) -> dict[str, Any]:
    """Milliseconds that calls take and how many texts go on, without a budget and with some."""

    def asked(budget: float | None) -> tuple[float, int]:
        start = time.perf_counter()
        found = classifier.predict(texts, budget_ms=budget)
        taken = 1e3 * (time.perf_counter() - start)
        return taken, sum(p.depth > classifier.info.depths[0] for p in found)

    with EdgeClassifier.load(bundle, target=target) as classifier:
        asked(None)
        least, _ = min(asked(0) for _ in range(REPEATS))
        most, went = min(asked(None) for _ in range(REPEATS))
        rows = []
        for share in SHARES:
            given = least + share * (most - least)
            found = [asked(given) for _ in range(REPEATS)]
            rows.append({"budget_ms": given, "took_ms": [t for t, _ in found],
                         "went_on": [n for _, n in found]})  # fmt: skip
    return {"cheapest_ms": least, "all_ms": most, "would_go_on": went, "given": rows}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mtl_edge.benchmarks.stage_overhead")
    parser.add_argument("bundle", type=Path, help="a folder that `export --exits` wrote")
    parser.add_argument("--texts", type=Path, action="append", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    bundle = open_bundle(args.bundle)
    texts = [text for file in args.texts for text in read_texts(file)[0]]
    np.random.default_rng(0).shuffle(texts)
    targets = [graph.target for graph in bundle.manifest.graphs]
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=bundle.path.parent) as work,
        Progress("graphs", total=len(targets), unit="graphs") as progress,
    ):
        plain = without_stages(bundle, Path(work))
        for target in targets:
            rows.append(_row(bundle, plain, target, texts))
            progress.update()
    machine = describe()
    print(markdown_table(HEADER, rows))
    print(f"\n{machine['processor']}; {len(texts):,} texts in random order.")


HEADER = ("graph", "alone, µs", "overhead, µs (p25-p75)", "overhead %", "MB with stages",
          "MB full depth alone", "MB cheapest alone", "budget: took p50 (most), ms")  # fmt: skip


def _row(bundle: Bundle, plain: Path, target: str, texts: Sequence[str]) -> list[str]:
    single = single_overhead(bundle.path, target, texts)
    least = bundle.manifest.exits[0].depth
    sizes = [
        _apart(path, texts, target=target, **options)
        for path, options in ((bundle.path, {}), (plain, {}), (bundle.path, {"max_depth": least}))
    ]
    timed = budgets(bundle.path, target, texts[:TOGETHER])
    took = "; ".join(
        f"{g['budget_ms']:.0f}: {np.median(g['took_ms']):.0f} ({max(g['took_ms']):.0f})"
        for g in timed["given"]
    )
    return [
        target,
        f"{single['alone_us']:.0f}",
        f"{single['us']:.1f} ({single['us_p25']:.1f}-{single['us_p75']:.1f})",
        f"{single['percent']:.1f}",
        *(f"{size:.0f}" for size in sizes),
        took,
    ]


def _apart(bundle: Path, texts: Sequence[str], **options: Any) -> float:
    """`resident` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(resident, bundle, texts, **options).result()


if __name__ == "__main__":
    take_any_text()
    main()
