"""What stages cost where they save nothing.

overhead   a text that the cheapest stage answers, by the bundle and by that stage alone
           (`max_depth`), text by text in interleaved rounds
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.benchmarks.core.command import model_of, new_record, run_module
from mtl_edge.benchmarks.core.measure import ONE, rounds_of, text_times
from mtl_edge.benchmarks.core.record import Record, SystemInfo
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.tables import Column, over, seen
from mtl_edge.benchmarks.experiments.fresh_process import memory
from mtl_edge.benchmarks.experiments.runtime import overhead
from mtl_edge.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import OptionError
from mtl_edge.io.labelled import read_texts
from mtl_edge.timing import wall_ms
from mtl_edge.training.progress import Progress

__all__ = ["budgets", "main", "resident", "single_texts", "without_stages"]

SINGLE, TOGETHER = 100, 500
PASSES, MOST_EARLY = 5, 150
SHARES = (0.25, 0.5, 0.75)  # of the time between the cheapest stage's and all of them
REPEATS = 4
STAGED, ALONE = "with stages", "the cheapest alone"

Figures = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a folder that `export --exits` wrote")
    parser.add_argument("--texts", type=Path, action="append", required=True, metavar="FILE")


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.stage_overhead", __doc__, add_arguments, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    started, bundle = time.monotonic(), open_bundle(args.bundle)
    texts = [text for file in args.texts for text in read_texts(file)[0]]
    np.random.default_rng(0).shuffle(texts)
    graphs = bundle.manifest.graphs
    record = new_record(
        "stage-overhead", command, args.threads, started, model=model_of(bundle),
        inputs={"texts": len(texts)},
        systems=[SystemInfo(g.target, g.engine, g.precision, bundle.size_of(g)) for g in graphs],
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(dir=bundle.path.parent) as work,
        Progress("graphs", total=len(graphs), unit="graphs") as progress,
    ):
        plain = without_stages(bundle, Path(work))
        for graph in graphs:
            options = {"target": graph.target, "threads": args.threads}
            found = _memory(bundle, plain, texts, options)
            found |= budgets(bundle.path, texts[:TOGETHER], **options)
            times, single = single_texts(bundle.path, texts, **options)
            for quantity, value in {**found, **single}.items():
                record.figures.setdefault(quantity, {})[graph.target] = value
            flat = {name: values.ravel() for name, values in times.items()}
            record.rounds.append(rounds_of(f"{graph.target}, {ONE}", flat, texts=1))
            progress.update()
    return report_of(replace(record, seconds=round(time.monotonic() - started, 1)))


def single_texts(bundle: Path, texts: Sequence[str], **options: Any) -> tuple[Any, Figures]:
    """Times of texts that the cheapest stage answers, and what the bundle adds to that stage.

    Args:
        options: of `EdgeClassifier.load`, as for all here.

    Raises:
        OptionError: it answers none of them.
    """
    load = partial(EdgeClassifier.load, bundle, **options)
    depth = open_bundle(bundle, verify="size").manifest.exits[0].depth
    with load(max_depth=depth) as alone, load() as staged:
        early = list(islice((t for t in texts if staged.predict(t).depth == depth), MOST_EARLY))
        if not early:
            raise OptionError("the cheapest stage answers none of these texts; give others")
        if any(staged.predict(text) != alone.predict(text) for text in early):
            raise RuntimeError("the cheapest stage answers otherwise in the bundle than alone")
        times = text_times({STAGED: staged.predict, ALONE: alone.predict}, early, PASSES)
    found = overhead(times[STAGED], times[ALONE])
    return times, {f"overhead {kind}": value for kind, value in found.items()}


def _memory(
    bundle: Bundle, plain: Path, texts: Sequence[str], options: Mapping[str, Any]
) -> Figures:
    least = bundle.manifest.exits[0].depth
    ways: dict[str, tuple[Path, dict[str, Any]]] = {
        "with stages": (bundle.path, {}),
        "full depth alone": (plain, {}),
        "cheapest alone": (bundle.path, {"max_depth": least}),
    }
    found = {}
    for name, (folder, more) in ways.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            taken = pool.submit(resident, folder, texts, **options, **more).result()
        if taken is not None:  # the system tells
            found[f"MB {name}"] = taken
    return found


def resident(bundle: Path, texts: Sequence[str], **options: Any) -> float | None:
    """Megabytes of a process that has loaded a bundle and answered some texts; None: not told."""
    with EdgeClassifier.load(bundle, **options) as classifier:
        for text in texts[:SINGLE]:
            classifier.predict(text)
        classifier.predict(texts[:TOGETHER])
        return memory()["now"]


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


def budgets(bundle: Path, texts: Sequence[str], **options: Any) -> Figures:
    """Milliseconds that calls take and how many texts go on, without a budget and with some."""
    with EdgeClassifier.load(bundle, **options) as classifier:

        def asked(budget: float | None) -> tuple[float, int]:
            found: list[Any] = []
            taken = wall_ms(lambda: found.extend(classifier.predict(texts, budget_ms=budget)))
            return taken, sum(p.depth > classifier.info.depths[0] for p in found)

        asked(None)
        least, _ = min(asked(0) for _ in range(REPEATS))
        most, went = min(asked(None) for _ in range(REPEATS))
        figures = {"cheapest ms": least, "all ms": most, "would go on": float(went)}
        for share in SHARES:
            given = least + share * (most - least)
            taken, on = zip(*(asked(given) for _ in range(REPEATS)), strict=True)
            own = {"ms": given, "took ms": float(np.median(taken)), "took at most ms": max(taken),
                   "went on": float(np.median(on))}  # fmt: skip
            figures |= {f"budget {share:g}: {name}": value for name, value in own.items()}
    return figures


def report_of(record: Record) -> Report:
    """One table."""

    def of(quantity: str, digits: int = 0) -> Column:
        return quantity, seen(lambda graph: f"{record.figures[quantity][graph]:.{digits}f}")

    def alone(graph: str) -> str:
        return f"{1e3 * record.on(f'{graph}, {ONE}').times[ALONE].median:.0f}"

    def spread(graph: str) -> str:
        us, low, high = (record.figures[f"overhead {k}"][graph] for k in ("us", "us p25", "us p75"))
        return f"{us:.1f} ({low:.1f}-{high:.1f})"

    def took(graph: str) -> str:
        found = [
            [record.figures[f"budget {share:g}: {name}"][graph]
             for name in ("ms", "took ms", "took at most ms")]
            for share in SHARES
        ]  # fmt: skip
        return "; ".join(f"{given:.0f}: {middle:.0f} ({most:.0f})" for given, middle, most in found)

    columns: list[Column] = [
        ("alone, µs", alone),
        ("overhead, µs (p25-p75)", spread),
        of("overhead percent", 1),
        *(of(f"MB {name}") for name in ("with stages", "full depth alone", "cheapest alone")),
        ("budget: took p50 (most), ms", took),
    ]
    table = over(
        "What stages cost", record.timed, columns,
        f"{record.inputs['texts']:,} texts in random order", first="graph",
    )  # fmt: skip
    return Report(record, "What stages cost where they save nothing", [table])


if __name__ == "__main__":
    main()
