"""Every usual way to do the job, measured beside ours in one run.

    python -m mtl_edge.benchmarks.peers --work FOLDER \\
        [--task NAME=FILE --dev NAME=FILE ...] [--out benchmarks/results/peers]

Without tasks, the demo data. The first run installs an environment for each way (gigabytes),
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
from pathlib import Path

from mtl_edge.benchmarks.demo_tasks import DATA
from mtl_edge.benchmarks.peers import report
from mtl_edge.benchmarks.peers.run import Plan, Ready, measure, prepare
from mtl_edge.benchmarks.peers.table import PEERS
from mtl_edge.benchmarks.shown import shown
from mtl_edge.cli.named_values import named
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.command import add_data_arguments, read_tasks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_edge.benchmarks.peers",
        description=__doc__.split("\n\n")[0] if __doc__ else None,
    )
    add_data_arguments(parser)
    parser.set_defaults(backbone="minilm")
    parser.add_argument("--work", type=Path, required=True, help="where all of it is kept")
    parser.add_argument("--out", type=Path, help="a folder for the figures; default: print alone")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
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
    parser.add_argument("--threads", type=int, default=default_threads())
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
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(given)
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C does: what is at work is ended too, and does not go on by itself.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        plan, ready = _prepared(args)
        if args.fit_only:
            print(report.fitted(ready.ways, ready.bench, ready.errors))
            return
        figures = {"command": shown("peers", given), **measure(plan, ready)}
        if args.out is not None:
            with staged_folder(args.out, overwrite=args.overwrite) as stage:
                report.write(figures, stage)
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")
    print(report.text(figures))


def _prepared(args: argparse.Namespace) -> tuple[Plan, Ready]:
    if args.out is not None:
        require_free(args.out, overwrite=args.overwrite)
    for option in ("threads", "rounds", "texts", "singles", "starts"):
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} is {getattr(args, option)}, expected 1 or more")
    if not (args.task or args.data):
        args.task = [f"{task}={DATA / 'train.csv'}" for task in ("sentiment", "topic")]
        args.dev = [f"{task}={DATA / 'dev.csv'}" for task in ("sentiment", "topic")]
    args.seed = 0
    tasks = read_tasks(args)
    backbone = load_backbone(args.backbone)
    peers = [peer for peer in PEERS if args.only is None or peer.name in args.only]
    if unknown := sorted(set(args.only or ()) - {peer.name for peer in PEERS}):
        raise OptionError(
            f"--only {unknown[0]!r}: there is no such way; there are "
            f"{', '.join(repr(peer.name) for peer in PEERS)}"
        )
    plan = Plan(
        work=Path(os.path.abspath(args.work)),
        peers=peers,
        depths=_depths(args.depths, backbone.info.layers),
        bundles={name: Path(folder) for name, folder in named("--bundle", args.bundle).items()},
        threads=args.threads,
        rounds=args.rounds,
        texts=args.texts,
        singles=args.singles,
        starts=args.starts,
    )
    return plan, prepare(plan, args, tasks, backbone)


def _depths(asked: str, layers: int) -> list[int]:
    if asked in ("all", "none"):
        return list(range(layers + 1)) if asked == "all" else []
    try:
        depths = sorted({int(depth) for depth in asked.split(",")})
    except ValueError:
        depths = []
    if not depths or depths[0] < 0 or depths[-1] > layers:
        raise OptionError(
            f"--depths {asked!r}: expected numbers from 0 to {layers} with commas, all, or none"
        )
    return depths


if __name__ == "__main__":
    take_any_text()
    main()
