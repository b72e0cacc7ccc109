"""A handful of examples: none is set aside, and cross-validation chooses in the place of those.

Of a few rows a label, a tenth is too few to choose by, and sorely missed. So a head that is solved
(see `mtl_edge.training.solve`) learns from all rows; what it would answer on rows that it has not
seen is asked of heads solved on the other folds. On these out-of-fold logits its setting is chosen,
its temperature fitted, and figures are taken where no dev rows are given.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge.io.labelled import Rows
from mtl_edge.training.batches import Labelled
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import strata
from mtl_edge.training.heads import HEAD_FOR_FEW, HEADS, LinearHead, Setting
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop import ValidationScore, improves
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.scenarios import SCENARIOS
from mtl_edge.training.solve import LinearModel
from mtl_edge.training.solved import (
    LinearHeads,
    Problem,
    by_layers,
    calibrated_score,
    features_of,
    log_solved,
    take_weights,
)
from mtl_edge.training.states import States

__all__ = ["FEW", "CrossValidated", "folds_of", "has_few", "solve_few", "takes_all_rows"]

FEW = 20  # texts a label, in the median, up to which there are but a few
FEW_IN_ALL = 80  # or so many in all, below which there are
MOST_IN_ALL = 3000  # beyond which solving takes longer than steps do, and a tenth can be set aside
MOST_FOLDS = 5
SPLITTABLE = 5  # texts of a label from which on one of them is set aside
# Logits solved from a few rows are too small for their accuracy, by one to four times as a rule.
SHARPNESS = 2.0

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """One task's out-of-fold logits.

    Attributes:
        positions: of the rows that could be asked, among the training rows: not those of a label
            that has one text, which every fold has to learn from.
        rows: these rows.
        logits: by depth, float32 `[rows, outputs]`.
        folds: how many parts the rows were split into.
        best: by depth, score and loss of the setting that was taken, on these rows.
    """

    positions: Sequence[int]
    rows: Labelled
    logits: dict[int, Values]
    folds: int
    best: dict[int, dict[str, float]]


def has_few(rows: Rows) -> bool:
    """Whether a task has so few training rows that none is set aside.

    They are counted by label, or by what stands for it, see `mtl_edge.training.data.strata`.
    """
    texts = Counter(group for _, group in {*zip(rows.texts, strata(rows), strict=True)})
    count = sum(texts.values())
    if count < FEW_IN_ALL or max(texts.values()) < SPLITTABLE:
        return True
    return count <= MOST_IN_ALL and median(texts.values()) <= FEW


def takes_all_rows(
    task: str, rows: Rows, options: TrainOptions, start: Checkpoint | None = None
) -> bool:
    """Whether no validation rows are set aside of a task's rows.

    That is where they are few, the backbone is frozen, and the head is one that is solved: the one
    that `--head` names, that `start` has, or the default for a few rows.
    """
    scenario = SCENARIOS.get(options.scenario)
    if scenario is None or (scenario.backbone != "frozen" and "backbone" not in options.freeze):
        return False
    if scenario.heads == "none" or task in options.freeze:
        return False
    if scenario.heads == "named" and task not in options.learn:
        return False
    if start is not None and task in start.heads:
        return isinstance(start.heads[task], LinearHead) and has_few(rows)
    kind = HEADS.get(options.heads.get(task, HEAD_FOR_FEW).partition(":")[0])
    return kind is not None and issubclass(kind, LinearHead) and has_few(rows)


def folds_of(rows: Labelled, seed: int) -> tuple[npt.NDArray[np.int64], int]:
    """Each row's fold, -1 for one that every fold learns from; and the number of folds.

    Labels are spread evenly, and a text that occurs twice is in one fold, so that it is never asked
    of a head that has seen it. A label's only text stays in every fold.
    """
    texts: dict[int, list[int]] = {}  # by label
    groups = _groups(rows)
    for text, group in sorted({*zip(rows.rows, groups, strict=True)}):
        texts.setdefault(group, []).append(text)
    asked = sorted(group for group, own in texts.items() if len(own) > 1)
    if not asked:
        return np.full(len(rows), -1), 0
    count = min(MOST_FOLDS, max(2, round(median(len(texts[group]) for group in asked))))
    generator = random.Random(seed)
    fold: dict[int, int] = {}
    for group in asked:
        generator.shuffle(texts[group])
        for text in texts[group]:
            fold.setdefault(text, len(fold) % count)
    return np.array(
        [
            fold.get(text, -1) if group in asked else -1
            for text, group in zip(rows.rows, groups, strict=True)
        ]
    ), count


def _groups(rows: Labelled) -> list[int]:
    """Each row's label; of several its rarest, -1 for none; of a score always the same."""
    targets = rows.targets
    if rows.task.kind == "score":
        return [0] * len(rows)
    if targets.ndim == 1:
        return [int(target) for target in targets]
    if rows.task.kind == "single":
        return [int(place) for place in targets.argmax(1)]
    rarity = np.where(targets >= 0.5, 1 / (targets >= 0.5).sum(0).clip(1), 0)
    return [int(row.argmax()) if row.any() else -1 for row in rarity]


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
        described: descriptions of labels, that every fold learns from.

    Raises:
        MtlEdgeError: a state is not a number.
    """
    started = time.monotonic()
    rows = training + described
    folds, count = folds_of(training, recipe.seed)
    places = np.concatenate([folds, np.full(len(described), -1)])
    asked = np.flatnonzero(places >= 0)
    found = CrossValidated(asked.tolist(), training.take(asked), {}, count, {})
    for depth, values in features_of(task, heads, states, rows.rows).items():
        head = heads[depth]
        problem = Problem(values, rows, recipe)
        settings = [s for group in by_layers(head.settings(few=True)) for s in group]
        setting, own = settings[0], None
        found.logits[depth] = np.zeros((0, rows.task.outputs), np.float32)
        if count:
            logits = [some[asked] for some in _out_of_fold(problem, settings, places)]
            setting, own = _best(settings, logits, found.rows)
            found.logits[depth] = logits[settings.index(setting)]
            found.best[depth] = {"score": own.score, "loss": own.loss}
        (model,) = problem.solutions([setting])
        model = _sharpened(model, rows)
        take_weights(head, model)
        log_solved(journal, f"{task}@{depth}", started, problem.loss_of(model), own, setting)
    return found


def _out_of_fold(
    problem: Problem, settings: Sequence[Setting], places: npt.NDArray[np.int64]
) -> list[Values]:
    """Each setting's logits `[rows, outputs]`; those of rows that are in no fold mean nothing."""
    found = [np.zeros((len(places), problem.rows.task.outputs), np.float32) for _ in settings]
    for fold in range(places.max() + 1):
        held_out, others = np.flatnonzero(places == fold), np.flatnonzero(places != fold)
        rest = Problem(
            problem.values[torch.from_numpy(others)], problem.rows.take(others), problem.recipe
        )
        models = [
            _sharpened(model, problem.rows)
            for group in by_layers(settings)
            for model in rest.solutions(group)
        ]
        for one, model in zip(found, models, strict=True):
            one[held_out] = model(problem.values[torch.from_numpy(held_out)]).numpy()
    return found


def _sharpened(model: LinearModel, rows: Labelled) -> LinearModel:
    """Larger logits and the same answers, so that a temperature near 1 calibrates them."""
    if rows.task.kind == "score":
        return model
    return LinearModel(SHARPNESS * model.weight, SHARPNESS * model.bias)


def _best(
    settings: Sequence[Setting], logits: Sequence[Values], rows: Labelled
) -> tuple[Setting, ValidationScore]:
    """The first setting, unless another does better."""
    scores = [calibrated_score(torch.from_numpy(some), rows) for some in logits]
    best = 0
    for place, one in enumerate(scores):
        if improves(one, scores[best]):
            best = place
    return settings[best], scores[best]
