"""What a loop trains, and how its parts are scored after an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_edge.training.batches import Labelled
from mtl_edge.training.kinds import figures_of, headline, training_kind
from mtl_edge.training.recipe import Recipe

__all__ = ["Learner", "ValidationScore", "improves", "score"]

PLAIN = Recipe(label_smoothing=0.0)


@dataclass(frozen=True, slots=True)
class ValidationScore:
    """The figure that counts most (see `mtl_edge.training.kinds.headline`) and the mean loss.

    Attributes:
        score: from 0 to 1.
        rows: validation rows that both are of.
    """

    score: float
    loss: float
    rows: int


@dataclass(frozen=True, slots=True)
class Learner:
    """A module that keeps the weights of its best epoch.

    Attributes:
        scored_by: parts whose mean loss and score decide which epoch is best.
    """

    module: nn.Module
    scored_by: Sequence[str]


def score(logits: Tensor, rows: Labelled) -> ValidationScore:
    """How well logits `[rows, outputs]` answer validation rows, and their mean loss."""
    task, kind = rows.task, training_kind(rows.task)
    fitted = kind.calibrated(task, logits.numpy(), rows.targets, None)
    figures = figures_of(fitted, kind.right(task, rows.targets), logits.numpy())
    loss = kind.criterion(task, rows.targets, PLAIN)(logits, torch.from_numpy(rows.targets))
    return ValidationScore(max(0.0, headline(task, figures)), float(loss), len(rows))


def improves(found: ValidationScore, best: ValidationScore) -> bool:
    """Whether weights that score `found` are to be preferred to those that score `best`.

    The loss decides, which is far less noisy, unless the score clearly says otherwise: by more than
    a standard error, as in Breiman et al. 1984.
    """
    error = math.sqrt(best.score * (1 - best.score) / found.rows)
    gain = found.score - best.score
    return gain > error or (gain >= -error and found.loss < best.loss)
