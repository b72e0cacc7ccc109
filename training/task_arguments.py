"""Command-line options that say what the tasks are, for every command that trains."""

from __future__ import annotations

import argparse

from mtl_edge.cli.named_values import for_each, named
from mtl_edge.cli.reading import (
    add_label_arguments,
    add_read_arguments,
    label_options,
    labels_of,
)
from mtl_edge.errors import OptionError
from mtl_edge.training.options import DEFAULT_BACKBONE, DEFAULT_MAX_TOKENS
from mtl_edge.training.task_files import TaskFiles

__all__ = ["add_data_arguments", "task_files"]


def add_data_arguments(parser: argparse.ArgumentParser, *, extends: bool = False) -> None:
    """Options that say what the tasks are and what they start from.

    Args:
        extends: whether that may be a checkpoint; what it decides is then none if it is not given.
    """
    default = "default: that of --extend, or {}" if extends else "default: %(default)s"
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a task and its training rows: CSV, TSV, JSONL, Parquet or Arrow, or "
        "hub:NAME[:SUBSET][:SPLIT], a data set of the Hub; repeat for each task",
    )
    parser.add_argument(
        "--dev", action="append", default=[], metavar="NAME=FILE", help="rows to report figures on"
    )
    parser.add_argument("--data", metavar="FILE", help="training rows with a label column a task")
    parser.add_argument("--dev-data", metavar="FILE", help="the same, to report figures on")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="TASK=COLUMN",
        help="of --data: a task, and the column of its labels; rows without one are passed over",
    )
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="TASK=A,B,...",
        help="a task's labels, in the order that they shall have; default: those of the rows, "
        "numbers by their size, anything else by its characters",
    )
    parser.add_argument(
        "--describe",
        action="append",
        default=[],
        metavar="[TASK=]names|FILE",
        help="what labels mean, to learn from beside the rows: names, where the labels say it "
        "themselves, or a file of descriptions with their labels, read as rows are; worth most "
        "where rows are few",
    )
    parser.add_argument(
        "--backbone",
        default=None if extends else DEFAULT_BACKBONE,
        help="a name on the Hub, a local folder, or minilm (packaged); "
        + default.format(DEFAULT_BACKBONE),
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=None if extends else DEFAULT_MAX_TOKENS,
        help=default.format(DEFAULT_MAX_TOKENS),
    )


def task_files(args: argparse.Namespace) -> list[TaskFiles]:
    """The tasks that the options of `add_data_arguments` name, in order.

    Raises:
        OptionError: no task is named, one twice, or names that do not fit together.
    """
    columns = named("--label", args.label)
    sources = _train_files(args, columns)
    tasks = list(sources)
    dev = {**dict.fromkeys(columns if args.dev_data else (), args.dev_data)}
    dev |= named("--dev", args.dev)
    if unknown := sorted(set(dev) - set(sources)):
        raise OptionError(f"--dev {unknown[0]}: no such --task; there are {', '.join(tasks)}")
    how = label_options(args, tasks, columns)
    orders = labels_of(args, tasks)
    described = for_each("--describe", args.describe, tasks)
    return [
        TaskFiles(name, train, dev.get(name), how[name], orders.get(name), described.get(name))
        for name, train in sources.items()
    ]


def _train_files(args: argparse.Namespace, columns: dict[str, str]) -> dict[str, str]:
    """Where each task's training rows come from, in order."""
    files = named("--task", args.task)
    if bool(columns) != bool(args.data):
        raise OptionError("--data FILE goes with --label TASK=COLUMN, once or more; give both")
    if args.dev_data and not args.data:
        raise OptionError("--dev-data goes with --data")
    if twice := sorted(set(files) & set(columns)):
        raise OptionError(f"task {twice[0]!r} is named by both --task and --label; name it once")
    sources = {**files, **dict.fromkeys(columns, args.data)}
    if not sources:
        raise OptionError("no task: give --task NAME=FILE, or --data FILE and --label TASK=COLUMN")
    return sources
