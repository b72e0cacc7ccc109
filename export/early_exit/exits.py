"""Thresholds of early exits, fitted so that a promised accuracy is kept.

An early exit, heads on a few layers or on a table of token vectors, answers a text when the largest
probability of every task that is asked is at least the task's threshold; other texts go on to the
next exit or to full depth (a cascade). The promise is that a task, asked by itself, loses at most
`drop` of its accuracy to full depth, with `confidence`.

The method is learn then test (Angelopoulos et al. 2021, arXiv:2110.01052). Thresholds are tried in
a fixed order, from the most careful on; each is tested against the hypothesis that it loses more
than was promised (`mtl_edge.export.early_exit.paired`), and the last before the first that is not
rejected is taken. So tested, the whole sequence errs as rarely as one test. Several exits share one
threshold, so that the order stays fixed; temperatures make their probabilities comparable. Where
exits are chosen among several (`mtl_edge.export.early_exit.exit_choice`), each choice is tested at
its part of the level (Bonferroni), so that the promise holds for the one chosen, too.

The rows are those that heads answered out of fold (`mtl_edge.training.folds`, and what that does to
the guarantee).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.kinds import kind_of, same
from mtl_edge.bundle import Exit, Task
from mtl_edge.errors import OptionError
from mtl_edge.export.early_exit.paired import least_drop, least_rows, p_value, upper_bound
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.folds import OutOfFold
from mtl_edge.training.kinds import with_fitted

__all__ = [
    "METHOD",
    "THRESHOLDS",
    "Promise",
    "TaskFit",
    "answers_of",
    "exits_of",
    "fit",
    "fit_task",
    "require_rows",
]

METHOD = (
    "learn then test (arXiv:2110.01052), fixed sequence of thresholds, Bonferroni over the stages "
    "that were chosen among, exact unconditional test of paired answers (Tango 1998, Berger & Boos "
    "1994), heads out of fold (arXiv:2007.12671)"
)
# Fixed before any row is seen: even steps of the odds' logarithm; 0: every text leaves.
THRESHOLDS = (*(float(1 / (1 + np.exp(-x))) for x in np.arange(8.0, -1.51, -0.02)), 0.0)

Values = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Promise:
    """What early exits have to keep.

    Attributes:
        depths: layers of each exit; none: those that pay.
        drop: share of a task's rows that may be lost to full depth, net of those won.
        confidence: that it is no more.
        tried: how many such promises are tested, of which one is chosen.
    """

    depths: tuple[int, ...] | None
    drop: float = 0.003
    confidence: float = 0.95
    tried: int = 1

    @property
    def level(self) -> float:
        """Error rate of its own test, so that the one chosen errs as rarely as was asked."""
        return (1 - self.confidence) / self.tried


@dataclass(frozen=True, slots=True)
class TaskFit:
    """One task's threshold, and what it does to the rows that it was fitted on.

    Attributes:
        threshold: of every exit; `NEVER` where none keeps the promise.
        exit_rates: by depth, the share of rows that are answered there.
        rows: how many there were.
        lost, won: rows that are right at full depth alone, and with early exits alone.
        bound: what the drop is below, with the promise's confidence, of whichever is chosen.
    """

    threshold: float
    exit_rates: Mapping[int, float]
    rows: int
    lost: int = 0
    won: int = 0
    bound: float = 0.0

    @property
    def drop(self) -> float:
        """The drop on these rows, a share."""
        return (self.lost - self.won) / self.rows


@dataclass(frozen=True, slots=True)
class _ExitAnswers:
    """One exit's answers `[rows]`: how sure they are, and which are right."""

    certainty: npt.NDArray[np.float64]
    right: Mask


def fit(checkpoint: Checkpoint, promise: Promise) -> dict[str, TaskFit]:
    """Each task's threshold, for early exits at the promise's depths.

    Raises:
        OptionError: the checkpoint has no answers to fit on, or too few for such a promise, or no
            threshold of any task keeps it.
    """
    depths = promise.depths or ()
    found = {}
    for task in checkpoint.tasks:
        answers = answers_of(checkpoint, task.name, depths)
        require_rows(task.name, len(answers.right), promise)
        stages = {d: with_fitted(task, _of_depth(checkpoint, task.name, d)) for d in depths}
        found[task.name] = fit_task(answers, checkpoint.depth, task, stages, promise)
    if all(one.threshold > 1 for one in found.values()):
        raise OptionError(
            f"--exits {','.join(map(str, depths))}: no threshold of any task keeps a drop of "
            f"{100 * promise.drop:g} points; allow more with --exit-drop, use a deeper stage, or "
            "train with more rows"
        )
    return found


def fit_task(
    answers: OutOfFold,
    depth: int,
    task: Task,
    stages: Mapping[int, Task],
    promise: Promise,
) -> TaskFit:
    """One task's threshold.

    Args:
        answers: of heads to rows that they were not taught, and the right labels.
        depth: full depth.
        task: as full depth answers it.
        stages: as the exits do, by depth, the cheapest first.
    """
    rows = len(answers.right)
    full = _exit_answers(task, answers.logits[depth], answers.right).right
    exits = {d: _exit_answers(t, answers.logits[d], answers.right) for d, t in stages.items()}
    found = TaskFit(NEVER, dict.fromkeys(exits, 0.0), rows)
    for threshold in THRESHOLDS:
        right, rates = _cascade(exits, full, threshold)
        lost, won = int((full & ~right).sum()), int((right & ~full).sum())
        if p_value(lost, won, rows, promise.drop, promise.level) > promise.level:
            break
        if any(rates.values()):
            found = TaskFit(threshold, rates, rows, lost, won)
    if found.threshold > 1:
        return found
    return replace(found, bound=upper_bound(found.lost, found.won, rows, 1 - promise.level))


def _exit_answers(task: Task, logits: Values, right: npt.NDArray[Any]) -> _ExitAnswers:
    kind = kind_of(task)
    assert kind.certainty is not None, "training refuses early exits of scores"
    values = kind.values(task, logits)
    return _ExitAnswers(kind.certainty(task, values), same(kind.decisions(task, values), right))


def _cascade(
    exits: Mapping[int, _ExitAnswers], full: Mask, threshold: float
) -> tuple[Mask, dict[int, float]]:
    """Which answers are right when all exits have this threshold, and the share each answers."""
    right, waiting, rates = full.copy(), np.ones(len(full), bool), {}
    for depth, answers in exits.items():
        answered = waiting & (answers.certainty >= threshold)
        right[answered] = answers.right[answered]
        waiting &= ~answered
        rates[depth] = float(answered.mean())
    return right, rates


def exits_of(
    checkpoint: Checkpoint, found: Mapping[str, TaskFit], promise: Promise
) -> tuple[Exit, ...]:
    """The early exits as the manifest has them."""
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
        "tried": promise.tried,
        "method": METHOD,
        "rows": {task: one.rows for task, one in found.items()},
        "exit_rate": {task: one.exit_rates[depth] for task, one in found.items()},
        "measured_drop": {task: one.drop for task, one in found.items()},
        "bound": {task: one.bound for task, one in found.items()},
    }


def _of_depth(checkpoint: Checkpoint, task: str, depth: int) -> Mapping[str, Any]:
    """What training chose for a task's head of this depth."""
    found: Mapping[str, Any] = checkpoint.report[task]["depths"][str(depth)]
    return found


def answers_of(checkpoint: Checkpoint, task: str, depths: Sequence[int]) -> OutOfFold:
    """A task's answers that thresholds are fitted on.

    Raises:
        OptionError: the checkpoint has none of full depth or of one of these depths.
    """
    found = checkpoint.out_of_fold.get(task)
    # A model that --depth cut has lost all answers if those of its own depth were not kept.
    cut = checkpoint.depth < max(map(int, checkpoint.report[task]["depths"]))
    needed = [checkpoint.depth] if cut and found is None else [*depths, checkpoint.depth]
    missing = [d for d in needed if found is None or d not in found.logits]
    if found is None or missing:
        named = sorted({*(depths or (0,)), *([checkpoint.depth] if cut else [])})
        raise OptionError(
            f"--exits {','.join(map(str, depths)) or 'auto'}: task {task!r} would be fitted on "
            f"answers to rows that its heads were not taught, and the checkpoint holds none of "
            f"depth {', '.join(map(str, missing))}; train with --exits {','.join(map(str, named))}"
        )
    return found


def require_rows(task: str, rows: int, promise: Promise) -> None:
    """
    Raises:
        OptionError: so few rows show no such promise, even if none is lost.
    """
    if p_value(0, 0, rows, promise.drop, promise.level) <= promise.level:
        return
    needed = least_rows(promise.drop, 1 - promise.level)
    possible = 100 * least_drop(rows, 1 - promise.level)
    many = promise.tried > 1
    raise OptionError(
        f"task {task!r} has {rows} rows to fit on, and to promise a drop of "
        f"{100 * promise.drop:g} points with {promise.confidence:.0%} confidence"
        f"{f' of the best of {promise.tried} choices of stages' if many else ''} takes {needed:,}, "
        f"even if none is lost; ask for --exit-drop {np.ceil(20 * possible) / 20:.2f} or more, for "
        f"less confidence, {'name the stages, ' if many else ''}or train with more rows"
    )
