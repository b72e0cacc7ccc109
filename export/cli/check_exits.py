"""`mtl-edge export BUNDLE --check-exits TASK=FILE`: a promise measured on a user's own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtl_edge.bundle import Bundle, Manifest, open_bundle
from mtl_edge.cli.named_values import named
from mtl_edge.cli.reading import label_options, note
from mtl_edge.errors import OptionError
from mtl_edge.export.cli.arguments import Request
from mtl_edge.export.cli.combinations import bundle_to_check
from mtl_edge.export.cli.summary import compared_columns, compared_header
from mtl_edge.export.early_exit.exit_proof import broken, compare, open_cascade, promised
from mtl_edge.export.early_exit.paired import p_value
from mtl_edge.export.targets import targets_of
from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.table import text_table

__all__ = ["check_exits"]

KEPT, OPEN, BROKEN = "kept", "not contradicted", "broken"


def check_exits(request: Request) -> int:
    """Measure what a bundle's early exits promise on labelled rows; 1 if it is broken, else 0.

    Raises:
        OptionError, DataError, BundleError: a bundle, task or file that cannot be used, or an
            option that would do nothing.
    """
    bundle = open_bundle(bundle_to_check(request))
    drop, confidence = promised(bundle.manifest)
    depths = [stage.depth for stage in bundle.manifest.exits]
    targets = _targets(request, bundle.manifest)
    rows = _rows(request, bundle.manifest)
    table = []
    for target, task, found in _compared(bundle, targets, rows):
        at_most = f"{100 * found['bound']:.2f}"
        verdict = _verdict(found, drop, confidence)
        table.append([task, target, *compared_columns(found, depths), at_most, verdict])
    header = ["task", "graph", *compared_header(depths), "at most", "promise"]
    print(text_table(header, table))
    print(
        f"\nthe promise: at most {100 * drop:g} points below full depth; at most: with "
        f"{confidence:.0%} confidence, from these rows alone\nkept: these rows show it; "
        "not contradicted: they are too few to show it; broken: they lose more, and that is not "
        "chance"
    )
    return 1 if any(line[-1] == BROKEN for line in table) else 0


def _targets(request: Request, manifest: Manifest) -> list[str]:
    """Those that --targets names, or else all that the bundle has."""
    known = [graph.target for graph in manifest.graphs]
    wanted = targets_of(request.options.targets) if "targets" in request.given() else known
    if absent := [name for name in wanted if name not in known]:
        raise OptionError(f"--targets {absent[0]}: the bundle has {', '.join(known)} alone")
    return wanted


def _rows(request: Request, manifest: Manifest) -> dict[str, Rows]:
    """By task, the labelled rows; what was passed over is told."""
    files = named("--check-exits", request.check_exits)
    tasks = {task.name: task for task in manifest.tasks}
    if unknown := [name for name in files if name not in tasks]:
        raise OptionError(
            f"--check-exits {unknown[0]}: no such task; the bundle has {', '.join(tasks)}"
        )
    how = label_options(request, list(tasks))
    data = {}
    for name, file in files.items():
        task, reading = tasks[name], request.options.reading
        own = replace(how[name], kind=task.kind)
        data[name] = read_rows(name, file, reading, own, task.labels or None)
        if told := data[name].note:
            note(f"task {name}: {file}: {told}")
    return data


def _compared(
    bundle: Bundle, targets: Sequence[str], rows: Mapping[str, Rows]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Target, task, and what `mtl_edge.export.early_exit.exit_proof.compare` finds of them."""
    result = []
    for target in targets:
        with open_cascade(bundle.path, target) as session:
            for task, own in rows.items():
                result.append((target, task, compare(session, task, own.texts, own.labels)))
    return result


def _verdict(found: Mapping[str, Any], drop: float, confidence: float) -> str:
    """What rows say of a promise."""
    if broken(found, drop):
        return BROKEN
    p = p_value(found["rows_lost"], found["rows_won"], found["rows"], drop)
    return KEPT if p <= 1 - confidence else OPEN
