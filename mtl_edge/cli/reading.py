"""Options that say how files are read, alike in every command."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from mtl_edge.bundle import Task
from mtl_edge.cli.named_values import for_each, named
from mtl_edge.errors import OptionError
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labelled import Rows, read_rows, read_texts
from mtl_edge.io.labels import label_of
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import FORMATS

__all__ = [
    "LABEL_ARGUMENTS",
    "LabelArguments",
    "add_label_arguments",
    "add_read_arguments",
    "label_options",
    "labels_of",
    "note",
    "read_options",
    "rows_of",
    "texts_in",
]

LABEL_ARGUMENTS = ("label_column", "label_columns", "logits", "label_separator", "kind")

KIND_SUMMARIES = {
    "single": "one label a text",
    "multi": "any number of labels a text, also none",
    "score": "a number",
}


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
    parser.add_argument(
        "--label-columns",
        action="append",
        default=[],
        metavar="[TASK=]COLUMNS",
        help="a column a label in place of one for all, as joy,anger or emotion_*: 0 or 1, or "
        "probabilities, as a larger model gives them",
    )
    parser.add_argument(
        "--logits",
        action="append",
        default=[],
        metavar="TASK",
        help="its --label-columns hold logits, not probabilities",
    )
    parser.add_argument(
        "--label-separator",
        action="append",
        default=[],
        metavar="[TASK=]TEXT",
        help="between several labels in one cell",
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="TASK=KIND",
        help="; ".join(f"{name}: {text}" for name, text in KIND_SUMMARIES.items())
        + "; default: as the labels say, lists are multi",
    )


def read_options(args: argparse.Namespace) -> ReadOptions:
    """
    Raises:
        OptionError: one makes no sense.
    """
    return ReadOptions(**{field.name: getattr(args, field.name) for field in fields(ReadOptions)})


class LabelArguments(Protocol):
    """The values of `add_label_arguments`."""

    @property
    def label_column(self) -> Sequence[str]: ...
    @property
    def label_columns(self) -> Sequence[str]: ...
    @property
    def logits(self) -> Sequence[str]: ...
    @property
    def label_separator(self) -> Sequence[str]: ...
    @property
    def kind(self) -> Sequence[str]: ...


def label_options(
    args: LabelArguments | argparse.Namespace,
    tasks: Sequence[str],
    columns: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, LabelOptions]:
    """How each task's labels stand in files, as the options of `add_label_arguments` say.

    Args:
        columns: of labels, by task, as other options named them.

    Raises:
        OptionError: a task or a kind that is not there, or options that do not fit together.
    """
    kinds = named("--kind", args.kind)
    for option, given in (("--kind", kinds), ("--logits", args.logits)):
        if unknown := [task for task in given if task not in tasks]:
            raise OptionError(f"{option} {unknown[0]}: no such task; there are {', '.join(tasks)}")
    if wrong := [kind for kind in kinds.values() if kind not in KIND_SUMMARIES]:
        raise OptionError(f"--kind {wrong[0]!r}: unknown; there are {', '.join(KIND_SUMMARIES)}")
    one = {**for_each("--label-column", args.label_column, tasks), **columns}
    several = for_each("--label-columns", args.label_columns, tasks)
    separators = for_each("--label-separator", args.label_separator, tasks)
    return {
        task: LabelOptions(
            one.get(task),
            several.get(task),
            task in args.logits,
            separators.get(task),
            kinds.get(task),  # type: ignore[arg-type]
        )
        for task in tasks
    }


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
    known: Task | None = None,
) -> Rows:
    """A task's labelled rows as the options say; what was passed over is told.

    Args:
        tasks: whom the options may speak of.
        known: the task as a bundle has it; None: of whatever kind and labels the rows are.

    Raises:
        DataError: see `mtl_edge.io.labelled.read_rows`.
        OptionError: an option makes no sense.
    """
    how = label_options(args, tasks)[task]
    if known is not None:
        how = replace(how, kind=known.kind)
    labels = known.labels if known is not None and known.labels else None
    rows = read_rows(task, file, read_options(args), how, labels)
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
