"""Depth 0: a static table of token vectors in the place of the encoder.

A head that reads no transformer layer needs neither positions nor the embedding layer's full width.
So the embedding layer encodes each token of the vocabulary alone, and its outputs are kept in their
principal directions: a table of a third of the size, whose rows are all that runs before the heads.
(The step from a transformer to such a table is that of model2vec, whose vectors are taken behind
the last layer; for heads that learn, those of the embeddings were better by a point of accuracy on
SST-2.)
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from mtl_edge.batches.planning import TOKENS_PER_BATCH

__all__ = ["WIDTH", "StaticEncoder", "distilled", "load_static"]

WIDTH = 128


class StaticEncoder(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A table of token vectors in the place of an encoder."""

    config_class = PretrainedConfig
    _supports_sdpa = True  # it attends to nothing, in whatever way

    def __init__(self, config: PretrainedConfig, vectors: Tensor) -> None:
        """
        Args:
            config: of the encoder whose tokens these are.
            vectors: float32 `[vocabulary, width]`.
        """
        super().__init__(config)
        self.tokens = nn.Embedding(len(vectors), vectors.shape[1], _weight=vectors)
        self.train(False)
        self.requires_grad_(False)

    @property
    def vectors(self) -> Tensor:
        """float32 `[vocabulary, width]`."""
        return self.tokens.weight

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.tokens(input_ids))


@torch.no_grad()  # not inference mode: a user may let the table learn
def distilled(encoder: PreTrainedModel, vocabulary: int, width: int = WIDTH) -> StaticEncoder:
    """The embedding layer's output for each token alone, in at most `width` principal directions.

    Args:
        encoder: with all transformer layers removed; its configuration is kept.
    """
    place = next(encoder.parameters()).device
    ids = torch.arange(vocabulary, device=place).unsqueeze(1)
    alone = [
        encoder(input_ids=some, attention_mask=torch.ones_like(some)).last_hidden_state[:, 0]
        for some in torch.split(ids, TOKENS_PER_BATCH)
    ]
    vectors = _principal(torch.cat(alone).cpu().double(), width).float()
    config = copy.deepcopy(encoder.config)
    config.architectures = [StaticEncoder.__name__]
    return StaticEncoder(config, vectors)


def _principal(vectors: Tensor, width: int) -> Tensor:
    """Centred, along the directions of largest variance, and of variance 1 on the whole.

    The same wherever it is computed: each direction's sign is that of its largest number.
    """
    centred = vectors - vectors.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions.flip(1)[:, :width]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    found: Tensor = centred @ (directions * largest.sign())
    return found / found.std().clamp(min=1e-12)


def load_static(config: PretrainedConfig, weights: Path) -> StaticEncoder:
    """The table that `save_pretrained` wrote.

    Raises:
        KeyError, OSError, SafetensorError: it cannot be read.
    """
    vectors = safetensors.torch.load_file(weights)["tokens.weight"]
    return StaticEncoder(config, vectors)
