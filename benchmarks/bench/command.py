"""`mtl-edge bench`: every graph of a bundle, and the torch model, measured side by side."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from mtl_edge.benchmarks.bench.compare import compare, remarks
from mtl_edge.benchmarks.bench.measure import EFFORTS, Effort, Texts, measure
from mtl_edge.benchmarks.bench.report import report_of
from mtl_edge.benchmarks.core.command import (
    Output,
    add_output_arguments,
    add_threads_argument,
    require_positive,
)
from mtl_edge.benchmarks.core.measure import shapes_of
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.core.scores import LabelledFile
from mtl_edge.benchmarks.demo import DATA
from mtl_edge.bundle import Bundle, open_bundle
from mtl_edge.cli.reading import (
    LABEL_ARGUMENTS,
    add_label_arguments,
    add_read_arguments,
    rows_of,
    texts_in,
)
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.labelled import read_texts
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.table import text_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="?", help="a bundle's folder")
    parser.add_argument(
        "--checkpoint", type=Path, help="its checkpoint: measures the torch fp32 model beside it"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="labelled rows to measure accuracy on; several files for a task are reported apart; "
        "default: the figures made at export",
    )
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="texts to measure times with: CSV, TSV, JSONL, Parquet or lines; default: those of "
        "--data, or else the demo's",
    )
    parser.add_argument(
        "--shapes",
        metavar="BATCHxTOKENS,...",
        help="for the engines' own calls; default: 1x16,1x32,8x32,32x32",
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="a first impression, in seconds")
    effort.add_argument(
        "--full", action="store_true", help="more shapes, texts and rounds: minutes"
    )
    add_threads_argument(parser)
    parser.add_argument(
        "--device",
        default="CPU",
        help="CPU or CUDA: torch eager, torch compiled and ONNX Runtime on the GPU, timed by its "
        "events; default: %(default)s",
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("OLD.json", "NEW.json"),
        help="measure nothing; show what became faster from one --json to another",
    )


def run(args: argparse.Namespace) -> None:
    if args.compare:
        if args.bundle is not None:
            raise OptionError("--compare measures nothing; leave the bundle out")
        _compare(*args.compare)
        return
    if args.bundle is None:
        raise OptionError("expected a bundle's folder, or --compare OLD.json NEW.json")
    output = Output(args.json, args.out, args.overwrite)
    output.check()
    require_positive(args, "threads")
    bundle = open_bundle(args.bundle)
    effort = _effort(args, bundle)
    labelled = _labelled(bundle, args)
    record = measure(
        bundle,
        args.checkpoint,
        _texts(args, labelled),
        labelled,
        effort,
        threads=args.threads,
        command=_command(args),
        device=args.device.upper(),
    )
    output.put(report_of(record))


def _compare(before: Path, after: Path) -> None:
    old, new = read_record(before), read_record(after)
    table = compare(old, new)
    if not table.rows:
        raise DataError(f"{before} and {after} have no model and shape in common")
    print(text_table(table.header, table.rows), "", table.note, *remarks(old, new), sep="\n")


def _effort(args: argparse.Namespace, bundle: Bundle) -> Effort:
    most = bundle.manifest.max_tokens
    effort = EFFORTS["quick" if args.quick else "full" if args.full else "default"]
    if args.shapes is not None:
        return replace(effort, shapes=shapes_of("--shapes", args.shapes, most))
    return replace(effort, shapes=[shape for shape in effort.shapes if shape[1] <= most])


def _labelled(bundle: Bundle, args: argparse.Namespace) -> list[LabelledFile]:
    tasks = {task.name: task for task in bundle.manifest.tasks}
    found = []
    for value in args.data:
        name, separator, file = value.partition("=")
        if not (name and separator and file):
            raise OptionError(f"--data {value!r}: expected TASK=FILE")
        if name not in tasks:
            raise OptionError(f"--data {name}: no such task; there are {', '.join(tasks)}")
        if tasks[name].kind == "score":
            raise OptionError(
                f"--data {name}: bench reports accuracy, which a score has not; the bundle's "
                "README has its figures"
            )
        rows = rows_of(name, file, args, list(tasks), tasks[name])
        found.append((file, LabelledFile(name, rows)))
    return _told_apart(found)


def _told_apart(found: Sequence[tuple[str, LabelledFile]]) -> list[LabelledFile]:
    """Different files that have one name go by their folder's, too."""
    contents: dict[str, set[str]] = {}
    for _, one in found:
        contents.setdefault(one.rows.source["file"], set()).add(one.rows.source["sha256"])
    result = []
    for file, one in found:
        if len(contents[one.rows.source["file"]]) > 1:
            path = Path(file)
            source = {**one.rows.source, "file": f"{path.parent.name}/{path.name}"}
            one = LabelledFile(one.task, replace(one.rows, source=source))
        result.append(one)
    return result


def _texts(args: argparse.Namespace, labelled: Sequence[LabelledFile]) -> Texts:
    if not args.texts and labelled:
        held = {one.rows.source["sha256"]: one.rows for one in labelled}  # one may be of two tasks
        texts = [text for rows in held.values() for text in rows.texts]
        return Texts([rows.source["file"] for rows in held.values()], texts, len(texts))
    if args.texts:
        texts = texts_in(args.texts, args)
        return Texts([file.name for file in args.texts], texts, len(texts))
    texts = [text for name in ("dev.csv", "train.csv") for text in read_texts(DATA / name)[0]]
    return Texts(["the demo's reviews"], texts, len(texts))


def _command(args: argparse.Namespace) -> str:
    """What repeats the measurement, with $DATA for the folder that it stands for.

    Where the figures were written does not matter.
    """
    parts = ["mtl-edge", "bench", str(args.bundle)]
    for option in ("checkpoint", "shapes"):
        if (value := getattr(args, option)) is not None:
            parts += [f"--{option}", str(value)]
    for option in ("data", "texts", *LABEL_ARGUMENTS):
        for value in getattr(args, option):
            parts += [f"--{option.replace('_', '-')}", str(value)]
    for field in fields(ReadOptions):
        if (value := getattr(args, field.name)) != field.default:
            parts += [f"--{field.name.replace('_', '-')}", str(value)]
    parts += [f"--{option}" for option in ("quick", "full") if getattr(args, option)]
    if args.device != "CPU":
        parts += ["--device", args.device]
    if args.threads != default_threads():
        parts += ["--threads", str(args.threads)]
    command, data = shlex.join(parts), os.environ.get("DATA")
    return command.replace(f"{data.rstrip('/')}/", "$DATA/") if data else command
