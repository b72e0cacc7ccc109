"""What a head has to beat answers for the rows that are reported on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import Task
from mtl_edge.training.baselines import bag_of_words, mean_pooling, training_positions
from mtl_edge.training.baselines_by_kind import Features, number, several_labels, words
from mtl_edge.training.batches import Labelled
from mtl_edge.training.data import TaskData
from mtl_edge.training.few import CrossValidated, folds_of
from mtl_edge.training.kinds import hard_label, training_kind
from mtl_edge.training.run.corpus import Corpus
from mtl_edge.training.run.predictors import Predictor, Values

__all__ = ["baseline_answers"]

Answers = npt.NDArray[Any]  # decisions, see `mtl_edge.answers.kinds`
BAG_STRENGTH, MEANS_STRENGTH = 10.0, 1.0


def baseline_answers(
    data: TaskData, corpus: Corpus, predictor: Predictor, few: CrossValidated | None, seed: int
) -> dict[str, Answers]:
    """What the usual recipe and a bag of words answer for the reported rows."""
    name = data.name

    def part(rows: Labelled) -> _Part:
        return _Part(rows, [corpus.texts[row] for row in rows.rows], predictor.pooled(rows.rows))

    training = corpus.training[name]
    if few is not None and data.dev is None:
        whole, (folds, count) = part(training), folds_of(training, seed)
        found = [
            _answers(data.task, whole.take(folds != fold), whole, whole.take(folds == fold))
            for fold in range(count)
        ]
        order = np.concatenate([np.flatnonzero(folds == fold) for fold in range(count)])
        return {
            key: np.concatenate([one[key] for one in found])[order.argsort(kind="stable")]
            for key in found[0]
        }
    keys = [str(hard_label(data.task, label)) for label in data.train.labels]
    train = part(training.take(np.array(training_positions(keys, seed))))
    chosen = train if few is not None else part(corpus.validation[name])
    return _answers(data.task, train, chosen, part(corpus.reported[name]))


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows as baselines read them; `means` are `[rows, width]`."""

    rows: Labelled
    texts: list[str]
    means: Values

    def take(self, mask: npt.NDArray[np.bool_]) -> _Part:
        where = np.flatnonzero(mask)
        return _Part(self.rows.take(where), [self.texts[i] for i in where], self.means[where])

    @property
    def right(self) -> Answers:
        right: Answers = training_kind(self.rows.task).right(self.rows.task, self.rows.targets)
        return right


def _answers(task: Task, train: _Part, chosen: _Part, reported: _Part) -> dict[str, Answers]:
    """Each baseline's answers for the reported rows.

    Args:
        chosen: rows that thresholds are fitted on.
    """
    if task.kind == "single":
        labels = [task.labels[i] for i in train.right]
        place = {label: i for i, label in enumerate(task.labels)}
        found = {
            "mean_pooling": mean_pooling(train.means, labels, reported.means),
            "bag_of_words": bag_of_words(train.texts, labels).predict(reported.texts),
        }
        return {key: np.array([place[label] for label in own]) for key, own in found.items()}
    sets = {
        "mean_pooling": (Features(train.means, chosen.means, reported.means), MEANS_STRENGTH),
        "bag_of_words": (words(train.texts, chosen.texts, reported.texts), BAG_STRENGTH),
    }
    if task.kind == "score":
        return {key: number(features, train.right) for key, (features, _) in sets.items()}
    return {
        key: several_labels(features, train.right, chosen.right, strength)
        for key, (features, strength) in sets.items()
    }
