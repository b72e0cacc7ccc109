"""The figures of each task: scores, calibration, and what the head has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from mtl_edge.answers.kinds import kind_of
from mtl_edge.bundle import Task
from mtl_edge.training.batches import Labelled
from mtl_edge.training.calibration import calibration_error
from mtl_edge.training.data import TaskData
from mtl_edge.training.few import CrossValidated
from mtl_edge.training.kinds import (
    figures_of,
    fitted_of,
    headline,
    training_kind,
    with_fitted,
)
from mtl_edge.training.run.baseline_answers import baseline_answers
from mtl_edge.training.run.corpus import Corpus, training_sample
from mtl_edge.training.run.errors import errors_of
from mtl_edge.training.run.learn import Heads, Learned
from mtl_edge.training.run.plan import RunPlan
from mtl_edge.training.run.predictors import Values, task_logits

__all__ = ["task_reports"]

Answers = npt.NDArray[Any]  # decisions, see `mtl_edge.answers.kinds`


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
        few = learned.cross_validated.get(name)
        earlier, after = before[name][depth], reported[name]
        if few is not None and task.dev is None:
            earlier, after = earlier[few.positions], few.logits
        logits = TaskLogits(earlier, validation[name], after, of_samples[name][depth])
        calibration = _calibration(task.task, logits, corpus, plan)
        fitted = with_fitted(task.task, calibration["depths"][str(depth)])
        reports[name] = {
            "kind": task.task.kind,
            "train": {
                **task.train.source,
                "rows": len(task.train),
                "score": _score(fitted, logits.sample, samples[name]),
            },
            "selection": {
                "rows": len(corpus.validation[name]),
                **learned.best_epochs.get(name, {}).get(depth, {}),
                **({} if few is None else _folds(fitted, few, depth)),
            },
            "refitted": _refitted(plan, name),
            "reported": {
                **task.report[1].source,
                "split": task.report[0],
                "rows": len(corpus.reported[name]),
            },
            "parameters": sum(p.numel() for p in heads[depth][name].parameters()),
            **calibration,
            **_answer_scores(task, fitted, logits, corpus, learned, plan),
        }
    return reports


def _folds(task: Task, few: CrossValidated, depth: int) -> dict[str, Any]:
    """How many folds there were, and between what the accuracy lies with 95% confidence."""
    found: dict[str, Any] = {"folds": few.folds}
    if len(few.rows) and task.kind == "single":
        right = training_kind(task).right(task, few.rows.targets)
        hits = int((few.logits[depth].argmax(1) == right).sum())
        found["interval"] = list(binomtest(hits, len(few.rows)).proportion_ci(method="wilson"))
    return found


def _score(task: Task, logits: Values, rows: Labelled) -> float | None:
    """The figure that counts most; none, without rows."""
    if not len(rows):
        return None
    right = training_kind(task).right(task, rows.targets)
    return headline(task, figures_of(task, right, logits))


def _refitted(plan: RunPlan, task: str) -> bool:
    """Whether the task's heads were trained on validation rows as well."""
    start = plan.start
    return (plan.options.refit and task in plan.learning.heads) or (
        start is not None and task in start.heads and start.refitted(task)
    )


def _calibration(task: Task, logits: TaskLogits, corpus: Corpus, plan: RunPlan) -> dict[str, Any]:
    """What is fitted to each depth's logits, and its scores; the model's error of calibration."""
    abstain = plan.options.abstain
    validation, reported = corpus.validation[task.name], corpus.reported[task.name]
    depths = {}
    for depth, of_depth in logits.reported.items():
        own = logits.validation[depth]
        fitted = task
        if len(validation):
            fitted = training_kind(task).calibrated(task, own, validation.targets, abstain)
        depths[str(depth)] = {
            **fitted_of(fitted),
            "selection_score": _score(fitted, own, validation),
            "score": _score(fitted, of_depth, reported),
        }
    found: dict[str, Any] = {"depths": depths}
    if task.kind == "score" or not len(reported):
        return found
    whole = with_fitted(task, depths[str(plan.depth)])
    own, right = logits.reported[plan.depth], training_kind(task).right(task, reported.targets)
    values = kind_of(task).values
    found["calibration_error"] = {
        "before": calibration_error(values(task, own), right),
        "after": calibration_error(values(whole, own), right),
    }
    if abstain is not None and task.kind == "single":
        found["abstaining"] = _abstaining(whole, own, right)
    return found


def _answer_scores(
    data: TaskData,
    task: Task,
    logits: TaskLogits,
    corpus: Corpus,
    learned: Learned,
    plan: RunPlan,
) -> dict[str, Any]:
    """Figures of the head's answers, of those before, and of the baselines; where it errs.

    Args:
        task: with what was fitted.
    """
    kind, trained = kind_of(task), training_kind(task)
    reported = corpus.reported[task.name]
    right = trained.right(task, reported.targets)
    after = logits.reported[plan.depth]
    if not len(reported):
        return {"head": {}, "before": {}, "mean_pooling": {}, "bag_of_words": {}}  # nothing known
    answers: dict[str, Answers] = {
        "head": kind.decisions(task, kind.values(task, after)),
        "before": kind.decisions(data.task, kind.values(data.task, logits.before)),
    }
    errors = errors_of(task, right, answers["head"])
    if plan.options.baselines:
        seed = plan.options.recipe.seed
        answers |= baseline_answers(
            data, corpus, learned.predictor, learned.cross_validated.get(data.name), seed
        )
    return errors | {name: trained.figures(task, right, answer) for name, answer in answers.items()}


def _abstaining(task: Task, logits: Values, right: Answers) -> dict[str, float | None]:
    """How many of the reported rows get a sure answer, and how many of those are right."""
    probabilities = kind_of(task).values(task, logits)
    answers = probabilities.argmax(1)
    sure = probabilities.max(1) >= np.array(task.thresholds)[answers]
    hit = answers == right
    return {
        "answered": float(sure.mean()),
        "accuracy": float(hit[sure].mean()) if sure.any() else None,
    }
