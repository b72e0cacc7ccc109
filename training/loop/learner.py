"""What a loop trains, and how its parts are scored after an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Learner", "ValidationScore", "score"]


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
