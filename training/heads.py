"""Heads: encoder states to a task's logits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

__all__ = ["HeadConfig", "MixedAttentionHead", "build_head"]

MASKED = -1e4


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Everything needed to build a head again.

    Attributes:
        states: how many states of each token come in: the embeddings' and one per layer.
        width: of a state.
        queries: learned questions that attention pooling asks of the tokens.
        hidden: width of the hidden layer.
    """

    states: int
    width: int
    labels: int
    queries: int = 4
    hidden: int = 256
    dropout: float = 0.3

    def to_json(self) -> dict[str, int | float]:
        return asdict(self)


class MixedAttentionHead(nn.Module):
    """Learned mix over layers, attention pooling and mean, one hidden layer.

    The mix is ELMo's (Peters et al. 2018, arXiv:1802.05365), without its global scale; the pooling
    is structured self-attention (Lin et al. 2017, arXiv:1703.03130) with one linear map for scores.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.mix = nn.Parameter(torch.zeros(config.states))
        self.query = nn.Linear(config.width, config.queries, bias=False)
        self.hidden = nn.Linear((config.queries + 1) * config.width, config.hidden)
        self.output = nn.Linear(config.hidden, config.labels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """Logits `[batch, labels]`.

        Args:
            states: one `[batch, tokens, width]` for the embeddings and each layer.
            mask: `[batch, tokens]`, 1 where there is a token and 0 where there is padding.
        """
        weights = torch.softmax(self.mix, 0)
        mixed = weights[0] * states[0]
        for weight, state in zip(weights[1:], states[1:], strict=True):
            mixed = mixed + weight * state
        real = mask.to(mixed.dtype)
        scores = self.query(mixed).transpose(1, 2) + (1 - real).unsqueeze(1) * MASKED
        asked = torch.softmax(scores, -1) @ mixed
        mean = (real / real.sum(1, keepdim=True)).unsqueeze(1) @ mixed
        pooled = torch.cat([asked, mean], 1).flatten(1)
        hidden = nn.functional.gelu(self.hidden(self.dropout(pooled)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


def build_head(config: HeadConfig) -> MixedAttentionHead:
    """A head with fresh weights, drawn from torch's generator."""
    return MixedAttentionHead(config)
