"""What cheaper stages save on real texts: `python -m mtl_edge.benchmarks.exits BUNDLE --data ...`.

A bundle with stages against its own full depth, both through the runtime, tokenization included, in
alternating rounds of one run:

    each its own   each text is asked its own task
    all tasks      each text is asked every task, those outside its domain too, and leaves early
                   only if all are sure
    crossed        each text is asked a task of another domain: the share that leaves early should
                   fall, as no threshold was fitted on such texts

and single texts one after the other, for how latency is distributed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.answers import Prediction, predictions
from mtl_edge.benchmarks.machine import describe, processor_of
from mtl_edge.bundle import open_bundle
from mtl_edge.cli import Parser
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.export.stages import promised, running
from mtl_edge.files import require_free, staged_folder
from mtl_edge.loaded import Loaded, answering
from mtl_edge.options import named
from mtl_edge.stages import Stage, answer, answer_one
from mtl_edge.table import markdown_table, text_table
from mtl_edge.timing import Timing, alternate
from mtl_edge.training.data import Columns, Rows, read_rows
from mtl_edge.training.progress import Progress

__all__ = ["main", "measure"]

ROUNDS, SECONDS = 15, 30.0
SINGLES = 400
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Way:
    """Some texts, the tasks that are asked of them, and the right labels where they are known."""

    name: str
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, Sequence[str | None]]


def ways_of(data: Mapping[str, Rows], tasks: Sequence[str]) -> list[Way]:
    """How texts may be asked."""
    ways = []
    for name, rows in data.items():
        ways.append(Way(f"{name}, its own", rows.texts, [name], {name: rows.labels}))
    for name, rows in data.items():
        if len(tasks) > 1:
            ways.append(Way(f"{name}, all tasks", rows.texts, tasks, {name: rows.labels}))
    for name, rows in data.items():
        ways += [
            Way(f"{name}, crossed: {other}", rows.texts, [other], {})
            for other in tasks
            if other != name
        ]
    return ways


def measure(
    bundle: Path, data: Mapping[str, Rows], targets: Sequence[str], seconds: float = SECONDS
) -> dict[str, Any]:
    """All figures, as `exits.json` has them.

    Args:
        seconds: that each way of asking is timed for; three rounds at least.
    """
    manifest = open_bundle(bundle).manifest
    drop, confidence = promised(manifest)
    ways = ways_of(data, [task.name for task in manifest.tasks])
    found: dict[str, Any] = {}
    with Progress("asking", total=len(targets) * len(ways), unit="ways") as progress:
        for target in targets:
            with running(bundle, target) as loaded:
                found[target] = {}
                for way in ways:
                    found[target][way.name] = _asked(loaded, way, seconds)
                    progress.update(1, f"{target}, {way.name}")
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "bundle": {"depth": manifest.depth, "exits": [e.depth for e in manifest.exits]},
        "promise": {"drop": drop, "confidence": confidence},
        "targets": found,
    }


def _asked(loaded: Loaded, way: Way, seconds: float) -> dict[str, Any]:
    """One way of asking, with stages and at full depth."""
    stages = answering(loaded, way.tasks).stages
    texts = list(way.texts)

    def ask(some: Sequence[Stage]) -> list[Prediction]:
        return predictions(answer(some, [loaded.encoder.ids(texts)]))

    staged, full = ask(stages), ask(stages[-1:])
    times = alternate(
        {"staged": lambda: ask(stages), "full": lambda: ask(stages[-1:])},
        rounds=ROUNDS,
        seconds=seconds,
        warm_up=0,
    )
    ratio, low, high = times["staged"].ratio_of(times["full"])
    return {
        "texts": len(texts),
        "depths": {str(s.depth): _share([p.depth == s.depth for p in staged]) for s in stages},
        "agreement": {
            t: _share([a[t].label == b[t].label for a, b in _pairs(staged, full)])
            for t in way.tasks
        },
        "accuracy": {
            task: {
                name: _share(
                    [p[task].label == label for p, label in zip(some, labels, strict=True)]
                )
                for name, some in (("staged", staged), ("full", full))
            }
            for task, labels in way.labels.items()
        },
        "texts_per_second": {n: 1e3 * len(texts) / t.median for n, t in times.items()},
        "ratio": {"median": ratio, "lower_quartile": low, "upper_quartile": high},
        "ms": {name: found.to_json() for name, found in times.items()},
        "single_ms": _singles(loaded, stages, texts[:SINGLES]),
    }


def _pairs(
    some: Sequence[Prediction], others: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    return list(zip(some, others, strict=True))


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values))


def _singles(
    loaded: Loaded, stages: Sequence[Stage], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How long single texts take, one after the other, each with stages and at full depth."""

    def ask(some: Sequence[Stage], text: str) -> None:
        predictions([answer_one(some, loaded.encoder.ids([text])[0])])

    calls: dict[str, Callable[[str], None]] = {
        "staged": lambda text: ask(stages, text),
        "full": lambda text: ask(stages[-1:], text),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for text in texts:
        for name, call in calls.items():
            call(text)  # the one before has emptied the caches
            before = time.perf_counter()
            call(text)
            taken[name].append(1e3 * (time.perf_counter() - before))
    return {
        name: {
            "mean": float(np.mean(values)),
            **{f"p{round(100 * q)}": Timing(tuple(values)).quantile(q) for q in QUANTILES},
        }
        for name, values in taken.items()
    }


def table_of(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    depths = figures["bundle"]["exits"]
    header = ["graph", "texts and what is asked", "texts"]
    header += [f"leave at depth {depth} %" for depth in depths]
    header += ["full depth %", "with stages %", "agrees %", "texts/s full", "texts/s staged"]
    header += ["times as fast", "ms single full p50/p90/p99", "ms single staged p50/p90/p99"]
    rows = []
    for target, ways in figures["targets"].items():
        for name, way in ways.items():
            (accuracy,) = way["accuracy"].values() if way["accuracy"] else ({},)
            rows.append(
                [
                    target,
                    name,
                    str(way["texts"]),
                    *(f"{100 * way['depths'][str(depth)]:.0f}" for depth in depths),
                    *(f"{100 * accuracy[n]:.1f}" if accuracy else "" for n in ("full", "staged")),
                    f"{100 * min(way['agreement'].values()):.1f}",
                    *(f"{way['texts_per_second'][n]:,.0f}" for n in ("full", "staged")),
                    f"{way['ratio']['median']:.2f}",
                    *(_latency(way["single_ms"][n]) for n in ("full", "staged")),
                ]
            )
    return header, rows


def _latency(found: Mapping[str, float]) -> str:
    return " / ".join(f"{found[f'p{round(100 * q)}']:.2f}" for q in QUANTILES)


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with where it comes from."""
    machine, promise = figures["machine"], figures["promise"]
    return (
        f"{markdown_table(*table_of(figures))}\n\n`python -m mtl_edge.benchmarks.exits`, "
        f"{figures['date']}: {processor_of(machine)}, "
        f"{machine['cores']} threads; promised: at most {100 * promise['drop']:g} points below "
        f"full depth, {promise['confidence']:.0%} confidence. Medians of alternating rounds of one "
        "run, tokenization included.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run it from the command line."""
    parser = Parser(prog="python -m mtl_edge.benchmarks.exits", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("bundle", type=Path, help="a folder that `export --exits` wrote")
    parser.add_argument(
        "--data", action="append", default=[], metavar="TASK=FILE", help="labelled rows of a task"
    )
    parser.add_argument("--text-column", default="text", help="default: %(default)s")
    parser.add_argument("--label-column", help="default: label, or else the task's name")
    parser.add_argument("--targets", help="comma-separated; default: all that the bundle has")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="for each way of asking; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for the figures")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    try:
        args = parser.parse_args(argv)
        return _run(args)
    except MtlEdgeError as error:
        parser.exit(2, f"exits: {error}\n")


def _run(args: argparse.Namespace) -> int:
    require_free(args.out, overwrite=args.overwrite)
    manifest = open_bundle(args.bundle).manifest
    known = [graph.target for graph in manifest.graphs]
    targets = known if args.targets is None else [t for t in args.targets.split(",") if t]
    if not targets or set(targets) - set(known):
        raise OptionError(f"--targets {args.targets}: the bundle has {', '.join(known)}")
    tasks = {task.name: task.labels for task in manifest.tasks}
    files = named("--data", args.data)
    if not files or set(files) - set(tasks):
        raise OptionError(f"--data TASK=FILE: expected some of the tasks {', '.join(tasks)}")
    columns = Columns(args.text_column, args.label_column)
    data = {task: read_rows(task, file, columns, tasks[task]) for task, file in files.items()}
    figures = measure(args.bundle, data, targets, args.seconds)
    with staged_folder(args.out, overwrite=args.overwrite) as stage:
        text = json.dumps(figures, indent=2) + "\n"
        (stage / "exits.json").write_text(text, encoding="utf-8")
        (stage / "exits.md").write_text(markdown(figures), encoding="utf-8")
    print(text_table(*table_of(figures)))
    print(f"\nfigures {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
