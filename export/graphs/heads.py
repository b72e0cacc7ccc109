"""Heads of equal shape joined into one, so that all tasks share one set of operators.

At batch 1 a small operator costs more than its arithmetic. Run one after another, two tasks' heads
have some 200 of them; together they have as many as one head alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_edge.training.heads import (
    MASKED,
    AttentionHead,
    Head,
    HeadConfig,
    NgramTable,
    hashes_of,
    packed,
)

__all__ = ["JoinedHeads"]


class JoinedHeads(nn.Module):
    """All heads of a model, those of one kind as one; same logits as one by one, up to rounding."""

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        groups: dict[HeadConfig, list[int]] = {}
        for place, head in enumerate(heads):
            if type(head) is AttentionHead:
                groups.setdefault(_shared_config(head.config), []).append(place)
        self._places = list(groups.values())
        self._count = len(heads)
        self.groups = nn.ModuleList(
            SharedHeads([heads[place] for place in places])  # type: ignore[misc]
            for places in self._places
        )
        joined = {place for places in self._places for place in places}
        self._others = [place for place in range(len(heads)) if place not in joined]
        self.others = nn.ModuleList(heads[place] for place in self._others)

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        """Logits `[batch, labels]` of each head, in their order."""
        logits: dict[int, Tensor] = {}
        for heads, places in zip(self.groups, self._places, strict=True):
            logits |= zip(places, heads(states, mask, ids), strict=True)
        for head, place in zip(self.others, self._others, strict=True):
            logits[place] = head(states, mask, ids)
        return tuple(logits[place] for place in range(self._count))


def _shared_config(config: HeadConfig) -> HeadConfig:
    """The configuration that heads must share to be joined: all but labels, tables, dropout."""
    values = {**config.to_json(), "labels": 0, "dropout": 0.0, "relative": True}
    values |= {"buckets": 0, "rank": 0}
    return HeadConfig(**{**values, "token_dropout": 0.0, "ngram_dropout": 0.0})


class SharedHeads(nn.Module):
    """Attention heads of one configuration, which differ in their labels alone, as one module.

    Shapes below: heads H, batch B, members M, queries Q, tokens T, width D. Where heads read a
    single state, they have nothing of their own to mix, and all read the same tokens: then they are
    one head with all their members, H is 1 and M is the members of all.
    """

    def __init__(self, heads: Sequence[AttentionHead]) -> None:
        super().__init__()
        config = heads[0].config
        self._config = config
        members = config.members
        self._attended = config.queries * config.width
        self._count, self._one_state = len(heads), config.states == 1
        self._members = (1, len(heads) * members) if self._one_state else (len(heads), members)

        self.mix = _stacked([torch.softmax(head.mix, 0) for head in heads])
        queries = _stacked([head.query.weight for head in heads])  # H MQ D
        self.query = _constant(self._joined(queries).unsqueeze(1))
        self.hidden = ByteWeights(self._joined(_stacked([head.hidden for head in heads])))
        self.hidden_bias = _constant(self._joined(_stacked([h.hidden_bias for h in heads])))
        # The mean over members is a part of the last product.
        self.outputs = nn.ParameterList(
            _constant(head.output.flatten(0, 1) / members) for head in heads
        )
        self.biases = nn.ParameterList(_constant(head.output_bias.mean(0)) for head in heads)
        self.ngrams = JoinedNgrams([head.ngrams for head in heads])

    def forward(self, states: Sequence[Tensor], mask: Tensor, ids: Tensor) -> list[Tensor]:
        config = self._config
        real = mask.to(states[0].dtype)
        if len(states) > 1:
            stack = torch.cat(list(states)).view(len(states), -1)
            tokens = (self.mix @ stack).view(-1, *states[0].shape)  # H B T D
        else:
            tokens = states[0].unsqueeze(0)
        penalty = ((1 - real) * MASKED).unsqueeze(1)  # B 1 T
        # ONNX Runtime takes a transposed factor into the product, where it would copy a product.
        shares = torch.softmax(self.query @ tokens.transpose(2, 3) + penalty, -1)  # H B MQ T
        attended = (shares @ tokens).view(self._members[0], -1, self._members[1], self._attended)
        mean = (real / real.sum(1, keepdim=True)).unsqueeze(1) @ tokens  # H B 1 D
        hidden = nn.functional.gelu(
            attended.transpose(1, 2) @ self.hidden(slice(None, self._attended))
            + mean.transpose(1, 2) @ self.hidden(slice(self._attended, None))
            + self.hidden_bias
        )  # H M B hidden
        hidden = hidden.view(self._count, config.members, -1, config.hidden)
        hidden = hidden.transpose(1, 2).flatten(2)  # of each head, B M*hidden
        logits = [
            hidden[place] @ output + bias
            for place, (output, bias) in enumerate(zip(self.outputs, self.biases, strict=True))
        ]
        for place, wide in self.ngrams(ids, real).items():
            logits[place] = logits[place] + wide
        return logits

    def _joined(self, values: Tensor) -> Tensor:
        """Values `[H, M, ...]` with all members as those of one head, if they read one state."""
        return values.flatten(0, 1).unsqueeze(0) if self._one_state else values


def _stacked(values: Sequence[Tensor]) -> nn.Parameter:
    return _constant(torch.stack(list(values)))


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)


class ByteWeights(nn.Module):
    """Several heads' weights, a byte a number where they have been rounded to it.

    Engines multiply the scales in when they load the graph.
    """

    def __init__(self, plain: Tensor) -> None:
        """
        Args:
            plain: `[heads, members, rows, columns]`, one scale a column.
        """
        super().__init__()
        codes, scales = packed(plain, 2)
        self.exact = torch.allclose(codes * scales, plain, rtol=1e-5, atol=1e-8)
        # A single matrix OpenVINO would take for a compressed layer's, and refuse its shape.
        self.exact &= plain.shape[:2].numel() > 1
        self.values = nn.Parameter(codes if self.exact else plain, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    def forward(self, rows: slice = slice(None)) -> Tensor:
        values = self.values[:, :, rows]
        return values.float() * self.scales if self.exact else values


class JoinedNgrams(nn.Module):
    """Several tasks' n-gram tables, those with as many buckets side by side as one."""

    def __init__(self, tables: Sequence[NgramTable | None]) -> None:
        """
        Args:
            tables: one a head, None where it has none.
        """
        super().__init__()
        by_buckets: dict[int, list[int]] = {}
        for place, table in enumerate(tables):
            if table is not None:
                by_buckets.setdefault(len(table.weight), []).append(place)
        self._places = list(by_buckets.values())
        self._most = max(by_buckets, default=0)
        self.tables = nn.ModuleList(
            ByteTable([tables[place] for place in places])  # type: ignore[misc]
            for places in self._places
        )

    def forward(self, ids: Tensor, real: Tensor) -> dict[int, Tensor]:
        """Logits `[batch, labels]` by place of the head, of heads that have a table."""
        if not self._places:
            return {}
        hashes, present = hashes_of(ids, real, self._most)
        places, seen = torch.cat(hashes, 1), torch.cat(present, 1)
        found: dict[int, Tensor] = {}
        for table, heads in zip(self.tables, self._places, strict=True):
            found |= zip(heads, table(places, seen, self._most), strict=True)
        return found


class ByteTable(nn.Module):
    """Tables with as many buckets side by side, a byte a number and a scale a column.

    Where logits are relative to a task's last label, it needs no column.
    """

    def __init__(self, tables: Sequence[NgramTable]) -> None:
        super().__init__()
        columns, maps = zip(*map(_columns, tables), strict=True)
        codes, scales = packed(torch.cat(columns, 1), 0)
        self._labels = [labels.shape[1] for labels in maps]
        self.codes = nn.Parameter(codes, requires_grad=False)
        spread = torch.block_diag(*maps)  # type: ignore[no-untyped-call]
        self.scales = nn.Parameter(scales.T * spread, requires_grad=False)

    def forward(self, hashes: Tensor, seen: Tensor, most: int) -> tuple[Tensor, ...]:
        """Each task's logits `[batch, labels]`, of n-grams hashed to `most` buckets."""
        buckets = self.codes.shape[0]
        # All are powers of two, so that a hash to fewer buckets is the rest of one to more.
        rows = self.codes[hashes if buckets == most else hashes % buckets].to(seen.dtype)
        total = (seen.unsqueeze(1) @ rows).squeeze(1)
        logits = total @ self.scales / seen.sum(1, keepdim=True).sqrt()
        return torch.split(logits, self._labels, 1)


def _columns(table: NgramTable) -> tuple[Tensor, Tensor]:
    """What a table has to keep `[buckets, columns]`, and what makes logits of it."""
    weight = table.weight.detach()
    if table.projection is not None:
        return weight, table.projection.detach()
    own = torch.eye(weight.shape[1])
    return ((weight - weight[:, -1:])[:, :-1], own[:-1]) if table.relative else (weight, own)
