"""`mtl-edge predict`: texts from arguments, a file or standard input; shown, or written to a file.

Files may be larger than the memory. What goes to --out is written beside it and gets its name when
it is whole; a run that was stopped or killed goes on with the same command.
"""

from __future__ import annotations

import argparse
from argparse import SUPPRESS
from pathlib import Path

from mtl_edge.cli.predict_shared import exit_code_of, load, note_tally, predictions_of
from mtl_edge.cli.predict_to_file import write_predictions
from mtl_edge.cli.printing import print_json, print_table
from mtl_edge.cli.reading import add_read_arguments, read_options
from mtl_edge.cli.signals import Stopped, Stopper, stoppable
from mtl_edge.errors import OptionError
from mtl_edge.io.chunks import texts_of
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import Source, format_of, open_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("texts", nargs="*", help="texts; none: those of --file or standard input")
    parser.add_argument(
        "--file",
        type=Path,
        help="CSV, TSV, JSONL, Parquet, Arrow or one text a line; text also packed, as .gz",
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
        "--depth-column",
        action="store_true",
        help="to --out: a column with the layers of the stage that answered, too",
    )
    parser.add_argument(
        "--prefix", default="", help="to --out: what the added columns' names begin with"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an --out that exists")
    parser.add_argument("--restart", action="store_true", help="forget what a stopped run left")
    parser.add_argument("--engine", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--target", help="the graph to run, as `mtl-edge info` lists them")
    parser.add_argument("--threads", type=int, help="default: the physical cores, at most 8")
    parser.add_argument(
        "--device",
        default="CPU",
        help="CPU, or what the engine calls another: CUDA, CoreML, ... in ONNX Runtime, GPU or "
        "NPU in OpenVINO; default: %(default)s",
    )
    parser.add_argument(
        "--max-depth", type=int, metavar="LAYERS", help="do without stages that run more layers"
    )
    parser.add_argument(
        "--depth-for",
        metavar="A,B",
        help="tasks whose certainty decides whether a text goes on to the next stage; default: "
        "all that are asked",
    )
    parser.add_argument(
        "--public-key", type=Path, metavar="FILE", help="the bundle must be signed with this key"
    )
    add_read_arguments(parser)
    # An earlier name of --text-column.
    parser.add_argument("--column", dest="text_column", default=SUPPRESS, help=SUPPRESS)


def run(args: argparse.Namespace) -> int:
    _check(args)
    options = read_options(args)
    format_of(args.file, options.format)  # told before anything is loaded
    source = tuple(args.texts) or args.file
    with stoppable() as stopper:
        if args.out is None:
            return _print_predictions(args, source, options, stopper)
        return write_predictions(args, source, options, stopper)


def _check(args: argparse.Namespace) -> None:
    if args.texts and args.file:
        raise OptionError("texts came both as arguments and with --file; give one of the two")
    if args.out is None:
        for option in ("probabilities", "depth_column", "prefix", "overwrite", "restart"):
            if getattr(args, option):
                name = option.replace("_", "-")
                raise OptionError(f"--{name} is about the file to write; name it with --out")
    elif args.json:
        raise OptionError("--json prints, --out writes; for JSON in a file end --out in .jsonl")
    elif args.file is not None and _same(args.out, args.file):
        raise OptionError(f"--out {args.out} is the input; choose another")


def _print_predictions(
    args: argparse.Namespace, source: Source, options: ReadOptions, stopper: Stopper
) -> int:
    """Print the answers as they come."""
    print_chunk = print_json if args.json else print_table
    rows = 0
    try:
        with load(args) as classifier, open_table(source, options) as table:
            for chunk in table.chunks:
                with stopper.step():
                    texts = texts_of(table, chunk, options)
                    print_chunk(classifier.tasks, texts, predictions_of(classifier, texts))
                    rows = chunk.last
            note_tally(table)
    except Stopped as stop:
        return exit_code_of(stop, f"{rows:,} rows were answered")
    return 0


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
