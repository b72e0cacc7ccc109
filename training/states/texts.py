"""States of many texts, as heads read them: in batches, padded, or as means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_edge.batches.planning import Tokens, pad
from mtl_edge.training.states.encoder import Values

__all__ = ["States"]


class States:
    """Every layer's states of every token of many texts.

    Text `i` has `lengths[i]` rows from `starts[i]` of the array `shards[owners[i]]`, which is
    float16 `[tokens, layers + 1, width]`; ten bits of fraction keep what heads can tell apart.
    Where a state is beyond 65,504, the most that float16 holds, it is float32. `ids[i]` are its
    tokens.

    Attributes:
        token_vectors: float32 `[vocabulary, width]`, what heads of depth 0 read in the place of
            the embeddings' states: see `mtl_edge.training.static`; none: those states themselves.
    """

    def __init__(
        self,
        shards: Sequence[Values],
        owners: Sequence[int],
        starts: Sequence[int],
        ids: Sequence[Tokens],
    ) -> None:
        self.token_vectors: Tensor | None = None
        self._shards = shards
        self._owners = np.asarray(owners, np.int32)
        self._starts = np.asarray(starts, np.int64)
        self._ids = [np.asarray(tokens, np.int32) for tokens in ids]
        self.lengths = np.array([len(tokens) for tokens in self._ids], np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, position: int) -> Values:
        """One text's states, `[tokens, layers + 1, width]`."""
        start = self._starts[position]
        shard = self._shards[self._owners[position]]
        values: Values = shard[start : start + self.lengths[position]]
        return values

    def batch(
        self,
        positions: Sequence[int],
        states: int | None = None,
        place: torch.device | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """What a head takes: states of the first `states` layers, embeddings included, and tokens.

        Args:
            place: where the tensors shall be; default: the CPU.

        Returns:
            One float32 `[batch, tokens, width]` a layer; the mask, float32 `[batch, tokens]`; the
            tokens' ids, int64 of the same shape.
        """
        arrays = pad([self._ids[position] for position in positions])
        ids, mask = (torch.from_numpy(array).to(place) for array in arrays)
        mask = mask.float()
        if states == 1 and self.token_vectors is not None:
            return self.layers_read_by(1, (), ids), mask, ids
        texts = [self.of(position)[:, :states] for position in positions]
        kind = np.result_type(*{text.dtype for text in texts})
        padded = np.zeros((*ids.shape, *texts[0].shape[1:]), kind)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        layers = torch.from_numpy(padded).to(place).permute(2, 0, 1, 3).float().unbind(0)
        return layers, mask, ids

    def layers_read_by(
        self, states: int, layers: tuple[Tensor, ...], ids: Tensor
    ) -> tuple[Tensor, ...]:
        """Of a batch with as many states a token or more, those that a head of `states` reads."""
        if states == 1 and self.token_vectors is not None:
            return (nn.functional.embedding(ids, self.token_vectors.to(ids.device)),)
        return layers[:states]

    def means(self, positions: Sequence[int], depth: int) -> npt.NDArray[np.float32]:
        """The mean over tokens of a model's last layer, `[positions, width]`: what most would pool.

        Args:
            depth: how many layers the model has.
        """
        if depth == 0 and self.token_vectors is not None:
            table = self.token_vectors.cpu().numpy()
            return np.stack([table[self._ids[p]].mean(0) for p in positions])
        return np.stack([self.of(p)[:, depth].mean(0, dtype=np.float32) for p in positions])
