"""Heads on the last layers' pooled states: what most users would train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_edge.training.heads.head import MASKED, Head, HeadConfig

__all__ = ["POOLINGS", "LinearHead", "MlpHead", "NormalizedHead", "Setting"]

# Strengths of the data against the penalty, for features of mean squared norm 1, increasing.
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
FEW_STRENGTH = 10.0  # 3 and 30 do as well where rows are few


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to solve a linear head.

    Attributes:
        strength: see `mtl_edge.training.solve.linear_model`.
        layers: how much each layer's part of the features counts in the penalty, by its square.
    """

    strength: float
    layers: tuple[float, ...] = (1.0,)


class LinearHead(Head):
    """One linear map of the last layer's pooled states: what most users would train.

    On states that do not change it is solved, see `mtl_edge.training.solve`; else trained by steps.
    """

    layers = 1

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(min(self.layers, config.states) * config.width, config.labels)

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(self.features(states, mask)))
        return logits

    def features(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """What the linear map reads, `[batch, features]`."""
        return POOLINGS[self.config.pooling](states[-1], mask.to(states[-1].dtype))

    def settings(self, *, few: bool) -> Sequence[Setting]:
        """What to choose among when the map is solved; the first is taken where nothing can be.

        Args:
            few: whether there are but a handful of rows to choose by.
        """
        return [Setting(strength) for strength in STRENGTHS]


class NormalizedHead(LinearHead):
    """One linear map of the last layers' means, each brought to length 1.

    Sentence encoders are trained for the angle between such means, and layers below the last know
    of a text's tone what the last has lost. No figure is taken from the training rows, as centring
    would, so that a few rows, or one of a label, do as well.
    """

    layers = 3

    def features(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        real = mask.to(states[-1].dtype)
        means = [_mean(state, real) for state in states[-self.layers :]]
        return torch.cat(
            [mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-9) for mean in means], 1
        )

    def settings(self, *, few: bool) -> Sequence[Setting]:
        count = min(self.layers, self.config.states)
        # How much layers below the last count beside it, a little first: the safe choice.
        shares = (0.25, 0.0, 1.0) if count > 1 else (1.0,)
        strengths = (FEW_STRENGTH,) if few else STRENGTHS
        return [
            Setting(strength, (*[share] * (count - 1), 1.0))
            for share in shares
            for strength in strengths
        ]


class MlpHead(Head):
    """One hidden layer on the last layer's pooled states."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(config.width, config.hidden)
        self.output = nn.Linear(config.hidden, config.labels)

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> Tensor:
        pooled = POOLINGS[self.config.pooling](states[-1], mask.to(states[-1].dtype))
        hidden = nn.functional.gelu(self.hidden(self.dropout(pooled)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


def _cls(state: Tensor, real: Tensor) -> Tensor:
    return state[:, 0]


def _mean(state: Tensor, real: Tensor) -> Tensor:
    return ((real / real.sum(1, keepdim=True)).unsqueeze(1) @ state).squeeze(1)


def _max(state: Tensor, real: Tensor) -> Tensor:
    return (state + (1 - real).unsqueeze(2) * MASKED).amax(1)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
}
