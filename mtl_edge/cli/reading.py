"""Options that say how files are read, alike in every command."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from mtl_edge.cli.named_values import for_each, named
from mtl_edge.errors import OptionError
from mtl_edge.io.labelled import Rows, read_rows, read_texts
from mtl_edge.io.labels import label_of
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import FORMATS

__all__ = [
    "add_label_arguments",
    "add_read_arguments",
    "labels_of",
    "note",
    "read_options",
    "rows_of",
    "texts_in",
]


def add_read_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for `read_options`."""
    group = parser.add_argument_group("reading files")
    group.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="holds the texts; default: %(default)s",
    )
    group.add_argument(
        "--format", choices=FORMATS, help="of files; default: by their names' endings, else lines"
    )
    group.add_argument(
        "--encoding", help="of text files, as cp1252; default: UTF-8, or what a mark in them says"
    )
    group.add_argument(
        "--separator",
        metavar="CHARACTER",
        help="of CSV and TSV: one character, or tab, semicolon, pipe; default: by the ending",
    )
    group.add_argument(
        "--quoting",
        choices=("double", "none"),
        help="of CSV and TSV: cells in double quotes, or quotes are characters like others; "
        "default: double, but quotes that seem to be stray are refused",
    )
    group.add_argument(
        "--escape", metavar="CHARACTER", help="of CSV and TSV: stands before quotes, as '\\'"
    )
    group.add_argument(
        "--missing",
        choices=("error", "skip", "empty"),
        default="error",
        help="a null in place of a text is an error, a row to pass over, or an empty text; "
        "default: %(default)s",
    )
    group.add_argument(
        "--too-long",
        choices=("error", "skip", "cut"),
        default="error",
        help="a text of more than a mebibyte is an error, a row to pass over, or cut; default: "
        "%(default)s",
    )


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """The option that says where files keep labels."""
    parser.add_argument(
        "--label-column",
        action="append",
        default=[],
        metavar="[TASK=]COLUMN",
        help="for all tasks or for one; default: label, or else the task's name",
    )


def read_options(args: argparse.Namespace) -> ReadOptions:
    """
    Raises:
        OptionError: one makes no sense.
    """
    return ReadOptions(**{field.name: getattr(args, field.name) for field in fields(ReadOptions)})


def labels_of(args: argparse.Namespace, tasks: Sequence[str]) -> dict[str, list[str]]:
    """Each task's labels in the order of `--labels TASK=A,B`; not of tasks without.

    Raises:
        OptionError: a task that is not there, labels that look alike, or fewer than two.
    """
    found = {}
    for task, text in named("--labels", args.labels).items():
        if task not in tasks:
            raise OptionError(f"--labels {task}: no such task; there are {', '.join(tasks)}")
        try:
            cells = next(csv.reader([text], strict=True))
            labels = [label for cell in cells if (label := label_of(cell)) is not None]
        except (ValueError, csv.Error) as error:
            raise OptionError(f"--labels {task}={text!a:.80}: {error}; as bad,good") from None
        if len(labels) < max(2, len(cells)) or len(set(labels)) < len(labels):
            raise OptionError(
                f"--labels {task}={text}: expected two or more labels that differ, as bad,good"
            )
        found[task] = labels
    return found


def rows_of(
    task: str,
    file: str | Path,
    args: argparse.Namespace,
    tasks: Sequence[str],
    known: Sequence[str] | None = None,
    column: str | None = None,
) -> Rows:
    """A task's labelled rows as the options say; what was passed over is told.

    Args:
        tasks: whose `--label-column` there may be.
        column: of the labels; None: as `--label-column` says.

    Raises:
        DataError: see `mtl_edge.io.labelled.read_rows`.
        OptionError: an option makes no sense.
    """
    column = column or for_each("--label-column", args.label_column, tasks).get(task)
    rows = read_rows(task, file, read_options(args), column, known)
    if rows.note:
        note(f"task {task}: {file}: {rows.note}")
    return rows


def texts_in(files: Iterable[str | Path], args: argparse.Namespace) -> list[str]:
    """The texts of files, each file's in order; what was passed over is told.

    Raises:
        DataError: see `mtl_edge.io.labelled.read_texts`.
    """
    options, texts = read_options(args), []
    for file in files:
        found, told = read_texts(file, options)
        if told:
            note(f"{file}: {told}")
        texts += found
    return texts


def note(text: str) -> None:
    """Something to know that is no error."""
    print(f"note: {text}", file=sys.stderr)
