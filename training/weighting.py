"""How much each task's loss counts where tasks share what learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["WEIGHTINGS", "Weighting"]


class Weighting(nn.Module):
    """Fixed weights: a task's loss times a number that the user chose."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__()
        self._weights = {task: weights.get(task, 1.0) for task in tasks}
        self._place = {task: i for i, task in enumerate(tasks)}

    def forward(self, task: str, loss: Tensor) -> Tensor:
        """The weighted loss of a batch of one task."""
        return self._weights[task] * loss


class UncertaintyWeighting(Weighting):
    """Weights that learn: exp(-s) * loss + s / 2, s the task's log variance.

    Kendall et al. 2018 (arXiv:1705.07115, eq. 10): a task whose loss stays large counts less.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__(tasks, weights)
        self.log_variance = nn.Parameter(torch.zeros(len(tasks)))

    def forward(self, task: str, loss: Tensor) -> Tensor:
        log_variance = self.log_variance[self._place[task]]
        return super().forward(task, torch.exp(-log_variance) * loss + log_variance / 2)


WEIGHTINGS: Mapping[str, type[Weighting]] = {
    "fixed": Weighting,
    "uncertainty": UncertaintyWeighting,
}
