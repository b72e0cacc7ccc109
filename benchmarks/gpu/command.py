"""`python -m mtl_edge.benchmarks.gpu`: every way to run a model on a GPU, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mtl_edge.benchmarks.gpu import report
from mtl_edge.benchmarks.gpu.clock import clock_of
from mtl_edge.benchmarks.gpu.measure import Effort, measure
from mtl_edge.benchmarks.gpu.ways import REFERENCE, Subject, WayInfo, ways_of
from mtl_edge.benchmarks.limits.command import shapes_of
from mtl_edge.benchmarks.shown import shown
from mtl_edge.bundle import Bundle, open_bundle
from mtl_edge.cli.named_values import named
from mtl_edge.errors import CheckpointError, MtlEdgeError, OptionError
from mtl_edge.io.folders import staged_folder
from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.table import text_table
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.drawing import drawn

__all__ = ["main"]

TOKENS = 32
BATCHES = tuple(2**power for power in range(11))  # 1 to 1,024
LENGTHS = ((1, 16), (32, 16), (1, 128), (32, 128), (256, 128))
ROUNDS, ITERATIONS = 15, 50
FIGURES, TABLE, PICTURE = "gpu.json", "gpu.md", "gpu.png"


def main(arguments: Sequence[str] | None = None, effort: Effort | None = None) -> None:
    """
    Args:
        effort: how much is measured, instead of what the options say.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        bundle = open_bundle(args.bundle)
        checkpoint = load_checkpoint(args.checkpoint).at(bundle.manifest.depth)
        _require_its_own(args, bundle, checkpoint)
        if args.device == "cuda" and not torch.cuda.is_available():
            print(_not_measured(args.out))
            return
        subject = Subject(bundle, checkpoint, torch.device(args.device))
        ways = _asked(args.ways, ways_of(subject))
        effort = effort or _effort(args, bundle.manifest.max_tokens)
        data = _data(args, bundle, checkpoint)
        found = measure(subject, ways, data, clock_of(subject.device), effort)
        figures = {"command": shown("gpu", arguments), **found}
        _write(args.out, figures)
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")
    print(_printed(figures), f"\nfigures {args.out}", sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=report.COMMAND,
        description="Time a checkpoint's model and its bundle's graphs on an NVIDIA GPU, in every "
        "precision and way to run them, beside what the card can do at most.",
    )
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what it was exported from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"),
                        help="a folder for the figures; default: %(default)s")  # fmt: skip
    parser.add_argument("--data", action="append", default=[], metavar="TASK=FILE",
                        help="labelled rows to measure accuracy on; default: those that the "
                        "checkpoint carries along")  # fmt: skip
    parser.add_argument("--ways", default="", help="comma-separated parts of names, as in "
                        "'torch fp16,engine'; default: all")  # fmt: skip
    usual = f"1 to {BATCHES[-1]} texts of {TOKENS} tokens, and some lengths"
    parser.add_argument("--shapes", default="",
                        help=f"batch x tokens, comma-separated; default: {usual}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=ITERATIONS,
                        help="of a call in a round, at most; default: %(default)s")  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                        help="cpu tries the harness; its figures say nothing of a GPU")  # fmt: skip
    return parser


def _require_its_own(args: argparse.Namespace, bundle: Bundle, checkpoint: Checkpoint) -> None:
    held = [(task.name, task.labels) for task in bundle.manifest.tasks]
    asked = [(task.name, task.labels) for task in checkpoint.tasks]
    if held != asked:
        raise CheckpointError(
            f"{args.checkpoint} has the tasks {[name for name, _ in asked]}, and the bundle "
            f"{[name for name, _ in held]}, or their labels differ; give the checkpoint that it "
            "was exported from"
        )


def _not_measured(out: Path) -> str:
    """Say so where figures would be; those that another machine wrote stay."""
    if (out / FIGURES).exists():
        return f"{report.NOT_MEASURED}\nThe figures in {out} are kept."
    with staged_folder(out, overwrite=True) as stage:
        (stage / TABLE).write_text(report.NOT_MEASURED, encoding="utf-8")
    return report.NOT_MEASURED


def _asked(text: str, ways: Mapping[str, WayInfo]) -> dict[str, WayInfo]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not any(part in name for name in ways):
            raise OptionError(f"--ways {part!r}: no such way; there are {'; '.join(ways)}")
    return {
        name: info for name, info in ways.items()
        if not parts or name == REFERENCE or any(part in name for part in parts)
    }  # fmt: skip


def _effort(args: argparse.Namespace, max_tokens: int) -> Effort:
    for option in ("rounds", "iterations"):
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} is {getattr(args, option)}, expected 1 or more")
    shapes = shapes_of("--shapes", args.shapes)
    if too_long := [tokens for _, tokens in shapes if tokens > max_tokens]:
        raise OptionError(
            f"--shapes has {too_long[0]} tokens, and the bundle takes {max_tokens} at most"
        )
    usual = [*((batch, TOKENS) for batch in BATCHES), *LENGTHS]
    fitting = [(batch, tokens) for batch, tokens in usual if tokens <= max_tokens]
    return Effort(shapes or fitting, args.rounds, args.iterations)


def _data(args: argparse.Namespace, bundle: Bundle, checkpoint: Checkpoint) -> dict[str, Rows]:
    tasks = {task.name: task for task in bundle.manifest.tasks}
    data = {}
    for name, file in named("--data", args.data).items():
        if name not in tasks:
            raise OptionError(f"--data {name}: no such task; there are {', '.join(tasks)}")
        data[name] = read_rows(name, file, known=tasks[name].labels)
    return data or _carried(checkpoint)


def _carried(checkpoint: Checkpoint) -> dict[str, Rows]:
    """The held-out rows that came with the checkpoint; it may have none of a task."""
    data = {}
    for task in checkpoint.tasks:
        own = [s for s in checkpoint.samples if s.task == task.name and s.split == "dev"]
        if own:
            texts, labels = tuple(s.text for s in own), tuple(s.label for s in own)
            data[task.name] = Rows(texts, labels, {"file": "of the checkpoint"})
    return data


def _write(out: Path, figures: dict[str, Any]) -> None:
    with staged_folder(out, overwrite=True) as stage:
        text = json.dumps(figures, indent=1) + "\n"
        (stage / FIGURES).write_text(text, encoding="utf-8")
        (stage / TABLE).write_text(report.markdown(figures), encoding="utf-8")
        drawn(stage / PICTURE, report.draw, figures)


def _printed(figures: dict[str, Any]) -> str:
    tables = [report.times_table(figures), report.card_table(figures)]
    if figures["scores"]:
        tables.append(report.scores_table(figures))
    told = [f"not timed: {reason}" for reason in report.failures(figures)]
    return "\n\n".join([*(text_table(*table) for table in tables), *told])
