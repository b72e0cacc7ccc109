"""`mtl-edge predict`: texts from arguments, a file or standard input; shown, or written to a file.

Files may be larger than the memory. What goes to --out is written beside it and gets its name when
it is whole; a run that was stopped or killed goes on with the same command.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_edge.bundle import MANIFEST
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.show import print_json, print_table
from mtl_edge.errors import DataError, OptionError
from mtl_edge.files import sha256_of
from mtl_edge.progress import Progress
from mtl_edge.rows.answers import added_columns, predictions_of, values_of
from mtl_edge.rows.formats import FORMATS, Writer, format_of, writer_of
from mtl_edge.rows.model import Answers, Columns, Kind, ReadOptions, layout_of
from mtl_edge.rows.output import Output, require_no_file
from mtl_edge.rows.source import Source, fingerprint, open_rows, survey
from mtl_edge.stopping import Stopped, Stopper, stoppable
from mtl_edge.version import __version__

__all__ = ["add_arguments", "run"]

TERMINATED = 128 + signal.SIGTERM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("texts", nargs="*", help="texts; none: those of --file or standard input")
    parser.add_argument(
        "--file", type=Path, help="CSV, TSV, JSONL, Parquet or one text a line, UTF-8; also .gz"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="of the input; default: by its ending, else lines"
    )
    parser.add_argument(
        "--column", help="holds the texts; default: text", default="text", metavar="NAME"
    )
    parser.add_argument(
        "--missing",
        choices=("error", "empty", "skip"),
        default="error",
        help="a null in place of a text is an error, an empty text, or a row without answers; "
        "default: %(default)s",
    )
    parser.add_argument("--tasks", metavar="A,B", help="answer these alone; default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--out",
        type=Path,
        help="write the input's columns and the answers there: .csv, .tsv, .jsonl or .parquet, "
        "those of text also .gz",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="to --out: a column per label, too"
    )
    parser.add_argument(
        "--prefix", default="", help="to --out: what the added columns' names begin with"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an --out that exists")
    parser.add_argument("--restart", action="store_true", help="forget what a stopped run left")
    parser.add_argument("--engine", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--target", help="the graph to run, as `mtl-edge info` lists them")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument(
        "--device",
        default="CPU",
        help="CPU, or what the engine calls another: CUDA, CoreML, ... in ONNX Runtime, GPU or "
        "NPU in OpenVINO; default: %(default)s",
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    source = Source(
        format_of(args.file, args.format),
        ReadOptions(args.column, args.missing, strict=args.out is not None),
        path=args.file,
        texts=tuple(args.texts) or None,
    )
    with stoppable() as stopper:
        if args.out is None:
            return _show(args, source, stopper)
        return _write(args, source, stopper)


def _check(args: argparse.Namespace) -> None:
    if args.texts and args.file:
        raise OptionError("texts came both as arguments and with --file; give one of the two")
    if args.out is None:
        for option in ("probabilities", "prefix", "overwrite", "restart"):
            if getattr(args, option):
                raise OptionError(f"--{option} is about the file to write; name it with --out")
    elif args.json:
        raise OptionError("--json prints, --out writes; for JSON in a file end --out in .jsonl")
    elif args.file is not None and args.out.exists() and args.out.samefile(args.file):
        raise OptionError(f"--out {args.out} is the input; choose another")


def _load(args: argparse.Namespace, target: str | None = None) -> EdgeClassifier:
    return EdgeClassifier.load(
        args.bundle,
        engine=args.engine,
        target=target or args.target,
        threads=args.threads,
        device=args.device,
        **({} if args.tasks is None else {"tasks": [n.strip() for n in args.tasks.split(",")]}),
    )


def _show(args: argparse.Namespace, source: Source, stopper: Stopper) -> int:
    """Print the answers as they come."""
    show = print_json if args.json else print_table
    rows = 0
    try:
        with _load(args) as classifier, open_rows(source) as ((_, chunks), _):
            names = [task.name for task in classifier.tasks]
            for chunk in chunks:
                with stopper.step():
                    show(names, chunk.texts, predictions_of(classifier, chunk))
                    rows = chunk.mark.rows
    except Stopped as stop:
        return _stopped(stop, f"{rows:,} rows were answered")
    return 0


def _stopped(stop: Stopped, advice: str) -> int:
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt(advice) from None
    print(f"mtl-edge: stopped; {advice}", file=sys.stderr)
    return TERMINATED


def _write(args: argparse.Namespace, source: Source, stopper: Stopper) -> int:
    """Write rows and answers to --out."""
    writer = writer_of(args.out)
    require_no_file(args.out, overwrite=args.overwrite)
    made_by = _made_by(args, source)
    output = Output(args.out, made_by, restart=args.restart, lasting=source.regular)
    try:
        with output, _load(args, (output.facts or {}).get("graph")) as classifier:
            added = added_columns(
                classifier.tasks, prefix=args.prefix, probabilities=args.probabilities
            )
            facts = output.facts or _facts(source, classifier, added)
            with open_rows(source, output.mark) as ((columns, chunks), _):
                layout = layout_of(columns or _columns(facts, writer), added)
                output.begin(writer.header(layout), facts)
                if output.mark.rows:
                    print(f"note: going on behind row {output.mark.rows:,}", file=sys.stderr)
                with Progress(
                    str(args.out), total=facts["rows"], unit="rows", done=output.mark.rows
                ) as progress:
                    for chunk in chunks:
                        with stopper.step():
                            answers: Answers = [
                                values_of(prediction, probabilities=args.probabilities)
                                for prediction in predictions_of(classifier, chunk)
                            ]
                            output.append(writer.encode(layout, chunk, answers), chunk.mark)
                            progress.reach(chunk.mark.rows)
                    _require_unchanged(source, made_by)
                    output.finish(writer.finish)
    except Stopped as stop:
        return _stopped(stop, output.advice)
    return 0


def _made_by(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What decides the output, as far as it is known before anything is loaded."""
    manifest = args.bundle / MANIFEST
    options = ("column", "missing", "tasks", "probabilities", "prefix", "engine", "target")
    return {
        "version": __version__,
        "bundle": sha256_of(manifest) if manifest.is_file() else None,
        "input": fingerprint(source.path) if source.path and source.regular else None,
        "format": source.format,
        "device": args.device,
        **{option: getattr(args, option) for option in options},
    }


def _facts(source: Source, classifier: EdgeClassifier, added: Mapping[str, Kind]) -> dict[str, Any]:
    """What a run finds out at its start, and one that goes on must not find otherwise."""
    graph = classifier.graph.target
    if source.texts is not None:
        return {"graph": graph, "rows": len(source.texts), "kinds": None}
    if source.path is None or not source.regular:
        return {"graph": graph, "rows": None, "kinds": None}
    with open_rows(source) as ((columns, _), _):
        if columns is not None:
            layout_of(columns, added)  # a clash is told before the file is read
    size = source.path.stat().st_size
    with Progress(f"checking {source.name}", total=size, unit="bytes", brief=True) as progress:
        found = survey(source, progress.reach)
    return {"graph": graph, "rows": found.rows, "kinds": found.kinds}


def _columns(facts: Mapping[str, Any], writer: Writer) -> Columns:
    """The columns of JSONL, which only all of its rows tell."""
    if facts["kinds"] is not None:
        return Columns(facts["kinds"])
    if writer.any_columns:
        return Columns({})
    raise OptionError(
        "the columns of JSONL are known when all of it was read: give it with --file, or write "
        "--out as .jsonl"
    )


def _require_unchanged(source: Source, made_by: Mapping[str, Any]) -> None:
    if source.path and made_by["input"] not in (None, fingerprint(source.path)):
        raise DataError(f"{source.name} changed while it was read; begin anew with --restart")
