"""Backbone and heads as one module: what export captures and what fp32 figures are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_edge.planning import pad, plan
from mtl_edge.training.heads import MixedAttentionHead

__all__ = ["MultiTaskModel", "logits_of"]


class MultiTaskModel(nn.Module):
    """One pass of the encoder, every task's logits."""

    def __init__(self, encoder: nn.Module, heads: Mapping[str, MixedAttentionHead]) -> None:
        super().__init__()
        self.encoder = encoder
        # A list, not a ModuleDict: a task may have any name, and a submodule may not.
        self.heads = nn.ModuleList(heads.values())
        self.tasks = tuple(heads)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Logits `[batch, labels]` in the order of `tasks`, for inputs `[batch, tokens]`."""
        states = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        ).hidden_states
        return tuple(head(states, attention_mask) for head in self.heads)


@torch.inference_mode()
def logits_of(
    model: MultiTaskModel, ids: Sequence[Sequence[int]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Logits `[n, labels]` per task, for texts given as token ids."""
    model.eval()
    order: list[int] = []
    parts: list[tuple[Tensor, ...]] = []
    for batch in plan([len(tokens) for tokens in ids]):
        order += batch
        input_ids, mask = pad([ids[position] for position in batch])
        parts.append(model(torch.from_numpy(input_ids), torch.from_numpy(mask)))
    back = np.argsort(order)
    return {
        task: torch.cat([part[i] for part in parts]).numpy()[back]
        for i, task in enumerate(model.tasks)
    }
