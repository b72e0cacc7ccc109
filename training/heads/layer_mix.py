"""A learned weighted mean over the encoder's layers, in the place of the last one alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_edge.training.heads.head import Head, HeadConfig

__all__ = ["LayerMix", "MixingHead"]


class MixingHead(Head):
    """A head that reads a learned mix over layers.

    The mix is ELMo's (Peters et al. 2018, arXiv:1802.05365), without its global scale.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.mix = nn.Parameter(torch.zeros(config.states))
        self.layer_mix = LayerMix()

    def forward(
        self, states: Sequence[Tensor], mask: Tensor, ids: Tensor, tokens: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, labels]`; `tokens` are the mixed states, if someone mixed them before."""
        if tokens is None:
            (tokens,) = self.layer_mix([self.mix], states)
        return self.answer(tokens, mask, ids)

    def answer(self, tokens: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Logits from mixed states `[batch, tokens, width]`."""
        raise NotImplementedError


class LayerMix(nn.Module):
    """For each mix, its weighted sum of the states: one matrix product for all heads.

    Sums of their own would cost a tenth of the encoder's time.
    """

    def forward(self, mixes: Sequence[Tensor], states: Sequence[Tensor]) -> Sequence[Tensor]:
        """One `[batch, tokens, width]` a mix."""
        if len(states) == 1:
            return [states[0]] * len(mixes)
        weights = torch.stack([torch.softmax(mix, 0) for mix in mixes])
        stacked = torch.stack(list(states))
        sums = (weights @ stacked.flatten(1)).view(len(mixes), *stacked.shape[1:])
        return sums.unbind(0)
