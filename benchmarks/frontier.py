"""`mtl-edge frontier`: what each depth, precision and engine of a checkpoint gives and costs.

Every depth that `train --all-depths` taught is exported to every target and proven like any bundle;
then all are timed as `export --budget` times its candidates, and on token arrays besides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtl_edge.benchmarks.core.command import (
    Output,
    add_threads_argument,
    backbone_name,
    new_record,
    require_positive,
)
from mtl_edge.benchmarks.core.machine import command_line, describe
from mtl_edge.benchmarks.core.measure import ALL, ONE, rounds_of
from mtl_edge.benchmarks.core.panels import Draw, Point, pareto, scatter
from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record, Rounds, Scores, SystemInfo
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.scores import BASELINES, point
from mtl_edge.benchmarks.core.tables import Column, milliseconds, over, spread
from mtl_edge.bundle import open_bundle
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import ExportError
from mtl_edge.export.budget_search.candidates import CandidateTimes
from mtl_edge.export.budget_search.candidates import measure as measure_candidates
from mtl_edge.export.budget_search.frontier import Plan
from mtl_edge.export.build import export
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import DEFAULT, targets_of
from mtl_edge.table import clip
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["add_arguments", "measure", "report_of", "run"]

SHAPES = ((1, 32), (32, 32))
MAIN = "1x32"
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
    add_threads_argument(parser)


def run(args: argparse.Namespace) -> None:
    output = Output(folder=args.out, overwrite=args.overwrite)
    output.check()
    require_positive(args, "threads")
    targets = targets_of(args.targets)
    options = ["--targets", args.targets]
    if args.threads != default_threads():
        options += ["--threads", str(args.threads)]
    command = command_line(f"mtl-edge frontier {args.checkpoint.name}", options)
    record = measure(load_checkpoint(args.checkpoint), targets, args.threads, command)
    output.put(report_of(record))


def measure(checkpoint: Checkpoint, targets: Sequence[str], threads: int, command: str) -> Record:
    """Every depth and target: accuracy and agreement per task, size, latency."""
    started, machine = time.monotonic(), describe()
    built: dict[Plan, Path] = {}
    systems: list[SystemInfo] = []
    scores: dict[str, Scores] = {}
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        for depth in sorted([*checkpoint.shallower, checkpoint.depth]):
            folder = Path(work) / str(depth)
            try:
                # What is lost is what is to be seen here, so nothing is refused.
                manifest = export(
                    checkpoint.at(depth), folder, targets, settings=Settings(float("inf"))
                )
            except ExportError as error:
                left_out.append(f"depth {depth} is left out: {error}")
                continue
            bundle = open_bundle(folder, verify="size")
            for graph in manifest.graphs:
                name = name_of(graph.target, depth)
                built[Plan(depth, (), graph.target)] = folder
                systems.append(
                    SystemInfo(name, graph.engine, graph.precision, bundle.size_of(graph))
                )
                for task, found in manifest.evaluation.items():
                    own = scores.setdefault(task, _scores(checkpoint, task, found))
                    own.models[name] = point(found["graphs"][graph.target])
        if not built:
            raise ExportError(f"no depth could be exported: {'; '.join(left_out)}")
        texts = [sample.text for sample in checkpoint.samples]
        measured = measure_candidates(built, texts, shapes=SHAPES, threads=threads)
    texts_timed = next(iter(measured.values())).texts
    times = {name_of(plan.target, plan.depth): found for plan, found in measured.items()}
    return new_record(
        "frontier", command, threads, started, machine=machine,
        inputs={"texts": texts_timed, "backbone": backbone_name(checkpoint.backbone.info.name)},
        systems=systems, scores=list(scores.values()), rounds=_rounds(times), warnings=left_out,
    )  # fmt: skip


def name_of(target: str, depth: int) -> str:
    return f"{target} depth {depth}"


def _rounds(times: Mapping[str, CandidateTimes]) -> list[Rounds]:
    first = next(iter(times.values()))
    found = [
        rounds_of(
            f"{batch}x{tokens}", {n: own.shapes[f"{batch}x{tokens}"] for n, own in times.items()},
            texts=batch, tokens=tokens, references=(),
        )
        for batch, tokens in SHAPES
    ]  # fmt: skip
    single, bulk = ({n: getattr(own, kind) for n, own in times.items()}
                    for kind in ("single", "bulk"))  # fmt: skip
    return [
        *found,
        rounds_of(ONE, single, texts=1, references=()),
        rounds_of(ALL, bulk, texts=first.texts, references=()),
    ]


def _scores(checkpoint: Checkpoint, task: str, found: Mapping[str, object]) -> Scores:
    report = checkpoint.report[task]
    known = {title: point(report[name]) for name, title in BASELINES.items() if name in report}
    reported = report["reported"]
    return Scores(
        task, str(found.get("file", "unknown")), str(found.get("sha256", "")),
        int(reported["rows"]), "at export", known,
    )  # fmt: skip


def best(record: Record) -> list[str]:
    """Those that no other beats: as good in accuracy on every task and in latency, and better in
    one of them."""
    times = record.on(MAIN).times

    def figures(name: str) -> list[float]:
        accuracy = [scores.models[name].accuracy.value for scores in record.scores]
        return [*accuracy, -times[name].median]

    known = {name: figures(name) for name in record.timed}
    return [
        name
        for name, own in known.items()
        if not any(
            other != own and all(a >= b for a, b in zip(other, own, strict=True))
            for other in known.values()
        )
    ]


def report_of(record: Record) -> Report:
    """One table, and a picture with a panel for each task."""
    marked, sizes = best(record), {s.name: s.bytes for s in record.systems}
    columns: list[Column] = [("", lambda name: "*" if name in marked else "")]
    for scores in record.scores:
        columns.append((
            f"{scores.task} %",
            lambda name, s=scores: f"{100 * s.models[name].accuracy.value:.1f}",  # type: ignore[misc]
        ))  # fmt: skip
    columns.append(("MB", lambda name: f"{sizes[name] / 1e6:.1f}"))
    for rounds in record.shapes():
        columns += [
            (f"ms {rounds.name}", milliseconds(rounds)),
            ("p10-p90", lambda name, t=rounds.times: spread(t[name])),  # type: ignore[misc]
        ]  # fmt: skip
    one, bulk = record.on(ONE), record.on(ALL)
    columns += [
        ("ms p50", milliseconds(one)),
        ("p99", lambda name: f"{one.times[name].p99:.2f}"),
        ("texts/s", lambda name: f"{1e3 * bulk.texts / bulk.times[name].median:,.0f}"),
    ]
    rows = ", ".join(f"{scores.task} on {scores.rows} rows" for scores in record.scores)
    table = over(
        "Depths and targets", record.timed, columns,
        f"Accuracy: {rows}. {NOTE}. BATCHxTOKENS: the engine's own call; p50, p99 and texts/s: "
        f"{record.inputs['texts']} texts through the whole runtime, one at a time and in one call; "
        "one candidate loaded at a time, in interleaved rounds",
    )  # fmt: skip
    title = f"The frontier of {record.inputs['backbone']}"
    return Report(record, title, [table], [_picture(record)])


def _picture(record: Record) -> Picture:
    return Picture(
        "frontier",
        "Accuracy against latency by depth and target, a panel for each task",
        [_panel(record, scores) for scores in record.scores],
        (5.5, 4),
    )


def _panel(record: Record, scores: Scores) -> Draw:
    times = record.on(MAIN).times
    points = [
        Point(
            name.rpartition(" ")[2], times[name].median, scores.models[name].accuracy.value,
            group=name.partition(" depth ")[0],
        )
        for name in record.timed
    ]  # fmt: skip
    levels = {title: scores.models[title].accuracy.value for title in BASELINES.values()
              if title in scores.models}  # fmt: skip
    return scatter(
        points, xlabel=f"ms for {MAIN} on {record.threads} threads",
        title=f"{clip(scores.task, 40)}, {scores.rows} rows; number: layers",
        frontier=pareto(points), levels=levels,
    )  # fmt: skip
