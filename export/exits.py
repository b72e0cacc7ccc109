"""Thresholds from which on a cheaper stage may answer, fitted for a promise.

A cheaper stage, heads on a few layers or on a table of token vectors, answers a text when the
largest probability of every task that is asked is at least the task's threshold. The promise is
that a task, asked by itself, loses at most `drop` of its accuracy to full depth, with `confidence`.

The method is learn then test (Angelopoulos et al. 2021, arXiv:2110.01052). Thresholds are tried in
a fixed order, from the most careful on; each is tested against the hypothesis that it loses more
than was promised (`mtl_edge.export.paired`), and the last before the first that is not rejected is
taken. So tested, the whole sequence errs as rarely as one test. With several stages all take the
same threshold, so that the order stays fixed; temperatures make their probabilities comparable.
Where stages are chosen among several, each choice is tested at its part of the level (Bonferroni),
so that the promise holds for the one chosen, too.

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

from mtl_edge.answers.probabilities import softmax
from mtl_edge.bundle import Exit
from mtl_edge.errors import OptionError
from mtl_edge.export.paired import least_drop, least_rows, p_value, upper_bound
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.folds import OutOfFold

__all__ = [
    "METHOD",
    "THRESHOLDS",
    "Promise",
    "TaskFit",
    "cheapest",
    "choices",
    "fit",
    "fit_task",
    "stages_of",
]

METHOD = (
    "learn then test (arXiv:2110.01052), fixed sequence of thresholds, Bonferroni over the stages "
    "that were chosen among, exact unconditional test of paired answers (Tango 1998, Berger & Boos "
    "1994), heads out of fold (arXiv:2007.12671)"
)
# Fixed before any row is seen: even steps of the odds' logarithm; 0: every text leaves.
THRESHOLDS = (*(float(1 / (1 + np.exp(-x))) for x in np.arange(8.0, -1.51, -0.02)), 0.0)
MOST_STAGES = 2

Values = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Promise:
    """What is asked of the cheaper stages.

    Attributes:
        depths: layers of each; none: those that pay.
        drop: share of a task's rows that may be lost to full depth, net of those won.
        confidence: that it is no more.
        tried: how many promises it is chosen among.
    """

    depths: tuple[int, ...] | None
    drop: float = 0.003
    confidence: float = 0.95
    tried: int = 1

    @property
    def level(self) -> float:
        """How often its own test may err, so that the one chosen errs as rarely as was asked."""
        return (1 - self.confidence) / self.tried


@dataclass(frozen=True, slots=True)
class TaskFit:
    """What was found for one task.

    Attributes:
        threshold: of every stage; `NEVER` where none keeps the promise.
        exits: by depth, the share of rows that leave there.
        lost, won: rows that are right at full depth alone, and in the stages alone.
        bound: what the drop is below, with the promise's confidence, of whichever is chosen.
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
        if p_value(lost, won, rows, promise.drop, promise.level) > promise.level:
            break
        if any(exits.values()):
            found = TaskFit(threshold, exits, rows, lost, won)
    if found.threshold > 1:
        return found
    return replace(found, bound=upper_bound(found.lost, found.won, rows, 1 - promise.level))


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
        "tried": promise.tried,
        "method": METHOD,
        "rows": {task: one.rows for task, one in found.items()},
        "exit_rate": {task: one.exits[depth] for task, one in found.items()},
        "measured_drop": {task: one.drop for task, one in found.items()},
        "bound": {task: one.bound for task, one in found.items()},
    }


def choices(depths: Iterable[int], most: int = MOST_STAGES) -> list[tuple[int, ...]]:
    """The combinations of stages of these depths that `cheapest` chooses among."""
    ordered = sorted(depths)
    return [one for count in range(1, most + 1) for one in combinations(ordered, count)]


def cheapest(
    checkpoint: Checkpoint,
    promise: Promise,
    costs: Mapping[int, float],
    most: int = MOST_STAGES,
) -> Promise:
    """The promise with those depths, up to `most` of them, that make a text cheapest on average.

    Args:
        costs: by depth, full depth too, what a text takes in any unit; of stages one after the
            other it is the sum.

    Raises:
        OptionError: see `fit`; or no stage pays.
    """
    known = sorted(set(costs) - {checkpoint.depth})
    combined = choices(known, most)
    promise = replace(promise, tried=max(1, len(combined)))
    for task in checkpoint.tasks:
        _require_rows(task.name, len(_answers(checkpoint, task.name, ()).labels), promise)
    if not known:
        raise OptionError(
            f"--exits auto: the checkpoint holds answers of depth {checkpoint.depth} alone; train "
            "with --exits 0"
        )
    best, least = None, costs[checkpoint.depth]
    for depths in combined:
        chosen = replace(promise, depths=depths)
        try:
            found = fit(checkpoint, chosen)
        except OptionError:
            if len(known) == 1:
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


def _require_rows(task: str, rows: int, promise: Promise) -> None:
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
