"""Losses by kind of task, from all of its training targets (see `mtl_edge.training.kinds`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_edge.bundle import Task
from mtl_edge.training.recipe import Recipe

__all__ = ["binary_cross_entropy", "cross_entropy", "squared_error"]

Targets = npt.NDArray[Any]


def cross_entropy(task: Task, targets: Targets, recipe: Recipe) -> nn.Module:
    """Class weights average to 1 over the rows."""
    weight = None
    if recipe.class_weights:
        count = task.outputs
        hard = targets.ndim == 1
        seen = np.bincount(targets, minlength=count) if hard else targets.sum(0)
        weight = torch.tensor(len(targets) / (count * seen.clip(1)), dtype=torch.float32)
    return nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)


class _EachLabel(nn.Module):
    """Binary cross-entropy, summed over the labels of a text."""

    def __init__(self, weight: Tensor | None) -> None:
        super().__init__()
        self.loss = nn.BCEWithLogitsLoss(reduction="none", pos_weight=weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        total: Tensor = self.loss(logits, targets).sum(1).mean()
        return total


def binary_cross_entropy(task: Task, targets: Targets, recipe: Recipe) -> nn.Module:
    """Class weights: a label that a text has counts by the root of how rare that is."""
    weight = None
    if recipe.class_weights:
        have = targets.sum(0).clip(1)
        weight = torch.tensor(np.sqrt((len(targets) - have).clip(1) / have), dtype=torch.float32)
    return _EachLabel(weight)


def squared_error(task: Task, targets: Targets, recipe: Recipe) -> nn.Module:
    """Mean squared error, in units of the scale."""
    return _SquaredError()


class _SquaredError(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(logits[:, 0], targets)
