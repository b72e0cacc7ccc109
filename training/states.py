"""Encoder states, computed once and read many times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mtl_edge.planning import pad, plan
from mtl_edge.training.progress import Progress

__all__ = ["States", "encode"]


class States:
    """Every layer's states of every token of many texts, on disk.

    Text `i` has the rows `offsets[i]:offsets[i + 1]` of an array `[tokens, layers + 1, width]` of
    float16, in which ten bits of fraction keep what the heads can tell apart.
    """

    def __init__(self, values: npt.NDArray[np.float16], offsets: npt.NDArray[np.int64]) -> None:
        self._values = values
        self._offsets = offsets
        self.lengths = np.diff(offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, positions: Sequence[int]) -> tuple[tuple[Tensor, ...], Tensor]:
        """States, one float32 `[batch, tokens, width]` a layer, and the mask `[batch, tokens]`."""
        longest = int(self.lengths[list(positions)].max())
        padded = np.zeros((len(positions), longest, *self._values.shape[1:]), np.float16)
        mask = np.zeros((len(positions), longest), np.float32)
        for row, position in enumerate(positions):
            start, end = self._offsets[position], self._offsets[position + 1]
            padded[row, : end - start] = self._values[start:end]
            mask[row, : end - start] = 1
        layers = torch.from_numpy(padded).permute(2, 0, 1, 3).float().unbind(0)
        return layers, torch.from_numpy(mask)

    def means(self) -> npt.NDArray[np.float32]:
        """The last layer's mean over tokens, `[texts, width]`: what most users would pool."""
        last = self._values[:, -1]
        return np.stack(
            [
                last[start:end].mean(0, dtype=np.float32)
                for start, end in zip(self._offsets, self._offsets[1:], strict=False)
            ]
        )


@torch.inference_mode()
def encode(encoder: PreTrainedModel, ids: Sequence[Sequence[int]], file: Path) -> States:
    """Run a frozen encoder over texts given as token ids; the states go to `file`.

    Batches hold texts of like length. The products run in bfloat16 where the CPU has it.
    """
    config = encoder.config
    lengths = [len(tokens) for tokens in ids]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    probe = encoder(torch.tensor([[0]]), output_hidden_states=True).hidden_states
    shape = (int(offsets[-1]), len(probe), config.hidden_size)
    values = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=_has_bfloat16())
    with Progress("encoding", total=len(ids), unit="texts") as progress:
        for batch in plan(lengths):
            input_ids, mask = pad([ids[position] for position in batch])
            with autocast:
                states = encoder(
                    input_ids=torch.from_numpy(input_ids),
                    attention_mask=torch.from_numpy(mask),
                    output_hidden_states=True,
                ).hidden_states
            stacked = torch.stack([s.half() for s in states], 2).numpy()
            for row, position in enumerate(batch):
                start, end = offsets[position], offsets[position + 1]
                values[start:end] = stacked[row, : end - start]
            progress.update(len(batch))
    return States(values, offsets)


def _has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself; emulation would be slower than fp32."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
