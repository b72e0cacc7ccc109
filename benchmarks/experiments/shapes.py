"""By shape: one int8 graph against torch fp32, and one graph against one per task.

Trains two heads on the demo data, exports them together and each alone, checks that the graphs
answer alike, and times everything in interleaved rounds of one run, on the same token ids with the
same number of threads. About fifteen minutes on two cores.

`torch, a model per task` is the encoder run once per task, as one pipeline per task does it; the
other `a model per task` rows run the graphs that were exported with a single head.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks.core.command import new_record, run_module
from mtl_edge.benchmarks.core.measure import at_shapes
from mtl_edge.benchmarks.core.panels import Draw, bars
from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record, Rounds, Scores
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.statistics import scores_of
from mtl_edge.benchmarks.core.system import System, systems_of, torch_system
from mtl_edge.benchmarks.core.tables import Table, pair_of, scores_table, spread
from mtl_edge.benchmarks.demo import DATA, demo_tasks
from mtl_edge.benchmarks.experiments import random_backbone
from mtl_edge.benchmarks.roofline.rates import matrix_rates
from mtl_edge.bundle import open_bundle
from mtl_edge.engines import Ids, Logits
from mtl_edge.export.build import export
from mtl_edge.export.targets import DEFAULT
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.run import train

SHAPES = ((1, 16), (1, 32), (1, 128), (8, 32), (32, 32), (32, 128))
MAIN = ("1x32", "32x32")  # what the first table and the pictures show
ROUNDS, SECONDS = 60, 40.0  # of a shape
PER_TASK, ONE = "torch fp32, a model per task", "torch fp32, one model"
MINILM, DISTILBERT = "MiniLM", "DistilBERT (random weights)"


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.shapes", __doc__, lambda parser: None, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    started = time.monotonic()
    record = new_record("shapes", command, args.threads, started, systems=[])
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as folder:
        work = Path(folder)
        random_backbone.write(work / "distilbert")
        for name, backbone in ((MINILM, "minilm"), (DISTILBERT, str(work / "distilbert"))):
            with ExitStack() as stack:
                _backbone(record, name, backbone, work / f"{name} bundles", args.threads, stack)
    rates = {f"{name}_tops": rate for name, rate in matrix_rates(args.threads).items()}
    return report_of(replace(record, limits=rates, seconds=round(time.monotonic() - started, 1)))


def _backbone(
    record: Record, name: str, backbone: str, work: Path, threads: int, stack: ExitStack
) -> None:
    """Add every way to answer both tasks, and how the int8 graphs answer."""
    whole = train(demo_tasks(), load_backbone(backbone))
    parts = [_only(whole, task.name) for task in whole.tasks]
    together, *apart = (
        _graphs(checkpoint, work / str(number), threads, stack)
        for number, checkpoint in enumerate((whole, *parts))
    )
    torch_together = torch_system(whole, threads)
    systems = [
        _in_turn(PER_TASK, [torch_system(part, threads) for part in parts]),
        replace(torch_together, name=ONE),
    ]
    for place, target in enumerate(DEFAULT):
        systems.append(_in_turn(f"{target}, a model per task", [own[place] for own in apart]))
        systems.append(replace(together[place], name=f"{target}, one graph"))
    if name == MINILM:
        record.scores.extend(_scores(whole, [torch_together, *together]))
    known = {system.name for system in record.systems}
    record.systems.extend(s.info() for s in systems if s.name not in known)
    timed = at_shapes(
        f"timing {name}", systems, SHAPES, whole.backbone.info.vocabulary,
        rounds=ROUNDS, seconds=SECONDS, twice=False, references=(ONE, PER_TASK),
    )  # fmt: skip
    record.rounds.extend(replace(one, name=f"{name} {one.name}") for one in timed)


def _only(checkpoint: Checkpoint, task: str) -> Checkpoint:
    return replace(
        checkpoint,
        tasks=tuple(t for t in checkpoint.tasks if t.name == task),
        heads={task: checkpoint.heads[task]},
    )


def _graphs(checkpoint: Checkpoint, folder: Path, threads: int, stack: ExitStack) -> list[System]:
    export(checkpoint, folder, DEFAULT)
    systems, _ = systems_of(open_bundle(folder), None, threads, (), stack)
    return systems


def _in_turn(name: str, systems: Sequence[System]) -> System:
    """One after the other, as whoever has a model per task does it."""

    def run(ids: Ids, mask: Ids) -> Logits:
        return {task: out for s in systems for task, out in s.run(ids, mask).items()}

    first = systems[0]
    return System(name, first.engine, first.precision, sum(s.bytes for s in systems), run)


def _scores(checkpoint: Checkpoint, systems: Sequence[System]) -> list[Scores]:
    """Accuracy on the demo's held-out rows, and agreement with torch."""
    samples = [s for s in checkpoint.samples if s.split == "dev"]
    ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)([s.text for s in samples])
    logits = {system.name: in_batches(system.run, ids) for system in systems}
    scores = []
    for task in checkpoint.tasks:
        rows = [i for i, sample in enumerate(samples) if sample.task == task.name]
        expected = np.array([task.labels.index(samples[i].label) for i in rows])
        answers = {name: out[task.name].argmax(1)[rows] for name, out in logits.items()}
        models = scores_of(expected, answers, len(task.labels))
        scores.append(Scores(task.name, (DATA / "dev.csv").name, "", len(rows), "now", models))
    return scores


def report_of(record: Record) -> Report:
    """The main shapes, all shapes, and how the graphs answer."""
    backbones = list(dict.fromkeys(one.name.rpartition(" ")[0] for one in record.rounds))
    int8, fp32 = record.limits["int8_tops"], record.limits["fp32_tops"]
    return Report(
        record,
        "One graph against a model per task",
        [_main(record, backbones), _all_shapes(record, backbones), scores_table(record)],
        [
            Picture(
                "shapes",
                "Milliseconds for both tasks by engine, a panel for each backbone and shape",
                [_panel(record, backbone, shape) for backbone in backbones for shape in MAIN],
                (7, 2.9),
                down=True,
            )
        ],
        [
            f"How far int8 beats fp32 depends on the CPU: this one multiplies int8 matrices at "
            f"{int8:.2f} TOPS and fp32 ones at {fp32:.2f}, {int8 / fp32:.1f} times as fast",
            "Random weights have no accuracy worth printing",
        ],
    )


def _at(record: Record, backbone: str, shape: str) -> Rounds:
    return record.on(f"{backbone} {shape}")


def _times(rounds: Rounds, name: str, to: str) -> str:
    return "1.0x" if name == to else f"{pair_of(rounds.pairs, name, to).times_as_fast.value:.1f}x"


def _main(record: Record, backbones: Sequence[str]) -> Table:
    rows = []
    for backbone in backbones:
        for name in record.timed:
            row = [backbone, name]
            for shape in MAIN:
                rounds = _at(record, backbone, shape)
                time_ = rounds.times[name]
                row += [f"{time_.median:.2f} ({spread(time_)})",
                        _times(rounds, name, ONE), _times(rounds, name, PER_TASK)]  # fmt: skip
            rows.append(row)
    header = ["backbone", "both tasks by"]
    for shape in MAIN:
        header += [f"ms, {shape} (p10-p90)", "to torch, one model", "to torch, per task"]
    return Table("Both tasks", header, rows, "Medians of interleaved rounds; *batch x tokens*")


def _all_shapes(record: Record, backbones: Sequence[str]) -> Table:
    shapes = [f"{batch}x{tokens}" for batch, tokens in SHAPES]
    rows = []
    for backbone in backbones:
        for name in (n for n in record.timed if "per task" not in n):
            row = [backbone, name.removesuffix(", one graph").removesuffix(", one model")]
            for shape in shapes:
                rounds = _at(record, backbone, shape)
                row.append(f"{rounds.times[name].median:.2f} ({_times(rounds, name, ONE)})")
            rows.append(row)
        row = [backbone, "onnx-int8 to openvino-int8"]
        for shape in shapes:
            times = _at(record, backbone, shape).times
            one, other = (times[f"{target}, one graph"].median for target in DEFAULT)
            row.append(f"{one / other:.2f}")
        rows.append(row)
    return Table(
        "All shapes", ["backbone", "graph", *shapes], rows,
        "Milliseconds of one graph (how many times as fast as torch fp32, one model)",
    )  # fmt: skip


def _panel(record: Record, backbone: str, shape: str) -> Draw:
    rounds = _at(record, backbone, shape)
    values = {n: (t.p10 or t.median, t.median, t.p90) for n, t in rounds.times.items()}
    words = {n: f"{t.median:.1f} ms, {_times(rounds, n, ONE)}" for n, t in rounds.times.items()}
    return bars(
        values, words, title=f"{backbone}, {shape}; x: to torch fp32, one model",
        xlabel="ms for both tasks (median, p10-p90)",
    )  # fmt: skip


if __name__ == "__main__":
    main()
