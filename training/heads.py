"""Heads: encoder states to a task's logits. One table, one small interface.

A head is a module with `config` and `forward(states, mask, ids) -> logits`. `states` is one float32
`[batch, tokens, width]` for the embeddings and each layer; `mask` is `[batch, tokens]` with 1 where
there is a token and 0 where there is padding; `ids` are the tokens, int64 `[batch, tokens]`; logits
are `[batch, labels]`. A head is also a part of the exported graph, so it uses only what both
engines run well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mtl_edge.errors import OptionError

__all__ = [
    "DEFAULT_HEAD",
    "HEADS",
    "Head",
    "HeadConfig",
    "LayerMix",
    "MASKED",
    "AttentionHead",
    "MixingHead",
    "NgramTable",
    "build_head",
    "hashes_of",
    "head_config",
    "packed",
]

MASKED = -1e4
LONGEST_NGRAM = 3
# Multipliers of the hash. OpenVINO computes integers in float32, so with ids below 2 ** 18 every
# intermediate value has to stay below 2 ** 24, and the number of buckets is a power of two.
FACTORS = (13, 31)
NGRAM_RATE = 10.0
QUERIES_WITHOUT_LAYERS = 2


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Everything needed to build a head again.

    Attributes:
        states: how many states of each token come in: the embeddings' and one per layer.
        width: of a state.
        kind: an entry of `HEADS`.
        pooling: of `linear` and `mlp`: `cls`, `mean` or `max`.
        members: of `attention` and `convolution`: small heads whose logits are averaged.
        queries: learned questions that attention pooling asks of the tokens, of each member.
        channels: of `convolution`.
        hidden: width of the hidden layer, of each member.
        token_dropout: share of tokens that a head does not see in a training step.
        buckets: of the table of n-grams; 0: no such table.
        ngram_dropout: share of n-grams that a head does not see in a training step.
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
    ngram_dropout: float = 0.7

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Head(nn.Module):
    """What all heads share."""

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
        """What learning lowers: `criterion` of the logits and the labels' positions."""
        loss: Tensor = criterion(self(states, mask, ids), targets)
        return loss

    def finish(self) -> None:
        """Called when learning is over: brings weights to what export can keep in a byte each."""

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates, as optimizers take them."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]


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


class NgramTable(nn.Module):
    """What each n-gram of tokens speaks for: one row of logits each, looked up by its hash.

    The wide part beside the deep one (Cheng et al. 2016, arXiv:1606.07792), with the bigrams that
    carried naive Bayes so far (Wang & Manning 2012): it knows the words that a frozen encoder has
    smoothed away. Hashing is that of Weinberger et al. 2009 (arXiv:0902.2206).
    """

    def __init__(self, buckets: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, labels))
        self.dropout = dropout

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """Sum over the n-grams of each text, divided by the root of their number."""
        sums = []
        hashes, there = hashes_of(ids, real, len(self.weight))
        for places, present in zip(hashes, there, strict=True):
            seen = present
            if self.training and self.dropout:
                seen = present * (torch.rand_like(present) >= self.dropout) / (1 - self.dropout)
            rows = nn.functional.embedding(places, self.weight)
            sums.append((seen.unsqueeze(1) @ rows).squeeze(1))
        return torch.stack(sums).sum(0) / torch.cat(there, 1).sum(1, keepdim=True).sqrt()

    @torch.no_grad()
    def finish(self) -> None:
        """Speak relative to the last label, which softmax cannot tell, in a byte a number."""
        self.weight.copy_(rounded(self.weight - self.weight[:, -1:], 0))


def packed(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """int8 codes and what to multiply them by, one scale for all along `dim`.

    Exact where the numbers are `rounded` already.
    """
    scale = weight.detach().abs().amax(dim, keepdim=True).clamp(min=1e-8) / 127
    return (weight.detach() / scale).round().to(torch.int8), scale


def rounded(weight: Tensor, dim: int) -> Tensor:
    """The nearest numbers that a byte each can hold, with one scale for all along `dim`."""
    codes, scale = packed(weight, dim)
    return codes * scale


def hashes_of(ids: Tensor, real: Tensor, buckets: int) -> tuple[list[Tensor], list[Tensor]]:
    """For n-grams of 1, 2, ... tokens, one ending at each token: its bucket, and 1 if it is there.

    Returns:
        int64 and float32 `[batch, tokens]`, one a length.
    """
    hashes, there = [ids % buckets], [real]
    for length in range(2, LONGEST_NGRAM + 1):
        # It continues the one that ended a token before, and is there if that one was.
        hashes.append((_earlier(hashes[-1]) * FACTORS[0] + ids * FACTORS[1] + length) % buckets)
        there.append(_earlier(there[-1]) * real)
    return hashes, there


def _earlier(values: Tensor) -> Tensor:
    """Each token's predecessor; 0 before the first."""
    return nn.functional.pad(values, (1, 0))[:, :-1]


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
        self.hidden = nn.Parameter(_drawn(members, features, config.hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(members, 1, config.hidden))
        self.output = nn.Parameter(_drawn(members, config.hidden, config.labels))
        self.output_bias = nn.Parameter(torch.zeros(members, 1, config.labels))
        self.dropout = nn.Dropout(config.dropout)
        self.ngrams = (
            NgramTable(config.buckets, config.labels, config.ngram_dropout)
            if config.buckets
            else None
        )

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        table = [] if self.ngrams is None else list(self.ngrams.parameters())
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
        loss: Tensor = criterion(logits.flatten(0, 1), targets.repeat(len(logits)))
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
        asked = (torch.softmax(scores, -1) @ tokens).view(
            tokens.shape[0], self.config.members, self.config.queries, -1
        )
        mean = (real / real.sum(1, keepdim=True)).unsqueeze(1) @ tokens
        means = mean.unsqueeze(1).expand(-1, self.config.members, -1, -1)
        pooled = torch.cat([asked, means], 2).flatten(2).transpose(0, 1)
        hidden = nn.functional.gelu(self.dropout(pooled) @ self.hidden + self.hidden_bias)
        logits: Tensor = self.dropout(hidden) @ self.output + self.output_bias
        return logits if self.ngrams is None else logits + self.ngrams(ids, real)


def _drawn(members: int, rows: int, columns: int) -> Tensor:
    """Weights as `nn.Linear` draws them."""
    return torch.empty(members, rows, columns).uniform_(-(rows**-0.5), rows**-0.5)


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

HEADS: Mapping[str, type[Head]] = {
    "attention": AttentionHead,
    "convolution": ConvolutionHead,
    "linear": LinearHead,
    "mlp": MlpHead,
}

DEFAULT_HEAD = "attention"


def head_config(spec: str, *, states: int, width: int, labels: int) -> HeadConfig:
    """A configuration from how a user names a head: `attention`, `linear:cls`, `mlp:max`, ...

    Raises:
        OptionError: there is no such head or pooling.
    """
    kind, _, pooling = spec.partition(":")
    if kind not in HEADS:
        raise OptionError(f"--head {spec!r}: unknown; there are {', '.join(HEADS)}")
    config = HeadConfig(states=states, width=width, labels=labels, kind=kind)
    if states == 1:  # tokens know nothing of each other yet, and there is less to ask of them
        config = replace(config, queries=QUERIES_WITHOUT_LAYERS)
    if kind == "mlp":
        config = replace(config, hidden=config.members * config.hidden)
    if not pooling:
        return config
    if pooling not in POOLINGS or kind not in ("linear", "mlp"):
        raise OptionError(
            f"--head {spec!r}: linear and mlp take one of :{', :'.join(POOLINGS)}, the others none"
        )
    if states == 1 and pooling == "cls":
        raise OptionError(
            f"--head {spec!r}: without layers the first token is the same whatever the text; take "
            f"{kind}:mean, or a depth of 1 or more"
        )
    return replace(config, pooling=pooling)


def build_head(config: HeadConfig) -> Head:
    """A head with fresh weights, drawn from torch's generator."""
    return HEADS[config.kind](config)


def _drop_tokens(real: Tensor, share: float) -> Tensor:
    """The mask without some of its tokens; a text that would lose all keeps them."""
    kept = real * (torch.rand_like(real) >= share)
    return torch.where(kept.sum(1, keepdim=True) > 0, kept, real)
