"""The figures of each task: accuracies, calibration, and what the head has to beat."""

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
from mtl_edge.training.run.corpus import Corpus, training_sample
from mtl_edge.training.run.learn import Heads, Learned
from mtl_edge.training.run.plan import RunPlan
from mtl_edge.training.run.predictors import Predictor, Values, task_logits

__all__ = ["task_reports"]

Answers = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class TaskLogits:
    """One task's logits.

    Attributes:
        before: of the reported rows, before learning.
        validation: by depth, when temperatures are chosen.
        reported: by depth, in the end.
        sample: of some training rows, in the end.
    """

    before: Values
    validation: Mapping[int, Values]
    reported: Mapping[int, Values]
    sample: Values


def task_reports(
    plan: RunPlan,
    corpus: Corpus,
    learned: Learned,
    heads: Heads,
    before: Mapping[str, Mapping[int, Values]],
    validation: Mapping[str, Mapping[int, Values]],
) -> dict[str, dict[str, Any]]:
    """By task, its figures; the model's own depth is meant where depth is not named.

    Args:
        before, validation: by task and depth, see `TaskLogits`.
    """
    depth = plan.depth
    samples = {name: training_sample(rows) for name, rows in corpus.training.items()}
    reported = task_logits(learned.predictor, heads, corpus.reported)
    of_samples = task_logits(learned.predictor, {depth: heads[depth]}, samples)
    reports = {}
    for task in plan.tasks:
        name = task.name
        logits = TaskLogits(
            before[name][depth], validation[name], reported[name], of_samples[name][depth]
        )
        reports[name] = {
            "train": {
                **task.train.source,
                "rows": len(task.train),
                "accuracy": _accuracy(logits.sample, samples[name]),
            },
            "selection": {
                "rows": len(task.validation),
                **learned.best_epochs.get(name, {}).get(depth, {}),
            },
            "refitted": _refitted(plan, name),
            "reported": {
                **task.report[1].source,
                "split": task.report[0],
                "rows": len(task.report[1]),
            },
            "parameters": sum(p.numel() for p in heads[depth][name].parameters()),
            **_calibration(logits, corpus.validation[name], corpus.reported[name], plan),
            **_answer_scores(task, logits.before, reported[name][depth], corpus, learned, plan),
        }
    return reports


def _accuracy(logits: Values, rows: Labelled) -> float:
    return float((logits.argmax(1) == rows.labels).mean())


def _refitted(plan: RunPlan, task: str) -> bool:
    """Whether the task's heads were trained on validation rows as well."""
    start = plan.start
    return (plan.options.refit and task in plan.learning.heads) or (
        start is not None and task in start.heads and start.refitted(task)
    )


def _calibration(
    logits: TaskLogits, validation: Labelled, reported: Labelled, plan: RunPlan
) -> dict[str, Any]:
    """Each depth's temperature, thresholds and accuracies; the model's error of calibration."""
    abstain = plan.options.abstain
    depths = {
        str(depth): {
            **_calibrated(logits.validation[depth], validation, abstain),
            "accuracy": _accuracy(of_depth, reported),
        }
        for depth, of_depth in logits.reported.items()
    }
    own, found = logits.reported[plan.depth], depths[str(plan.depth)]
    return {
        "depths": depths,
        "calibration_error": {
            "before": calibration_error(own, reported.labels, 1.0),
            "after": calibration_error(own, reported.labels, found["temperature"]),
        },
        **({} if abstain is None else {"abstaining": _abstaining(own, reported.labels, found)}),
    }


def _answer_scores(
    task: TaskData, before: Values, after: Values, corpus: Corpus, learned: Learned, plan: RunPlan
) -> dict[str, Any]:
    """Confusion of the head's answers; scores of these, of those before, and of the baselines."""
    reported = task.report[1]
    labels = np.array(task.labels)
    answers = {"head": labels[after.argmax(1)], "before": labels[before.argmax(1)]}
    if plan.options.baselines:
        seed = plan.options.recipe.seed
        answers |= _baseline_answers(task, corpus, learned.predictor, seed)
    confusion = confusion_matrix(reported.labels, answers["head"], labels=task.labels)
    return {
        "confusion": confusion.tolist(),
        **{name: _scores(reported, answer) for name, answer in answers.items()},
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
    task: TaskData, corpus: Corpus, predictor: Predictor, seed: int
) -> dict[str, Answers]:
    """What the usual recipe and a bag of words answer for the reported rows."""
    positions = training_positions(task.train.labels, seed)
    rows = task.train.take(positions)
    train_means = predictor.pooled([corpus.training[task.name].rows[i] for i in positions])
    reported_means = predictor.pooled(corpus.reported[task.name].rows)
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
