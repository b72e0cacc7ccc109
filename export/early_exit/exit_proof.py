"""A bundle's early exits beside full depth: whether the promise is kept, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.answers.kinds import decided, same
from mtl_edge.bundle import Bundle, Exit, Manifest
from mtl_edge.bundle.depths import graph_at
from mtl_edge.cascade.early_exit import answer
from mtl_edge.cascade.opening import for_tasks, open_session
from mtl_edge.cascade.outputs import predictions
from mtl_edge.cascade.session import Session
from mtl_edge.choosing import AUTO, bundle_engine
from mtl_edge.engines import Setup
from mtl_edge.errors import BundleError, ExportError
from mtl_edge.export.early_exit.paired import p_value, upper_bound
from mtl_edge.io.labels import Label
from mtl_edge.io.limits import Limits
from mtl_edge.timing import time_calls
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import CROSS_VALIDATION
from mtl_edge.training.kinds import headline, right_answers, training_kind

__all__ = ["broken", "compare", "open_cascade", "promised", "prove", "with_costs"]

SHAPE_TIMED = (1, 32)
SIGNIFICANT = 0.05


def with_costs(bundle: Bundle) -> tuple[Exit, ...]:
    """The bundle's early exits with their cost, by target: of one text of 32 tokens, the time that
    the exit takes as a share of full depth's, the two timed in interleaved rounds.
    """
    manifest = bundle.manifest
    ids = np.random.default_rng(0).integers(0, manifest.backbone.vocabulary, SHAPE_TIMED)
    mask = np.ones_like(ids)
    costs: list[dict[str, float]] = [{} for _ in manifest.exits]
    for graph in manifest.graphs:
        cheaper = [graph_at(graph, i) for i in range(len(graph.exits))]
        engines = [bundle_engine(bundle, one) for one in (*cheaper, graph)]
        times = time_calls(
            {str(i): lambda one=one: one.run(ids, mask) for i, one in enumerate(engines)}  # type: ignore[misc]
        )
        for engine in engines:
            engine.close()
        whole = times[str(len(cheaper))].median
        for i, cost in enumerate(costs):
            cost[graph.target] = round(times[str(i)].median / whole, 4)
    return tuple(
        replace(stage, promise={**stage.promise, "cost": cost})
        for stage, cost in zip(manifest.exits, costs, strict=True)
    )


def prove(checkpoint: Checkpoint, folder: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Ask the bundle, with early exits and at full depth, the rows that training reported on.

    Returns:
        Per task and target what `compare` gives.

    Raises:
        ExportError: a task loses more than was promised, and that is not chance.
    """
    rows = {}
    for task in checkpoint.tasks:
        split = checkpoint.report[task.name]["reported"]["split"]
        if split == CROSS_VALIDATION:
            split = "train"
        of_task = [s for s in checkpoint.samples if s.task == task.name and s.split == split]
        rows[task.name] = [s.text for s in of_task], [s.label for s in of_task]
    found: dict[str, dict[str, Any]] = {name: {} for name in rows}
    for graph in manifest.graphs:
        with open_cascade(folder, graph.target) as session:
            for name, (texts, labels) in rows.items():
                compared = compare(session, name, texts, labels)
                _require_kept(graph.target, name, compared, promised(manifest)[0])
                found[name][graph.target] = compared
    return found


@contextmanager
def open_cascade(folder: Path, target: str, threads: int | None = None) -> Iterator[Session]:
    """A bundle's graph with all its early exits."""
    setup = Setup(threads)
    session = open_session(folder, AUTO, target, setup, Limits(), "size", None, None)
    try:
        yield session
    finally:
        session.close()


def promised(manifest: Manifest) -> tuple[float, float]:
    """The drop that a bundle's early exits promise to keep, a share, and with what confidence.

    Raises:
        BundleError: it promises nothing.
    """
    found = manifest.exits[0].promise if manifest.exits else {}
    drop, confidence = found.get("drop"), found.get("confidence")
    if not isinstance(drop, float) or not isinstance(confidence, float):
        raise BundleError(
            "the bundle has no stages that promise anything; export one with `mtl-edge export "
            "--exits`"
        )
    return drop, confidence


def compare(
    session: Session, task: str, texts: Sequence[str], labels: Sequence[Label]
) -> dict[str, Any]:
    """A task's rows asked of a bundle with its early exits, and of full depth alone.

    Returns:
        `rows`; `exit_rate`, the share that each depth answers; `full_accuracy` and `accuracy` (of
        several labels: rows with all of them right), and `score`, the figure that counts most,
        without early exits and with them; `agreement`, the share with the same label; `rows_lost`
        and `rows_won`, right in one of the two alone; `drop` and its upper `bound`, at the
        promise's confidence.
    """
    asked = next(one for one in session.tasks if one.name == task)
    right = right_answers(asked, labels)
    stages = for_tasks(session, [task]).stages
    ids = session.encoder.ids(list(texts))
    found, deepest = (predictions(answer(s, [ids])) for s in (stages, stages[-1:]))
    staged, full = (decided(asked, [p[task] for p in some]) for some in (found, deepest))
    kept, hit = same(staged, right), same(full, right)
    depths = np.array([prediction.depth for prediction in found])
    lost, won = int((hit & ~kept).sum()), int((~hit & kept).sum())
    return {
        "rows": len(right),
        "exit_rate": {str(s.depth): float((depths == s.depth).mean()) for s in stages[:-1]},
        "full_accuracy": float(hit.mean()),
        "accuracy": float(kept.mean()),
        "score": headline(asked, training_kind(asked).figures(asked, right, staged)),
        "agreement": float(same(full, staged).mean()),
        "rows_lost": lost,
        "rows_won": won,
        "drop": (lost - won) / len(right),
        "bound": upper_bound(lost, won, len(right), promised(session.manifest)[1]),
    }


def _require_kept(target: str, task: str, found: Mapping[str, Any], drop: float) -> None:
    if not broken(found, drop):
        return
    raise ExportError(
        f"{target}: with stages task {task!r} loses {100 * found['drop']:.2f} points of accuracy "
        f"on {found['rows']} rows ({found['rows_lost']} lost, {found['rows_won']} won), and "
        f"{100 * drop:g} are promised; ask for less with --exit-drop, or leave --exits out"
    )


def broken(found: Mapping[str, Any], drop: float) -> bool:
    """Whether rows as `compare` found them lose more than `drop` beyond what may be chance."""
    lost, won, rows = found["rows_lost"], found["rows_won"], found["rows"]
    return found["drop"] > drop and p_value(won, lost, rows, -drop) <= SIGNIFICANT
