"""The table of kinds of tasks as training sees them: targets, loss, calibration and figures.

What logits mean is in `mtl_edge.answers.kinds`. Targets are what a loss compares logits with: of
`single` the label's position, int64 `[n]`, or probabilities, float32 `[n, labels]`, where some rows
have soft labels; of `multi` 0 to 1 for each label, float32 `[n, labels]`; of `score` the score in
units of its scale, float32 `[n]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from mtl_edge.answers import kinds
from mtl_edge.answers.probabilities import sigmoid, softmax
from mtl_edge.bundle import Scale, Task, TaskKind
from mtl_edge.errors import DataError
from mtl_edge.io.labels import Label, SoftLabel
from mtl_edge.training.calibration import (
    fit_decisions,
    fit_temperature,
    fit_thresholds,
)
from mtl_edge.training.losses import binary_cross_entropy, cross_entropy, squared_error
from mtl_edge.training.recipe import Recipe

__all__ = [
    "TRAINING_KINDS",
    "TrainingKind",
    "blank_task",
    "described",
    "figures_of",
    "fitted_of",
    "hard_label",
    "headline",
    "headline_name",
    "right_answers",
    "scale_of",
    "shown",
    "targets_of",
    "training_kind",
    "with_fitted",
]

Values = npt.NDArray[np.float32]
Targets = npt.NDArray[Any]
Figures = dict[str, float]
UNDECIDED = 0.5  # a probability from which on a soft label counts as one that a text has


@dataclass(frozen=True, slots=True)
class TrainingKind:
    """
    Attributes:
        targets: of rows' labels, in the order of the task's.
        right: the right answers that targets stand for, as `mtl_edge.answers.kinds` has them.
        criterion: the loss, from all training targets, for a batch's logits and targets.
        calibrated: the task with what is fitted to logits of validation rows; the last argument is
            the accuracy that answers shall have from their threshold on, if it was asked for.
        figures: scores of answers beside the right ones, by name.
        headline: the figure that counts most, a share.
        names: how figures are called, those worth a line; `%` ones are shares.
    """

    targets: Callable[[Task, Sequence[Label]], Targets]
    right: Callable[[Task, Targets], Any]
    criterion: Callable[[Task, Targets, Recipe], nn.Module]
    calibrated: Callable[[Task, Values, Targets, float | None], Task]
    figures: Callable[[Task, Any, Any], Figures]
    headline: str
    names: Mapping[str, str]


def training_kind(task: Task) -> TrainingKind:
    """The entry of the task's kind."""
    return TRAINING_KINDS[task.kind]


def blank_task(
    name: str, labels: Sequence[str], kind: TaskKind = "single", scale: Scale | None = None
) -> Task:
    """A task before anything is fitted."""
    thresholds = (UNDECIDED,) * len(labels) if kind == "multi" else ()
    return Task(name, tuple(labels), thresholds=thresholds, kind=kind, scale=scale)


def targets_of(task: Task, labels: Sequence[Label]) -> Targets:
    """The targets of rows with these labels."""
    return training_kind(task).targets(task, labels)


def right_answers(task: Task, labels: Sequence[Label]) -> Any:
    """The right answers of rows with these labels, as `mtl_edge.answers.kinds` has decisions."""
    return training_kind(task).right(task, targets_of(task, labels))


def figures_of(task: Task, right: Any, logits: Values) -> Figures:
    """Figures of a task's logits `[n, outputs]` beside the right answers."""
    kind = kinds.kind_of(task)
    return training_kind(task).figures(task, right, kind.decisions(task, kind.values(task, logits)))


def headline(task: Task, figures: Mapping[str, float]) -> float:
    """The figure that counts most: accuracy, macro-F1, or the share of variance explained."""
    return figures[training_kind(task).headline]


def headline_name(task: Task) -> str:
    """What that figure is called."""
    kind = training_kind(task)
    return kind.names[kind.headline].removeprefix("% ")


def shown(task: Task, figures: Mapping[str, float]) -> str:
    """The figures worth a line, as `87.0 % accuracy, 86.9 % macro-F1`."""
    return ", ".join(
        f"{100 * figures[key]:.1f} {name}" if name.startswith("%") else f"{figures[key]:.3g} {name}"
        for key, name in training_kind(task).names.items()
        if key in figures
    )


def hard_label(task: Task, label: Label) -> Label:
    """A soft label as what it says most; others as they are."""
    if not isinstance(label, SoftLabel):
        return label
    if task.kind == "single":
        return label.labels[int(np.argmax(label.shares))]
    pairs = zip(label.labels, label.shares, strict=True)
    return tuple(name for name, share in pairs if share >= UNDECIDED)


def fitted_of(task: Task) -> dict[str, Any]:
    """What was fitted for a task, as a checkpoint keeps it for each depth."""
    spread = {} if task.scale is None else {"spread": task.scale.spread}
    return {"temperature": task.temperature, "thresholds": list(task.thresholds), **spread}


def with_fitted(task: Task, found: Mapping[str, Any]) -> Task:
    """The task with what `fitted_of` gave."""
    scale = task.scale and replace(task.scale, spread=found["spread"])
    thresholds = tuple(found["thresholds"])
    return replace(task, temperature=found["temperature"], thresholds=thresholds, scale=scale)


def described(task: Task, target: Any) -> Label:
    """The label, the labels or the score that a row's target stands for."""
    right = training_kind(task).right(task, np.asarray(target)[None])[0]
    if task.kind == "score":
        return float(right)
    if task.kind == "multi":
        return tuple(label for label, has in zip(task.labels, right, strict=True) if has)
    return task.labels[int(right)]


def scale_of(name: str, scores: Sequence[Any]) -> Scale:
    """The scale of a task's training scores.

    Raises:
        DataError: all are the same.
    """
    values = np.array(scores, np.float64)
    if values.std() == 0:
        raise DataError(
            f"task {name!r} has the one score {values[0]:g}; expected several: check the label "
            "column"
        )
    return Scale(
        float(values.mean()), float(values.std()), float(values.min()), float(values.max())
    )


def _positions(task: Task) -> dict[str, int]:
    return {label: i for i, label in enumerate(task.labels)}


def _soft(task: Task, label: Label, position: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """A row's label as a probability for each label."""
    row = np.zeros(len(task.labels), np.float32)
    if isinstance(label, SoftLabel):
        for name, share in zip(label.labels, label.shares, strict=True):
            row[position[name]] = share
    else:
        names = label if isinstance(label, tuple) else (label,)
        row[[position[str(name)] for name in names]] = 1
    return row


def _positions_of(task: Task, labels: Sequence[Label]) -> Targets:
    position = _positions(task)
    if any(isinstance(label, SoftLabel) for label in labels):
        return np.stack([_soft(task, label, position) for label in labels])
    return np.array([position[str(label)] for label in labels], np.int64)


def _indicators(task: Task, labels: Sequence[Label]) -> Targets:
    position = _positions(task)
    rows = [_soft(task, label, position) for label in labels]
    return np.stack(rows) if rows else np.zeros((0, len(task.labels)), np.float32)


def _standardized(task: Task, labels: Sequence[Label]) -> Targets:
    assert task.scale is not None
    scores = np.array(labels, np.float64)
    return ((scores - task.scale.center) / task.scale.width).astype(np.float32)


def _positions_right(task: Task, targets: Targets) -> Any:
    return targets if targets.ndim == 1 else targets.argmax(1)


def _scores_right(task: Task, targets: Targets) -> Any:
    assert task.scale is not None
    return task.scale.center + task.scale.width * targets.astype(np.float64)


def _calibrated_single(task: Task, logits: Values, targets: Targets, abstain: float | None) -> Task:
    labels = _positions_right(task, targets)
    temperature = fit_temperature(logits, labels)
    thresholds: Sequence[float] = ()
    if abstain is not None:
        thresholds = fit_thresholds(softmax(logits, temperature), labels, abstain)
    return replace(task, temperature=temperature, thresholds=tuple(thresholds))


def _calibrated_multi(task: Task, logits: Values, targets: Targets, abstain: float | None) -> Task:
    temperature = fit_temperature(logits, targets)
    thresholds = fit_decisions(sigmoid(logits, temperature), targets >= UNDECIDED)
    return replace(task, temperature=temperature, thresholds=tuple(thresholds))


def _calibrated_score(task: Task, logits: Values, targets: Targets, abstain: float | None) -> Task:
    assert task.scale is not None
    found = kinds.kind_of(task).values(task, logits)[:, 0]
    errors = found - _scores_right(task, targets)
    spread = float(np.sqrt((errors**2).mean()))
    return replace(task, scale=replace(task.scale, spread=spread))


def _figures_single(task: Task, right: Any, answers: Any) -> Figures:
    return {
        "accuracy": float(accuracy_score(right, answers)),
        "macro_f1": float(f1_score(right, answers, average="macro")),
    }


def _figures_multi(task: Task, right: Any, answers: Any) -> Figures:
    return {
        "accuracy": float(kinds.same(right, answers).mean()),
        "macro_f1": float(f1_score(right, answers, average="macro", zero_division=0)),
        "micro_f1": float(f1_score(right, answers, average="micro", zero_division=0)),
    }


def _figures_score(task: Task, right: Any, answers: Any) -> Figures:
    errors = answers - right
    spread = ((right - right.mean()) ** 2).mean()
    ranks = np.corrcoef(rankdata(right), rankdata(answers)) if answers.std() * spread else None
    return {
        "r2": float(1 - (errors**2).mean() / spread) if spread else 0.0,
        "rmse": float(np.sqrt((errors**2).mean())),
        "mae": float(np.abs(errors).mean()),
        "spearman": 0.0 if ranks is None else float(ranks[0, 1]),
    }


TRAINING_KINDS: Mapping[TaskKind, TrainingKind] = {
    "single": TrainingKind(
        _positions_of,
        _positions_right,
        cross_entropy,
        _calibrated_single,
        _figures_single,
        "accuracy",
        {"accuracy": "% accuracy", "macro_f1": "% macro-F1"},
    ),
    "multi": TrainingKind(
        _indicators,
        lambda task, targets: targets >= UNDECIDED,
        binary_cross_entropy,
        _calibrated_multi,
        _figures_multi,
        "macro_f1",
        {"macro_f1": "% macro-F1", "micro_f1": "% micro-F1", "accuracy": "% all labels right"},
    ),
    "score": TrainingKind(
        _standardized,
        _scores_right,
        squared_error,
        _calibrated_score,
        _figures_score,
        "r2",
        {"r2": "% variance explained", "rmse": "root mean squared error",
         "spearman": "rank correlation"},
    ),
}  # fmt: skip
