"""Heads of one kind as one: every task's logits from one set of operators.

At batch 1 a small operator costs more than its arithmetic. Run one after another, two tasks' heads
have some 200 of them; together they have as many as one head alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_edge.training.heads import MASKED, AttentionHead, HeadConfig, NgramTable, hashes_of
from mtl_edge.training.model import MultiTaskModel

__all__ = ["fused"]


class FusedModel(nn.Module):
    """A `MultiTaskModel` with its heads joined; same inputs and outputs, up to rounding."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self._whole = model
        groups: dict[HeadConfig, list[int]] = {}
        for place, head in enumerate(model.heads):
            if type(head) is AttentionHead:
                groups.setdefault(_alike(head.config), []).append(place)
        self._places = list(groups.values())
        # The name says to those who quantize that this is not the encoder.
        self.heads = nn.ModuleList(
            FusedHeads([model.heads[place] for place in places])  # type: ignore[misc]
            for places in self._places
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        states = self._whole.states(input_ids, attention_mask)
        logits: dict[int, Tensor] = {}
        for heads, places in zip(self.heads, self._places, strict=True):
            logits |= zip(places, heads(states, attention_mask, input_ids), strict=True)
        for place, head in enumerate(self._whole.heads):
            if place not in logits:
                logits[place] = head(states, attention_mask, input_ids)
        return tuple(logits[place] for place in range(len(self._whole.heads)))


def fused(model: MultiTaskModel) -> FusedModel:
    """The model to capture."""
    return FusedModel(model).eval()


def _alike(config: HeadConfig) -> HeadConfig:
    """What heads must have in common to be joined: all but labels and what matters in training."""
    values = {**config.to_json(), "labels": 0, "dropout": 0.0}
    return HeadConfig(**{**values, "token_dropout": 0.0, "ngram_dropout": 0.0})


class FusedHeads(nn.Module):
    """Attention heads that differ in their labels alone.

    Shapes below: heads H, batch B, members M, tokens T, width D.
    """

    def __init__(self, heads: Sequence[AttentionHead]) -> None:
        super().__init__()
        config = heads[0].config
        self._config = config
        members, asked = config.members, config.queries * config.width

        def stacked(values: Sequence[Tensor]) -> nn.Parameter:
            return nn.Parameter(torch.stack(list(values)).detach().clone(), requires_grad=False)

        self.mix = stacked([torch.softmax(head.mix, 0) for head in heads])
        self.query = stacked([head.query.weight.T.unsqueeze(0) for head in heads])
        self.hidden_asked = stacked([head.hidden[:, :asked] for head in heads])
        self.hidden_mean = stacked([head.hidden[:, asked:] for head in heads])
        self.hidden_bias = stacked([head.hidden_bias for head in heads])
        # The mean over members is a part of the last product.
        self.outputs = nn.ParameterList(
            nn.Parameter(head.output.flatten(0, 1) / members, requires_grad=False) for head in heads
        )
        self.biases = nn.ParameterList(
            nn.Parameter(head.output_bias.mean(0), requires_grad=False) for head in heads
        )
        self.ngrams = PackedNgrams([h.ngrams for h in heads if h.ngrams is not None])

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> list[Tensor]:
        config = self._config
        members, queries, width = config.members, config.queries, config.width
        real = mask.to(states[0].dtype)
        if len(states) > 1:
            stack = torch.cat(list(states)).view(len(states), -1)
            tokens = (self.mix @ stack).view(-1, *states[0].shape)  # H B T D
        else:
            tokens = states[0].unsqueeze(0).expand(len(self.mix), -1, -1, -1)
        penalty = ((1 - real) * MASKED).unsqueeze(1)  # B 1 T
        shares = torch.softmax((tokens @ self.query).transpose(2, 3) + penalty, -1)  # H B MQ T
        asked = (shares @ tokens).view(len(self.mix), -1, members, queries * width)
        mean = (real / real.sum(1, keepdim=True)).unsqueeze(1) @ tokens  # H B 1 D
        hidden = nn.functional.gelu(
            asked.transpose(1, 2) @ self.hidden_asked
            + mean.transpose(1, 2) @ self.hidden_mean
            + self.hidden_bias
        )  # H M B hidden
        hidden = hidden.transpose(1, 2).flatten(2)  # H B M*hidden
        logits = [
            hidden[place] @ output + bias
            for place, (output, bias) in enumerate(zip(self.outputs, self.biases, strict=True))
        ]
        if not config.buckets:
            return logits
        wide = self.ngrams(ids, real).split([len(bias[0]) for bias in self.biases], 1)
        return [deep + other for deep, other in zip(logits, wide, strict=True)]


class PackedNgrams(nn.Module):
    """Tables of n-grams side by side, a byte a number and a scale a label."""

    def __init__(self, tables: Sequence[NgramTable]) -> None:
        super().__init__()
        packed = [table.packed() for table in tables]
        if packed:
            codes = torch.cat([codes for codes, _ in packed], 1)
            self.codes = nn.Parameter(codes, requires_grad=False)
            scales = torch.cat([scale for _, scale in packed], 1)
            self.scales = nn.Parameter(scales, requires_grad=False)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """All tasks' logits `[batch, labels]`."""
        hashes, there = hashes_of(ids, real, self.codes.shape[0])
        rows = self.codes[torch.cat(hashes, 1)].to(real.dtype)
        seen = torch.cat(there, 1)
        total = (seen.unsqueeze(1) @ rows).squeeze(1)
        return total * self.scales / seen.sum(1, keepdim=True).sqrt()
