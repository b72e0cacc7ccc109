"""`mtl-edge frontier`: what each depth, precision and engine of a checkpoint gives and costs.

Every depth that `train --all-depths` taught is exported to every target and proven like any bundle;
then all of them are timed in alternating rounds of one run on the same token ids. Writes
`frontier.json`, `frontier.md` and `frontier.png`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.benchmarks.contenders import Contender, from_bundle
from mtl_edge.benchmarks.machine import describe, processor_of
from mtl_edge.bundle import open_bundle
from mtl_edge.engines.cores import default_threads
from mtl_edge.export.build import export
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import DEFAULT, targets_of
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.table import clip, markdown_table, text_table
from mtl_edge.timing import alternate
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.drawing import drawn
from mtl_edge.training.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["add_arguments", "measure", "run"]

SHAPES = ((1, 32), (32, 32))
ROUNDS = 60
SECONDS = 60.0
NOTE = "*: no other is as fast and as accurate on every task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, help="a folder that `mtl-edge train --all-depths` wrote"
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for the figures")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--targets", default=",".join(DEFAULT), help="comma-separated; default: %(default)s"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=default_threads(),
        help="default: the physical cores, at most 8",
    )


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    targets = targets_of(args.targets)
    figures = measure(load_checkpoint(args.checkpoint), targets, args.threads)
    header, rows = _table(figures)
    with staged_folder(args.out, overwrite=args.overwrite) as stage:
        text = json.dumps(figures, indent=2) + "\n"
        (stage / "frontier.json").write_text(text, encoding="utf-8")
        (stage / "frontier.md").write_text(markdown(figures), encoding="utf-8")
    drawn(args.out / "frontier.png", _draw, figures)
    print(text_table(header, rows))
    print(f"\n{NOTE}\nfigures {args.out}")


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with where it comes from."""
    machine = figures["machine"]
    rows = ", ".join(f"{task} on {f['rows']} rows" for task, f in figures["measured_on"].items())
    return (
        f"{markdown_table(*_table(figures))}\n\n"
        f"`mtl-edge frontier`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads; medians of "
        f"alternating rounds of one run. Accuracy: {rows}. {NOTE}.\n"
    )


def measure(checkpoint: Checkpoint, targets: Sequence[str], threads: int) -> dict[str, Any]:
    """Every depth and target: accuracy and agreement per task, size, latency by shape."""
    points: list[dict[str, Any]] = []
    contenders: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        for depth in sorted([*checkpoint.shallower, checkpoint.depth]):
            at_depth, folder = checkpoint.at(depth), Path(work) / str(depth)
            # What is lost is what is to be seen here, so nothing is refused.
            manifest = export(at_depth, folder, targets, settings=Settings(float("inf")))
            for contender in from_bundle(open_bundle(folder, verify="size"), threads):
                contenders[f"{contender.name}@{depth}"] = contender
                points.append(
                    {
                        "depth": depth,
                        "target": contender.name,
                        "bytes": contender.size,
                        "tasks": {
                            task: {
                                name: found["graphs"][contender.name][name]
                                for name in ("accuracy", "macro_f1", "agreement")
                            }
                            for task, found in manifest.evaluation.items()
                        },
                    }
                )
        latency = _latency(contenders, checkpoint.backbone.info.vocabulary)
    for point, name in zip(points, contenders, strict=True):
        point["latency_ms"] = {shape: times[name] for shape, times in latency.items()}
    for point in points:
        point["on_the_frontier"] = not any(_beats(other, point) for other in points)
    report = {task.name: checkpoint.report[task.name] for task in checkpoint.tasks}
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "threads": threads,
        "measured_on": {task: found["reported"] for task, found in report.items()},
        "baselines": {
            task: {name: found[name] for name in ("mean_pooling", "bag_of_words")}
            for task, found in report.items()
        },
        "points": points,
    }


def _latency(contenders: Mapping[str, Contender], vocabulary: int) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    result = {}
    for batch, tokens in SHAPES:
        ids = rng.integers(0, vocabulary, (batch, tokens))
        mask = np.ones_like(ids)
        with Progress(f"timing {batch}x{tokens}", total=ROUNDS, unit="rounds") as progress:
            times = alternate(
                {name: lambda c=c, i=ids, m=mask: c.run(i, m) for name, c in contenders.items()},  # type: ignore[misc]
                rounds=ROUNDS,
                seconds=SECONDS,
                between=progress.update,
            )
        result[f"{batch}x{tokens}"] = {name: time.to_json() for name, time in times.items()}
    return result


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it is as good in accuracy on every task and in latency, and better in one of them."""
    shape = next(iter(one["latency_ms"]))
    pairs = [
        (found["accuracy"], other["tasks"][task]["accuracy"])
        for task, found in one["tasks"].items()
    ]
    pairs.append((-one["latency_ms"][shape]["median"], -other["latency_ms"][shape]["median"]))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _table(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    points = figures["points"]
    tasks, shapes = list(points[0]["tasks"]), list(points[0]["latency_ms"])
    header = ["depth", "graph", *(f"{task} %" for task in tasks), "MB"]
    for shape in shapes:
        header += [f"ms {shape}", "p10-p90"]
    rows = []
    for point in points:
        row = [str(point["depth"]), point["target"] + (" *" if point["on_the_frontier"] else "")]
        row += [f"{100 * point['tasks'][task]['accuracy']:.1f}" for task in tasks]
        row.append(f"{point['bytes'] / 1e6:.1f}")
        for shape in shapes:
            time = point["latency_ms"][shape]
            row += [f"{time['median']:.2f}", f"{time['p10']:.2f}-{time['p90']:.2f}"]
        rows.append(row)
    return header, rows


def _draw(figures: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    points = figures["points"]
    tasks, shape = list(points[0]["tasks"]), next(iter(points[0]["latency_ms"]))
    figure = Figure(figsize=(5.5 * len(tasks), 4))
    axes = figure.subplots(1, len(tasks), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for target in dict.fromkeys(point["target"] for point in points):
            own = [point for point in points if point["target"] == target]
            x = [point["latency_ms"][shape]["median"] for point in own]
            y = [100 * point["tasks"][task]["accuracy"] for point in own]
            axis.plot(x, y, "o-", markersize=4, label=target)
            for point, a, b in zip(own, x, y, strict=True):
                axis.annotate(
                    str(point["depth"]), (a, b), (3, 4), textcoords="offset points", fontsize=8
                )
        for name, style in (("mean_pooling", "--"), ("bag_of_words", ":")):
            score = 100 * figures["baselines"][task][name]["accuracy"]
            label = {"mean_pooling": "usual recipe", "bag_of_words": "bag of words"}[name]
            axis.axhline(score, linestyle=style, color="#777777", linewidth=1, label=label)
        rows = figures["measured_on"][task]["rows"]
        axis.set_title(f"{clip(task, 40)}, {rows} rows; number: layers", fontsize=10, loc="left")
        axis.set_xlabel(f"ms for {shape} on {figures['threads']} threads", fontsize=9)
        axis.set_ylabel("accuracy, %", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    figure.tight_layout()
    return figure
