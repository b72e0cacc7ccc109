"""What every head is made from, and the interface that all heads share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["MASKED", "Head", "HeadConfig"]

MASKED = -1e4  # a score that softmax and maximum pass over


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Everything needed to build a head again.

    Attributes:
        states: how many states of each token come in: the embeddings' and one per layer.
        width: of a state.
        kind: an entry of `HEADS`.
        pooling: of `linear` and `mlp`: `cls`, `mean` or `max`.
        members: of `attention` and `convolution`: small heads whose logits are averaged.
        queries: learned query vectors of attention pooling, of each member.
        channels: of `convolution`.
        hidden: width of the hidden layer, of each member.
        token_dropout: share of tokens that are masked in a training step.
        buckets: of the table of n-grams; 0: no such table.
        rank: columns of that table, from which a matrix makes logits; 0: a column a label.
        ngram_dropout: share of n-grams that are left out in a training step.
        relative: whether logits count relative to each other alone, as under a softmax.
    """

    states: int
    width: int
    labels: int
    kind: str = "attention"
    pooling: str = "mean"
    members: int = 4
    queries: int = 4
    channels: int = 128
    hidden: int = 64
    dropout: float = 0.3
    token_dropout: float = 0.0
    buckets: int = 2**19
    rank: int = 0
    ngram_dropout: float = 0.7
    relative: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Head(nn.Module):
    """Encoder states to one task's logits; see `mtl_edge.training.heads`."""

    config: HeadConfig

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> Tensor:
        """Logits `[batch, labels]`."""
        raise NotImplementedError

    def loss(
        self,
        criterion: nn.Module,
        targets: Tensor,
        states: Sequence[Tensor],
        mask: Tensor,
        ids: Tensor,
    ) -> Tensor:
        """The training loss: `criterion` of the logits and the labels' positions."""
        loss: Tensor = criterion(self(states, mask, ids), targets)
        return loss

    def finish(self) -> None:
        """Called after training: rounds weights to what export can keep in a byte each."""

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates, as optimizers take them."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]
