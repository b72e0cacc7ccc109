"""`mtl-edge export`, as far as cheaper stages go: its options, its table, and --check-exits."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mtl_edge.bundle import Manifest, open_bundle
from mtl_edge.cli.named_values import named
from mtl_edge.cli.reading import rows_of
from mtl_edge.errors import OptionError
from mtl_edge.export.exits import Promise
from mtl_edge.export.paired import p_value
from mtl_edge.export.stages import broken, compare, promised, running
from mtl_edge.export.targets import targets_of
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.table import text_table
from mtl_edge.training.arguments import depths_of

__all__ = ["add_exit_arguments", "asked_of", "check", "exits_table", "promise_of"]

DROP, CONFIDENCE = 0.3, 95.0
AUTO = "auto"
OF_CHECK = (
    "checkpoint", "check_exits", "targets", "label_column", *(f.name for f in fields(ReadOptions)),
)  # fmt: skip


def add_exit_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "cheaper stages, which answer the texts that they are sure of"
    )
    group.add_argument(
        "--exits",
        metavar="DEPTHS",
        help="layers of each, as 0 or 0,2, of those that `train --exits` named; auto: those of "
        "them that pay, up to two, for which the promise takes more rows; default: full depth "
        "answers every text",
    )
    group.add_argument(
        "--exit-drop",
        type=float,
        default=DROP,
        metavar="POINTS",
        help="of accuracy that a task may lose to full depth; default: %(default)s",
    )
    group.add_argument(
        "--exit-confidence",
        type=float,
        default=CONFIDENCE,
        metavar="PERCENT",
        help="that it loses no more; default: %(default)s",
    )
    group.add_argument(
        "--check-exits",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="measure what the BUNDLE in the place of the checkpoint promised on labelled rows of "
        "yours, and export nothing; may be repeated; exit code 1 if the promise is broken",
    )


def promise_of(args: argparse.Namespace) -> Promise | None:
    """What --exits asks for.

    Raises:
        OptionError: a number that is out of range, or one that would do nothing.
    """
    if args.exits is None:
        for name, default in (("exit_drop", DROP), ("exit_confidence", CONFIDENCE)):
            if getattr(args, name) != default:
                raise OptionError(f"--{name.replace('_', '-')} goes with --exits; give both")
        return None
    if args.explain:
        raise OptionError("--exits is for bundles, and --explain makes none; leave one out")
    return asked_of(args, None if args.exits == AUTO else depths_of(args.exits))


def asked_of(args: argparse.Namespace, depths: tuple[int, ...] | None) -> Promise:
    """A promise of --exit-drop and --exit-confidence for stages of these depths.

    Raises:
        OptionError: a number that is out of range.
    """
    if not 0 < args.exit_drop < 100:
        raise OptionError(f"--exit-drop is {args.exit_drop}, expected points above 0, below 100")
    if not 50 <= args.exit_confidence < 99.9:
        raise OptionError(
            f"--exit-confidence is {args.exit_confidence}, expected 50 percent or more, below 99.9"
        )
    return Promise(depths, args.exit_drop / 100, args.exit_confidence / 100)


def exits_table(manifest: Manifest) -> str:
    """What the stages promise, and how each graph did on the rows that training reported on."""
    drop, confidence = promised(manifest)
    depths = [stage.depth for stage in manifest.exits]
    first = manifest.exits[0]
    rows = [
        [
            task.name,
            _threshold(first.thresholds[task.name]),
            *(f"{stage.promise['exit_rate'][task.name]:.0%}" for stage in manifest.exits),
            f"{100 * first.promise['measured_drop'][task.name]:.2f} of "
            f"{first.promise['rows'][task.name]}",
        ]
        for task in manifest.tasks
    ]
    header = ["task", "threshold", *(f"leaves at depth {d}" for d in depths), "points lost of rows"]
    measured = [
        [task.name, graph.target, *_measured(found, depths)]
        for task in manifest.tasks
        for graph in manifest.graphs
        for found in [manifest.evaluation[task.name]["graphs"][graph.target]["exits"]]
    ]
    return "\n\n".join(
        [
            f"stages: at most {100 * drop:g} points below full depth, with {confidence:.0%} "
            "confidence, each task asked by itself; fitted out of fold:",
            text_table(header, rows),
            "measured on the rows of the table above:",
            text_table(["task", "graph", *_header(depths)], measured),
        ]
    )


def _threshold(value: float) -> str:
    return "never" if value > 1 else f"{value:.3f}"


def _header(depths: Sequence[int]) -> list[str]:
    leaves = [f"leaves at depth {depth}" for depth in depths]
    return ["rows", *leaves, "full depth", "with stages", "agrees", "lost / won", "points lost"]


def _measured(found: Mapping[str, Any], depths: Sequence[int]) -> list[str]:
    return [
        str(found["rows"]),
        *(f"{found['exit_rate'][str(depth)]:.0%}" for depth in depths),
        f"{found['full_accuracy']:.1%}",
        f"{found['accuracy']:.1%}",
        f"{found['agreement']:.1%}",
        f"{found['rows_lost']} / {found['rows_won']}",
        f"{100 * found['drop']:.2f}",
    ]


def check(args: argparse.Namespace, given: Sequence[str]) -> int:
    """Measure a bundle's promise on labelled rows; 1 if one is broken, else 0.

    Args:
        given: names of the options that are not at their default.

    Raises:
        OptionError, DataError, BundleError: a bundle, task or file that cannot be used, or an
            option that would do nothing.
    """
    if args.checkpoint is None:
        raise OptionError("--check-exits TASK=FILE takes a bundle, and there is none; name it")
    if idle := [name for name in given if name not in OF_CHECK]:
        raise OptionError(
            f"--{idle[0].replace('_', '-')} does nothing with --check-exits TASK=FILE, which takes "
            "a bundle and makes none; give it alone"
        )
    bundle = open_bundle(args.checkpoint)
    drop, confidence = promised(bundle.manifest)
    graphs = {graph.target: graph for graph in bundle.manifest.graphs}
    wanted = targets_of(args.targets) if "targets" in given else list(graphs)
    if absent := [name for name in wanted if name not in graphs]:
        raise OptionError(f"--targets {absent[0]}: the bundle has {', '.join(graphs)} alone")
    files = named("--check-exits", args.check_exits)
    tasks = {task.name: task for task in bundle.manifest.tasks}
    if unknown := [name for name in files if name not in tasks]:
        raise OptionError(
            f"--check-exits {unknown[0]}: no such task; the bundle has {', '.join(tasks)}"
        )
    data = {
        name: rows_of(name, file, args, list(tasks), tasks[name].labels)
        for name, file in files.items()
    }
    depths = [stage.depth for stage in bundle.manifest.exits]
    table, kept = [], True
    for target in wanted:
        with running(bundle.path, target) as session:
            for name, rows in data.items():
                found = compare(session, name, rows.texts, rows.labels)
                verdict = _verdict(found, drop, confidence)
                kept &= verdict != BROKEN
                at_most = f"{100 * found['bound']:.2f}"
                table.append([name, target, *_measured(found, depths), at_most, verdict])
    print(text_table(["task", "graph", *_header(depths), "at most", "promise"], table))
    print(
        f"\nthe promise: at most {100 * drop:g} points below full depth; at most: with "
        f"{confidence:.0%} confidence, from these rows alone\nkept: these rows show it; "
        "not contradicted: they are too few to show it; broken: they lose more, and that is not "
        "chance"
    )
    return 0 if kept else 1


KEPT, OPEN, BROKEN = "kept", "not contradicted", "broken"


def _verdict(found: Mapping[str, Any], drop: float, confidence: float) -> str:
    """What rows say of a promise."""
    if broken(found, drop):
        return BROKEN
    shown = p_value(found["rows_lost"], found["rows_won"], found["rows"], drop) <= 1 - confidence
    return KEPT if shown else OPEN
