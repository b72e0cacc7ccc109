"""Heads that pool mixed states by attention, with a table of n-grams beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_edge.training.heads.head import MASKED, HeadConfig
from mtl_edge.training.heads.layer_mix import MixingHead
from mtl_edge.training.heads.ngrams import NgramTable, rounded

__all__ = ["AttentionHead", "ConvolutionHead"]

NGRAM_RATE = 10.0


class AttentionHead(MixingHead):
    """Attention pooling and mean of the mixed states, one hidden layer; several of it, averaged.

    The pooling is structured self-attention (Lin et al. 2017, arXiv:1703.03130) with one linear map
    for scores. Members share the mix and the table of n-grams, differ in what they drew at the
    start and drop in training, and each learns from a loss of its own (deep ensembles,
    Lakshminarayanan et al. 2017, arXiv:1612.01474); narrow as they are, all together cost what one
    wide one does.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        width = self._features(config)
        members, features = config.members, (config.queries + 1) * width
        self.query = nn.Linear(width, members * config.queries, bias=False)
        self.hidden = nn.Parameter(_uniform(members, features, config.hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(members, 1, config.hidden))
        self.output = nn.Parameter(_uniform(members, config.hidden, config.labels))
        self.output_bias = nn.Parameter(torch.zeros(members, 1, config.labels))
        self.dropout = nn.Dropout(config.dropout)
        self.ngrams = (
            NgramTable(
                config.buckets,
                config.labels,
                config.ngram_dropout,
                rank=config.rank,
                relative=config.relative,
            )
            if config.buckets
            else None
        )

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        table = [] if self.ngrams is None else [self.ngrams.weight]
        known = set(map(id, table))
        rest = [p for p in self.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": learning_rate}]
        if table:
            # A row learns from the few texts that hold its n-gram, so it takes larger steps.
            rate = NGRAM_RATE * learning_rate
            groups.append({"params": table, "lr": rate, "weight_decay": 0.0})
        return groups

    @torch.no_grad()
    def finish(self) -> None:
        self.hidden.copy_(rounded(self.hidden, 1))
        if self.ngrams is not None:
            self.ngrams.finish()

    def _features(self, config: HeadConfig) -> int:
        """Make what turns mixed states into what is pooled; returns its width."""
        return config.width

    def _transform(self, mixed: Tensor, real: Tensor) -> Tensor:
        return mixed

    def loss(
        self,
        criterion: nn.Module,
        targets: Tensor,
        states: Sequence[Tensor],
        mask: Tensor,
        ids: Tensor,
    ) -> Tensor:
        (tokens,) = self.layer_mix([self.mix], states)
        logits = self._members(tokens, mask, ids)
        loss: Tensor = criterion(logits.flatten(0, 1), torch.cat([targets] * len(logits)))
        return loss

    def answer(self, tokens: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        return self._members(tokens, mask, ids).mean(0)

    def _members(self, tokens: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Each member's logits, `[members, batch, labels]`."""
        real = mask.to(tokens.dtype)
        if self.training and self.config.token_dropout:
            real = _drop_tokens(real, self.config.token_dropout)
        tokens = self._transform(tokens, real)
        scores = self.query(tokens).transpose(1, 2) + (1 - real).unsqueeze(1) * MASKED
        attended = (torch.softmax(scores, -1) @ tokens).view(
            tokens.shape[0], self.config.members, self.config.queries, -1
        )
        mean = (real / real.sum(1, keepdim=True)).unsqueeze(1) @ tokens
        means = mean.unsqueeze(1).expand(-1, self.config.members, -1, -1)
        pooled = torch.cat([attended, means], 2).flatten(2).transpose(0, 1)
        hidden = nn.functional.gelu(self.dropout(pooled) @ self.hidden + self.hidden_bias)
        logits: Tensor = self.dropout(hidden) @ self.output + self.output_bias
        return logits if self.ngrams is None else logits + self.ngrams(ids, real)


class ConvolutionHead(AttentionHead):
    """The same with a convolution over three tokens before pooling (Kim 2014, arXiv:1408.5882).

    Negation and intensity stand beside the word that they turn; a pooling of tokens one by one
    sees them only as far as the encoder has mixed them in.
    """

    def _features(self, config: HeadConfig) -> int:
        self.convolution = nn.Linear(config.width, 3 * config.channels)
        return config.channels

    def _transform(self, mixed: Tensor, real: Tensor) -> Tensor:
        # One matrix product for all three taps, then shifted sums: faster than Conv1d everywhere.
        taps = self.convolution(mixed) * real.unsqueeze(2)
        before, here, after = taps.chunk(3, 2)
        before = nn.functional.pad(before, (0, 0, 1, 0))[:, :-1]
        after = nn.functional.pad(after, (0, 0, 0, 1))[:, 1:]
        features: Tensor = nn.functional.gelu(before + here + after)
        return features


def _uniform(members: int, rows: int, columns: int) -> Tensor:
    """Weights as `nn.Linear` draws them."""
    return torch.empty(members, rows, columns).uniform_(-(rows**-0.5), rows**-0.5)


def _drop_tokens(real: Tensor, share: float) -> Tensor:
    """The mask without some of its tokens; a text that would lose all keeps them."""
    kept = real * (torch.rand_like(real) >= share)
    return torch.where(kept.sum(1, keepdim=True) > 0, kept, real)
