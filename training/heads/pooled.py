"""Heads on the last layer's pooled states: what most users would train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from mtl_edge.training.heads.head import MASKED, Head, HeadConfig

__all__ = ["POOLINGS", "LinearHead", "MlpHead"]


class LinearHead(Head):
    """One linear map of the last layer's pooled states: what most users would train."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.width, config.labels)

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> Tensor:
        pooled = POOLINGS[self.config.pooling](states[-1], mask.to(states[-1].dtype))
        logits: Tensor = self.output(self.dropout(pooled))
        return logits


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
