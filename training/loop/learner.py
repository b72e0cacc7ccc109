"""What a loop trains, and how its parts are scored after an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Learner", "ValidationScore", "improves", "score"]


@dataclass(frozen=True, slots=True)
class ValidationScore:
    """Accuracy and mean cross-entropy of one part on so many validation rows."""

    accuracy: float
    loss: float
    rows: int


@dataclass(frozen=True, slots=True)
class Learner:
    """A module that keeps the weights of its best epoch.

    Attributes:
        scored_by: parts whose mean loss and accuracy decide which epoch is best.
    """

    module: nn.Module
    scored_by: Sequence[str]


def score(logits: Tensor, labels: Sequence[int]) -> ValidationScore:
    """Accuracy and mean cross-entropy of logits `[rows, labels]`."""
    targets = torch.as_tensor(labels)
    return ValidationScore(
        float((logits.argmax(1) == targets).float().mean()),
        float(nn.functional.cross_entropy(logits, targets)),
        len(targets),
    )


def improves(found: ValidationScore, best: ValidationScore) -> bool:
    """Whether weights that score `found` are to be preferred to those that score `best`.

    The loss decides, which is far less noisy, unless accuracy clearly says otherwise: by more than
    a standard error, as in Breiman et al. 1984.
    """
    error = math.sqrt(best.accuracy * (1 - best.accuracy) / found.rows)
    gain = found.accuracy - best.accuracy
    return gain > error or (gain >= -error and found.loss < best.loss)
