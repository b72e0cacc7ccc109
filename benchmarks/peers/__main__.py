"""Every usual way to do the job, measured beside ours in one run.

    python -m mtl_edge.benchmarks.peers --work FOLDER \\
        [--task NAME=FILE --dev NAME=FILE ...] [--out benchmarks/results/peers]

Without tasks, the demo data. The first run installs an environment for each peer (gigabytes),
trains our bundles and fits the others, all of it kept in --work; the next one starts at timing.
What cannot be installed or fitted stands in the table with its error. Leave the machine alone
meanwhile.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mtl_edge.benchmarks.core.command import (
    Output,
    add_output_arguments,
    add_threads_argument,
    require_positive,
)
from mtl_edge.benchmarks.core.machine import command_line
from mtl_edge.benchmarks.demo import DATA
from mtl_edge.benchmarks.peers.bundles import bundles_of, entries
from mtl_edge.benchmarks.peers.fitting import Workload, tasks_of
from mtl_edge.benchmarks.peers.report import report_of
from mtl_edge.benchmarks.peers.rounds import Repeats
from mtl_edge.benchmarks.peers.run import Ready, cores_for, measure, prepare
from mtl_edge.benchmarks.peers.table import PEERS, Peer
from mtl_edge.cli.named_values import named
from mtl_edge.cli.reading import LABEL_ARGUMENTS, note, read_options
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.table import text_table
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.task_arguments import add_data_arguments, task_files
from mtl_edge.training.task_files import read_tasks

# Options that say what the tasks are, which training gets as they came.
LISTS = ("task", "dev", "label", *LABEL_ARGUMENTS, "labels")
SINGLE = (
    "data", "dev_data", "backbone", "max_tokens", *(field.name for field in fields(ReadOptions)),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.set_defaults(backbone="minilm", seed=0)
    parser.add_argument("--work", type=Path, required=True, help="where all of it is kept")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"of the others, these alone: {', '.join(map(repr, (p.name for p in PEERS)))}",
    )
    parser.add_argument(
        "--depths",
        default="all",
        help="of ours, comma-separated numbers of layers; default: %(default)s; none: no training",
    )
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="NAME=FOLDER", help="measure it as well"
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--texts", type=int, default=600, help="in one call; default: %(default)s")
    parser.add_argument(
        "--singles", type=int, default=60, help="texts one at a time; default: %(default)s"
    )
    parser.add_argument("--starts", type=int, default=3, help="fresh processes; %(default)s")
    parser.add_argument(
        "--fit-only",
        action="store_true",
        help="install, train and fit what is missing, and leave timing for a quiet hour",
    )
    add_threads_argument(parser)
    add_output_arguments(parser)


def main(arguments: Sequence[str] | None = None) -> None:
    take_any_text()
    parser = argparse.ArgumentParser(
        prog="python -m mtl_edge.benchmarks.peers",
        description=__doc__.split("\n\n")[0] if __doc__ else None,
    )
    add_arguments(parser)
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(given)
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C does: what is at work is ended too, and does not go on by itself.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    output = Output(args.json, args.out, args.overwrite)
    repeats = Repeats(args.rounds, args.texts, args.singles, args.starts)
    try:
        output.check()
        require_positive(args, "threads", "rounds", "texts", "singles", "starts")
        ready = _ready(args)
        if args.fit_only:
            print(fitted(ready))
            return
        command = command_line("python -m mtl_edge.benchmarks.peers", given)
        output.put(report_of(measure(ready, repeats, command)))
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")


def _ready(args: argparse.Namespace) -> Ready:
    if not (args.task or args.data):
        args.task = [f"{task}={DATA / 'train.csv'}" for task in ("sentiment", "topic")]
        args.dev = [f"{task}={DATA / 'dev.csv'}" for task in ("sentiment", "topic")]
    tasks = read_tasks(task_files(args), read_options(args), 0, note)
    backbone = load_backbone(args.backbone)
    peers = [peer for peer in PEERS if args.only is None or peer.name in args.only]
    if unknown := sorted(set(args.only or ()) - {peer.name for peer in PEERS}):
        raise OptionError(
            f"--only {unknown[0]!r}: there is no such way; there are "
            f"{', '.join(repr(peer.name) for peer in PEERS)}"
        )
    depths = depths_of(args.depths, backbone.info.layers)
    work, bundles = Path(os.path.abspath(args.work)), named("--bundle", args.bundle)
    rows, reported = tasks_of(tasks)
    workload = Workload(
        work=work,
        backbone=backbone.folder,
        revision=backbone.info.sha256,
        rows=rows,
        reported=reported,
        threads=args.threads,
        cores=cores_for(args.threads),
        max_tokens=args.max_tokens,
    )
    own: list[Peer] = []
    if depths:
        made = bundles_of(depths, data_options(args), tasks, backbone, work)
        for depth, (bundle, seconds) in made.items():
            own += entries(f"depth {depth}", bundle, seconds)
    for name, folder in bundles.items():
        own += entries(name, Path(folder))
    return prepare(workload, [*own, *peers])


def data_options(args: argparse.Namespace) -> list[str]:
    """The options that say what the tasks are, as they came."""
    options = []
    for name in LISTS:
        for value in getattr(args, name):
            options += [f"--{name.replace('_', '-')}", value]
    for name in SINGLE:
        if (value := getattr(args, name)) is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    return options


def depths_of(asked: str, layers: int) -> list[int]:
    """Numbers of layers, the deepest first.

    Raises:
        OptionError: they are no such numbers.
    """
    if asked in ("all", "none"):
        return list(range(layers, -1, -1)) if asked == "all" else []
    try:
        depths = sorted({int(depth) for depth in asked.split(",")}, reverse=True)
    except ValueError:
        depths = []
    if not depths or depths[-1] < 0 or depths[0] > layers:
        raise OptionError(
            f"--depths {asked!r}: expected numbers from 0 to {layers} with commas, all, or none"
        )
    return depths


def fitted(ready: Ready) -> str:
    """What is there to be timed, for a terminal."""
    rows = [
        [
            name,
            *(f"{100 * score:.1f}" for score in peer.accuracy(ready.workload).values()),
            f"{peer.size / 1e6:.1f}",
            "" if peer.fit_seconds is None else f"{peer.fit_seconds:.0f}",
        ]
        for name, peer in ready.peers.items()
    ]
    header = ["way", *(f"{task} %" for task in ready.workload.reported), "MB to ship", "fit s"]
    failed = [f"{name}: failed: {error}" for name, error in ready.errors.items()]
    return "\n".join([text_table(header, rows), *failed])


if __name__ == "__main__":
    main()
