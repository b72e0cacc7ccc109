"""`mtl-edge bench`: accuracy, agreement, size and latency of a bundle, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.benchmarks.contenders import Contender, from_bundle, from_checkpoint
from mtl_edge.benchmarks.machine import describe
from mtl_edge.bundle import TOKENIZER, Bundle, Task, open_bundle
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import CheckpointError, DataError, MissingPackageError, OptionError
from mtl_edge.options import named
from mtl_edge.planning import in_batches
from mtl_edge.table import text_table
from mtl_edge.text import TextEncoder
from mtl_edge.timing import Timing, alternate
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.command import add_column_arguments, columns_of
from mtl_edge.training.data import Rows, read_rows
from mtl_edge.training.progress import Progress

__all__ = ["add_arguments", "measure", "notes_of", "run", "table_of"]

SHAPES = ((1, 32), (32, 32))
ROUNDS = 40
SECONDS = 15.0
BASELINES = {"mean_pooling": "usual recipe", "bag_of_words": "bag of words"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument(
        "--checkpoint", type=Path, help="its checkpoint: measures the torch fp32 model beside it"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="labelled rows to measure accuracy on; default: the figures made at export",
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--threads",
        type=int,
        default=default_threads(),
        help="default: the physical cores, at most 8",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")


def run(args: argparse.Namespace) -> None:
    bundle = open_bundle(args.bundle)
    contenders = _contenders(bundle, args)
    data = _read(bundle, args)
    result = measure(bundle, contenders, data, args.threads)
    print(text_table(*table_of(result)), "", *notes_of(result), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"\nfigures {args.json}")


def _contenders(bundle: Bundle, args: argparse.Namespace) -> list[Contender]:
    contenders = from_bundle(bundle, args.threads)
    if not contenders:
        names = ", ".join(sorted({graph.engine for graph in bundle.manifest.graphs}))
        raise MissingPackageError(f"no engine for this bundle is installed; it needs {names}")
    if args.checkpoint is None:
        return contenders
    checkpoint = load_checkpoint(args.checkpoint)
    asked = [(t.name, t.labels) for t in checkpoint.tasks]
    if asked != [(t.name, t.labels) for t in bundle.manifest.tasks]:
        raise CheckpointError(
            f"{args.checkpoint} has the tasks {[n for n, _ in asked]}, and the bundle "
            f"{[t.name for t in bundle.manifest.tasks]}; give the checkpoint it was exported from"
        )
    return [from_checkpoint(checkpoint, args.threads), *contenders]


def _read(bundle: Bundle, args: argparse.Namespace) -> dict[str, Rows]:
    tasks = {task.name: task for task in bundle.manifest.tasks}
    files = named("--data", args.data)
    columns = columns_of(args, list(tasks))
    data = {}
    for name, file in files.items():
        if name not in tasks:
            raise OptionError(f"--data {name}: no such task; there are {', '.join(tasks)}")
        data[name] = read_rows(name, Path(file), columns[name])
        if unknown := sorted(set(data[name].labels) - set(tasks[name].labels)):
            raise DataError(
                f"{file} has the label {unknown[0]!r}, which task {name!r} does not know; "
                f"expected {', '.join(tasks[name].labels)}"
            )
    return data


def measure(
    bundle: Bundle, contenders: Sequence[Contender], data: Mapping[str, Rows], threads: int
) -> dict[str, Any]:
    """All figures, as they are written to JSON.

    Accuracy and agreement with the first contender come before any timing. Latency is taken in
    alternating rounds on the same random token ids.
    """
    encoder = TextEncoder.from_file(bundle.file(TOKENIZER), bundle.manifest.max_tokens)
    tasks = {task.name: task for task in bundle.manifest.tasks}
    measured = {
        name: _accuracy(tasks[name], rows, encoder, contenders) for name, rows in data.items()
    }
    rng = np.random.default_rng(0)
    latency: dict[str, dict[str, Timing]] = {}
    with Progress("timing", total=len(SHAPES) * ROUNDS, unit="rounds") as progress:
        for batch, tokens in SHAPES:
            ids = rng.integers(0, bundle.manifest.backbone.vocabulary, (batch, tokens))
            mask = np.ones_like(ids)
            latency[f"{batch}x{tokens}"] = alternate(
                {c.name: lambda c=c, a=ids, m=mask: c.run(a, m) for c in contenders},  # type: ignore[misc]
                rounds=ROUNDS,
                seconds=SECONDS,
                between=progress.update,
            )
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "threads": threads,
        "scores": {task: _scores(bundle, measured, task) for task in tasks},
        "bytes": {c.name: c.size for c in contenders},
        "latency_ms": {
            shape: {
                name: {
                    **t.to_json(),
                    "times_as_fast_as_first": t.ratio_of(times[contenders[0].name]),
                }
                for name, t in times.items()
            }
            for shape, times in latency.items()
        },
    }


def _accuracy(
    task: Task, rows: Rows, encoder: TextEncoder, contenders: Sequence[Contender]
) -> dict[str, Any]:
    ids = encoder(rows.texts)
    answers = {c.name: in_batches(c.run, ids)[task.name].argmax(1) for c in contenders}
    first = answers[contenders[0].name]
    expected = np.array([task.labels.index(label) for label in rows.labels])
    return {
        "rows": len(rows),
        **rows.source,
        "contenders": {
            name: {
                "accuracy": float((answer == expected).mean()),
                "agreement": float((answer == first).mean()),
            }
            for name, answer in answers.items()
        },
    }


def _scores(bundle: Bundle, data: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's scores by model: measured now, or else those made at export."""
    recorded = bundle.manifest.evaluation.get(task, {})
    baselines = {key: recorded[key] for key in BASELINES if key in recorded}
    if task not in data:
        return {
            "rows": recorded.get("rows"),
            "measured": "at export",
            "models": {
                **baselines,
                **({"torch fp32": recorded["fp32"]} if "fp32" in recorded else {}),
                **recorded.get("graphs", {}),
            },
        }
    now = data[task]
    # The baselines were measured at training, so they stand beside the same rows only.
    same = recorded.get("sha256") == now["sha256"] and recorded.get("rows") == now["rows"]
    return {
        "rows": now["rows"],
        "measured": "now",
        "models": {**(baselines if same else {}), **now["contenders"]},
    }


def table_of(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that shows what `measure` returned."""
    first = next(iter(result["bytes"]))
    scores = {task: found["models"] for task, found in result["scores"].items()}
    header = ["model", *(f"{task} %" for task in scores), "agrees %", "MB"]
    for shape in result["latency_ms"]:
        header += [f"ms {shape}", "p10-p90", f"to {first}"]
    rows = []
    for name, size in result["bytes"].items():
        found = [models.get(name, {}) for models in scores.values()]
        agreements = [score["agreement"] for score in found if "agreement" in score]
        row = [name, *(_percent(score.get("accuracy")) for score in found)]
        row += [_percent(min(agreements, default=None)), f"{size / 1e6:.0f}"]
        for times in result["latency_ms"].values():
            t = times[name]
            row += [f"{t['median']:.2f}", f"{t['p10']:.2f}-{t['p90']:.2f}"]
            row += [f"{t['times_as_fast_as_first'][0]:.1f}x"]
        rows.append(row)
    for key, title in BASELINES.items():
        baseline = [_percent(models.get(key, {}).get("accuracy")) for models in scores.values()]
        if any(baseline):
            rows.append([title, *baseline, *[""] * (len(header) - 1 - len(scores))])
    return header, rows


def notes_of(result: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    first = next(iter(result["bytes"]))
    measured = ", ".join(
        f"{task} on {found['rows']} rows {found['measured']}"
        for task, found in result["scores"].items()
    )
    return [
        f"accuracy: {measured}; agrees: share of rows with the label of {first}, the lowest over "
        "the tasks",
        f"to {first}: times as fast, median over alternating rounds; {result['threads']} threads",
        "usual recipe: mean pooling + logistic regression on the same encoder; "
        "bag of words: TF-IDF + logistic regression, no encoder",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
