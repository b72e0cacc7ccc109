"""The figures of one task: accuracies, calibration, and what the head has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mtl_edge.answers.probabilities import softmax
from mtl_edge.io.labelled import Rows
from mtl_edge.training.baselines import bag_of_words, mean_pooling, training_positions
from mtl_edge.training.batches import Labelled
from mtl_edge.training.calibration import calibration_error, fit_temperature, fit_thresholds
from mtl_edge.training.data import TaskData
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.run.predictors import Predictor, Values

__all__ = ["TaskLogits", "TaskSplits", "task_report"]

Answers = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class TaskLogits:
    """One task's logits.

    Attributes:
        before: of the reported rows, before learning.
        validation: by depth, when temperatures are chosen.
        reported: by depth, in the end.
        sample: of `TaskSplits.sample`, in the end.
    """

    before: Values
    validation: Mapping[int, Values]
    reported: Mapping[int, Values]
    sample: Values


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """One task's rows by split.

    Attributes:
        sample: some of the training rows, to see overfitting.
    """

    training: Labelled
    validation: Labelled
    reported: Labelled
    sample: Labelled


def task_report(
    task: TaskData,
    splits: TaskSplits,
    logits: TaskLogits,
    predictor: Predictor,
    options: TrainOptions,
    *,
    best_epoch: Mapping[str, float],
    parameters: int,
    refitted: bool,
) -> dict[str, Any]:
    """The figures of one task; the deepest head's where depth is not named.

    Args:
        predictor: of the states that the usual recipe pools.
        best_epoch: of the deepest head, if it learned: its number, accuracy and loss.
        parameters: of the deepest head.
        refitted: whether its heads were trained on validation rows as well.
    """
    split, reported = task.report
    depths = _by_depth(splits, logits, options.abstain)
    deepest = max(logits.reported)
    calibrated, own = depths[str(deepest)], logits.reported[deepest]
    labels = np.array(task.labels)
    answers = {"head": labels[own.argmax(1)], "before": labels[logits.before.argmax(1)]}
    if options.baselines:
        answers |= _baseline_answers(task, splits, predictor, options.recipe.seed)
    right = splits.reported.labels
    sample_right = logits.sample.argmax(1) == splits.sample.labels
    return {
        "train": {
            **task.train.source,
            "rows": len(task.train),
            "accuracy": float(sample_right.mean()),
        },
        "selection": {"rows": len(task.validation), **best_epoch},
        "refitted": refitted,
        "reported": {**reported.source, "split": split, "rows": len(reported)},
        "parameters": parameters,
        "depths": depths,
        "calibration_error": {
            "before": calibration_error(own, right, 1.0),
            "after": calibration_error(own, right, calibrated["temperature"]),
        },
        **({} if options.abstain is None else {"abstaining": _abstaining(own, right, calibrated)}),
        "confusion": confusion_matrix(
            reported.labels, answers["head"], labels=task.labels
        ).tolist(),
        **{name: _scores(reported, answer) for name, answer in answers.items()},
    }


def _by_depth(
    splits: TaskSplits, logits: TaskLogits, abstain: float | None
) -> dict[str, dict[str, Any]]:
    """Each depth's temperature and thresholds, its accuracy on validation and reported rows."""
    return {
        str(depth): {
            **_calibrated(logits.validation[depth], splits.validation, abstain),
            "accuracy": float((of_depth.argmax(1) == splits.reported.labels).mean()),
        }
        for depth, of_depth in logits.reported.items()
    }


def _calibrated(logits: Values, validation: Labelled, abstain: float | None) -> dict[str, Any]:
    """Temperature and thresholds by the logits of the validation rows."""
    temperature = fit_temperature(logits, validation.labels)
    thresholds = (
        ()
        if abstain is None
        else fit_thresholds(softmax(logits, temperature), validation.labels, abstain)
    )
    return {
        "temperature": temperature,
        "thresholds": list(thresholds),
        "selection_accuracy": float((logits.argmax(1) == validation.labels).mean()),
    }


def _baseline_answers(
    task: TaskData, splits: TaskSplits, predictor: Predictor, seed: int
) -> dict[str, Answers]:
    """What the usual recipe and a bag of words answer for the reported rows."""
    positions = training_positions(task.train.labels, seed)
    rows = task.train.take(positions)
    train_means = predictor.pooled([splits.training.rows[i] for i in positions])
    reported_means = predictor.pooled(splits.reported.rows)
    return {
        "mean_pooling": mean_pooling(train_means, rows.labels, reported_means),
        "bag_of_words": bag_of_words(rows.texts, rows.labels).predict(task.report[1].texts),
    }


def _scores(reported: Rows, answers: Answers) -> dict[str, float]:
    return {
        "accuracy": float(accuracy_score(reported.labels, answers)),
        "macro_f1": float(f1_score(reported.labels, answers, average="macro")),
    }


def _abstaining(
    logits: Values, labels: Sequence[int], calibrated: Mapping[str, Any]
) -> dict[str, float | None]:
    """How many of the reported rows get a sure answer, and how many of those are right."""
    probabilities = softmax(logits, calibrated["temperature"])
    answers = probabilities.argmax(1)
    sure = probabilities.max(1) >= np.array(calibrated["thresholds"])[answers]
    right = answers == labels
    return {
        "answered": float(sure.mean()),
        "accuracy": float(right[sure].mean()) if sure.any() else None,
    }
