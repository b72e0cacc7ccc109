"""Thresholds from which on a cheaper stage may answer, fitted for a promise.

A cheaper stage, the heads on a few layers or on the embeddings alone, answers a text when the
largest probability of every task that is asked is at least the task's threshold. The promise is
that a task, asked by itself, loses at most `drop` of its accuracy to full depth, with `confidence`.

The method is learn then test (Angelopoulos et al. 2021, arXiv:2110.01052). Thresholds are tried in
a fixed order, from the most careful on; each is tested against the hypothesis that it loses more
than was promised (`mtl_edge.export.paired`), and the last before the first that is not rejected is
taken. So tested, the whole sequence errs as rarely as one test. With several stages all take the
same threshold, so that the order stays fixed; temperatures make their probabilities comparable.

The rows are those that heads answered out of fold (`mtl_edge.training.folds`, and what that does to
the guarantee).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import Exit
from mtl_edge.errors import OptionError
from mtl_edge.export.paired import least_drop, least_rows, p_value, upper_bound
from mtl_edge.probabilities import softmax
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.folds import OutOfFold

__all__ = ["METHOD", "THRESHOLDS", "Promise", "TaskFit", "cheapest", "fit", "fit_task", "stages_of"]

METHOD = (
    "learn then test (arXiv:2110.01052), fixed sequence of thresholds, exact unconditional test of "
    "paired answers (Tango 1998, Berger & Boos 1994), heads out of fold (arXiv:2007.12671)"
)
# Fixed before any row is seen: even steps of the odds' logarithm; 0: every text leaves.
THRESHOLDS = (*(float(1 / (1 + np.exp(-x))) for x in np.arange(8.0, -1.51, -0.02)), 0.0)

Values = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Promise:
    """What is asked of the cheaper stages.

    Attributes:
        depths: layers of each; none: those that pay.
        drop: share of a task's rows that may be lost to full depth, net of those won.
        confidence: that it is no more.
    """

    depths: tuple[int, ...] | None
    drop: float = 0.003
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class TaskFit:
    """What was found for one task.

    Attributes:
        threshold: of every stage; `NEVER` where none keeps the promise.
        exits: by depth, the share of rows that leave there.
        lost, won: rows that are right at full depth alone, and in the stages alone.
        bound: what the drop is below, with the promise's confidence.
    """

    threshold: float
    exits: Mapping[int, float]
    rows: int
    lost: int = 0
    won: int = 0
    bound: float = 0.0

    @property
    def drop(self) -> float:
        """The drop that was seen, a share."""
        return (self.lost - self.won) / self.rows


@dataclass(frozen=True, slots=True)
class _Answers:
    """One stage's answers: how sure they are, and which are right."""

    sure: Values
    right: Bits


def fit(checkpoint: Checkpoint, promise: Promise) -> dict[str, TaskFit]:
    """Each task's threshold, for stages of these depths.

    Raises:
        OptionError: the checkpoint has no answers to fit on, or too few for such a promise, or no
            threshold of any task keeps it.
    """
    depths = promise.depths or ()
    found = {}
    for task in checkpoint.tasks:
        answers = _answers(checkpoint, task.name, depths)
        _require_rows(task.name, len(answers.labels), promise)
        temperatures = {d: _of_depth(checkpoint, task.name, d)["temperature"] for d in depths}
        found[task.name] = fit_task(answers, checkpoint.depth, temperatures, promise)
    if all(one.threshold > 1 for one in found.values()):
        raise OptionError(
            f"--exits {','.join(map(str, depths))}: no threshold of any task keeps a drop of "
            f"{100 * promise.drop:g} points; allow more with --exit-drop, use a deeper stage, or "
            "train with more rows"
        )
    return found


def fit_task(
    answers: OutOfFold, depth: int, temperatures: Mapping[int, float], promise: Promise
) -> TaskFit:
    """One task's threshold.

    Args:
        depth: full depth.
        temperatures: of the stages, by depth, the cheapest first.
    """
    labels, rows = answers.labels, len(answers.labels)
    full = answers.logits[depth].argmax(1) == labels
    stages = {d: _stage(answers.logits[d], labels, t) for d, t in temperatures.items()}
    found = TaskFit(NEVER, dict.fromkeys(stages, 0.0), rows)
    for threshold in THRESHOLDS:
        right, exits = _staged(stages, full, threshold)
        lost, won = int((full & ~right).sum()), int((right & ~full).sum())
        if p_value(lost, won, rows, promise.drop) > 1 - promise.confidence:
            break
        if any(exits.values()):
            found = TaskFit(threshold, exits, rows, lost, won)
    if found.threshold > 1:
        return found
    return replace(found, bound=upper_bound(found.lost, found.won, rows, promise.confidence))


def _stage(logits: Values, labels: npt.NDArray[np.int64], temperature: float) -> _Answers:
    return _Answers(softmax(logits, temperature).max(1), logits.argmax(1) == labels)


def _staged(
    stages: Mapping[int, _Answers], full: Bits, threshold: float
) -> tuple[Bits, dict[int, float]]:
    """Which answers are right when all stages have this threshold, and the share each answers."""
    right, waiting, exits = full.copy(), np.ones(len(full), bool), {}
    for depth, stage in stages.items():
        leaves = waiting & (stage.sure >= threshold)
        right[leaves] = stage.right[leaves]
        waiting &= ~leaves
        exits[depth] = float(leaves.mean())
    return right, exits


def stages_of(
    checkpoint: Checkpoint, found: Mapping[str, TaskFit], promise: Promise
) -> tuple[Exit, ...]:
    """The stages as the manifest has them."""
    depths = promise.depths or ()
    return tuple(
        Exit(
            depth=depth,
            temperatures={t: _of_depth(checkpoint, t, depth)["temperature"] for t in found},
            thresholds={task: one.threshold for task, one in found.items()},
            promise=_record(found, depth, promise),
            sure={
                task: tuple(thresholds)
                for task in found
                if (thresholds := _of_depth(checkpoint, task, depth)["thresholds"])
            },
        )
        for depth in depths
    )


def _record(found: Mapping[str, TaskFit], depth: int, promise: Promise) -> dict[str, Any]:
    return {
        "drop": promise.drop,
        "confidence": promise.confidence,
        "method": METHOD,
        "rows": {task: one.rows for task, one in found.items()},
        "exit_rate": {task: one.exits[depth] for task, one in found.items()},
        "measured_drop": {task: one.drop for task, one in found.items()},
        "bound": {task: one.bound for task, one in found.items()},
    }


def cheapest(
    checkpoint: Checkpoint, promise: Promise, costs: Mapping[int, float], most: int = 2
) -> Promise:
    """The promise with those depths, up to `most` of them, that make a text cheapest on average.

    Args:
        costs: by depth, full depth too, what a text takes in any unit; of stages one after the
            other it is the sum.

    Raises:
        OptionError: see `fit`; or no stage pays.
    """
    for task in checkpoint.tasks:
        _answers(checkpoint, task.name, ())
    known = sorted(set(costs) - {checkpoint.depth})
    best, least = None, costs[checkpoint.depth]
    for count in range(1, most + 1):
        for depths in combinations(known, count):
            chosen = Promise(depths, promise.drop, promise.confidence)
            try:
                found = fit(checkpoint, chosen)
            except OptionError:
                if count == 1 and len(known) == 1:
                    raise
                continue
            cost = float(
                np.mean([_cost(one, depths, costs, checkpoint.depth) for one in found.values()])
            )
            if cost < least:
                best, least = chosen, cost
    if best is None:
        raise OptionError(
            f"--exits auto: no stage of depth {', '.join(map(str, known))} pays for a drop of "
            f"{100 * promise.drop:g} points; allow more with --exit-drop, or leave --exits out"
        )
    return best


def _cost(found: TaskFit, depths: Iterable[int], costs: Mapping[int, float], full: int) -> float:
    """What a text takes on average: every stage that it comes to."""
    waiting, total = 1.0, 0.0
    for depth in depths:
        total += waiting * costs[depth]
        waiting -= found.exits[depth]
    return total + waiting * costs[full]


def _of_depth(checkpoint: Checkpoint, task: str, depth: int) -> Mapping[str, Any]:
    """What training chose for a task's head of this depth."""
    found: Mapping[str, Any] = checkpoint.report[task]["depths"][str(depth)]
    return found


def _answers(checkpoint: Checkpoint, task: str, depths: Sequence[int]) -> OutOfFold:
    found = checkpoint.out_of_fold.get(task)
    missing = [d for d in depths if found is None or d not in found.logits]
    if found is None or missing or checkpoint.depth not in found.logits:
        asked = ",".join(map(str, depths))
        raise OptionError(
            f"--exits {asked or 'auto'}: the checkpoint does not hold what task {task!r} would be "
            f"fitted on; train with --exits {asked or '0'}"
        )
    return found


def _require_rows(task: str, rows: int, promise: Promise) -> None:
    if p_value(0, 0, rows, promise.drop) <= 1 - promise.confidence:
        return
    needed = least_rows(promise.drop, promise.confidence)
    possible = 100 * least_drop(rows, promise.confidence)
    raise OptionError(
        f"task {task!r} has {rows} rows to fit on, and to promise a drop of "
        f"{100 * promise.drop:g} points with {promise.confidence:.0%} confidence takes {needed:,}, "
        f"even if none is lost; ask for --exit-drop {np.ceil(20 * possible) / 20:.2f} or more, for "
        "less confidence, or train with more rows"
    )
