"""A handful of examples: none is set aside, and cross-validation chooses in the place of those.

Of a few rows a label, a tenth is too few to choose an epoch by, and a tenth missed. So a head that
is solved (see `mtl_edge.training.solve`) learns from all rows; what it would answer on rows that
it has not seen is asked of heads solved on the other folds. On these out-of-fold logits its setting
is chosen, its temperature fitted, and figures are taken where no dev rows are given.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge.io.labelled import Rows
from mtl_edge.training.batches import Labelled
from mtl_edge.training.heads import HEADS, Setting
from mtl_edge.training.heads.pooled import LinearHead
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop import ValidationScore, improves
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.solve import LinearModel
from mtl_edge.training.solved import (
    LinearHeads,
    Problem,
    calibrated_score,
    features_of,
    log,
    take,
    training_loss,
)
from mtl_edge.training.states import States

__all__ = ["FEW", "CrossValidated", "folds_of", "has_few", "is_solved", "solve_few"]

FEW = 20  # texts a label, in the median, up to which there are but a few
MOST_FOLDS = 5

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """One task's out-of-fold logits.

    Attributes:
        positions: the rows that could be asked, among the training rows: not those of a label that
            has one text, which every fold has to learn from.
        labels: their labels' positions.
        logits: by depth, float32 `[rows, labels]`.
        folds: how many parts the rows were split into.
        best: by depth, the setting that was taken, and its accuracy and loss on these rows.
    """

    positions: Sequence[int]
    labels: Sequence[int]
    logits: dict[int, Values]
    folds: int
    best: dict[int, dict[str, float]]


def has_few(rows: Rows) -> bool:
    """Whether a task has so few training rows that none is set aside."""
    texts = Counter(label for _, label in {*zip(rows.texts, rows.labels, strict=True)})
    return median(texts.values()) <= FEW


def is_solved(head: str) -> bool:
    """Whether a head of that name is solved on a frozen backbone, so that it can do with few."""
    kind = HEADS.get(head.partition(":")[0])
    return kind is not None and issubclass(kind, LinearHead)


def folds_of(rows: Labelled, seed: int) -> tuple[list[int], int]:
    """Each row's fold, -1 for one that every fold learns from; and the number of folds.

    Labels are spread evenly, and a text that occurs twice is in one fold, so that it is never asked
    of a head that has seen it. A label's only text stays in every fold.
    """
    texts = {label: sorted({*_of(rows, label)}) for label in sorted({*rows.labels})}
    asked = {label for label, own in texts.items() if len(own) > 1}
    if not asked:
        return [-1] * len(rows), 0
    count = min(MOST_FOLDS, max(2, round(median(len(texts[label]) for label in asked))))
    generator = random.Random(seed)
    fold: dict[int, int] = {}
    turn = 0
    for label in sorted(asked):
        generator.shuffle(texts[label])
        for text in texts[label]:
            if text not in fold:
                fold[text] = turn % count
                turn += 1
    return [
        fold.get(text, -1) if label in asked else -1
        for text, label in zip(rows.rows, rows.labels, strict=True)
    ], count


def _of(rows: Labelled, label: int) -> list[int]:
    return [text for text, own in zip(rows.rows, rows.labels, strict=True) if own == label]


def solve_few(
    task: str,
    heads: LinearHeads,
    states: States,
    training: Labelled,
    described: Labelled,
    recipe: Recipe,
    journal: Journal,
) -> CrossValidated:
    """Solve one task's linear heads in place, one for each depth, on all rows.

    Args:
        described: rows of the labels' descriptions, that every fold learns from.

    Raises:
        MtlEdgeError: a state is not a number.
    """
    started = time.monotonic()
    rows = training + described
    folds, count = folds_of(training, recipe.seed)
    places = np.array([*folds, *[-1] * len(described)])
    asked = np.flatnonzero(places >= 0)
    labels = [rows.labels[i] for i in asked]
    found = CrossValidated(asked.tolist(), labels, {}, count, {})
    for depth, values in features_of(task, heads, states, rows.rows).items():
        head = heads[depth]
        problem = Problem.of(values, rows, head.config.labels, recipe)
        settings = list(head.settings(few=True))
        setting, own = settings[0], None
        if count:
            logits = _out_of_fold(problem, settings, places)
            setting, own = _best(settings, [some[asked] for some in logits], labels)
            found.logits[depth] = logits[settings.index(setting)][asked]
            found.best[depth] = {"accuracy": own.accuracy, "loss": own.loss}
        ((_, model),) = problem.solutions([setting])
        take(head, model)
        log(journal, f"{task}@{depth}", started, training_loss(problem, model), own, setting)
    return found


def _out_of_fold(
    problem: Problem, settings: Sequence[Setting], places: npt.NDArray[np.int64]
) -> list[Values]:
    """Each setting's logits `[rows, labels]`; those of rows that are in no fold mean nothing."""
    found = [np.zeros((len(places), problem.labels), np.float32) for _ in settings]
    for fold in range(places.max() + 1):
        held_out = torch.from_numpy(places == fold)
        others = replace(
            problem,
            values=problem.values[~held_out],
            targets=problem.targets[~held_out],
            weights=None if problem.weights is None else problem.weights[~held_out],
        )
        for one, (_, model) in zip(found, others.solutions(settings), strict=True):
            one[places == fold] = model(problem.values[held_out]).numpy()
    return found


def _best(
    settings: Sequence[Setting], logits: Sequence[Values], labels: Sequence[int]
) -> tuple[Setting, ValidationScore]:
    """The first setting, unless another does better."""
    scores = [calibrated_score(some, labels) for some in logits]
    best = 0
    for place, one in enumerate(scores):
        if improves(one, scores[best]):
            best = place
    return settings[best], scores[best]
