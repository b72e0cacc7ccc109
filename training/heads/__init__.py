"""Heads: encoder states to a task's logits. One table, one small interface.

A head is a module with `config` and `forward(states, mask, ids) -> logits`. `states` is one float32
`[batch, tokens, width]` for the embeddings and each layer; `mask` is `[batch, tokens]` with 1 where
there is a token and 0 where there is padding; `ids` are the tokens, int64 `[batch, tokens]`; logits
are `[batch, labels]`. A head is also a part of the exported graph, so it uses only what both
engines run well.
"""

from __future__ import annotations

from mtl_edge.training.heads.attention import AttentionHead
from mtl_edge.training.heads.build import (
    DEFAULT_HEAD,
    HEAD_FOR_FEW,
    HEADS,
    build_head,
    head_config,
)
from mtl_edge.training.heads.head import MASKED, Head, HeadConfig
from mtl_edge.training.heads.layer_mix import LayerMix, MixingHead
from mtl_edge.training.heads.ngrams import FACTORS, LONGEST_NGRAM, NgramTable, hashes_of, packed
from mtl_edge.training.heads.pooled import LinearHead, Setting

__all__ = [
    "DEFAULT_HEAD",
    "FACTORS",
    "HEADS",
    "HEAD_FOR_FEW",
    "LONGEST_NGRAM",
    "MASKED",
    "AttentionHead",
    "Head",
    "HeadConfig",
    "LayerMix",
    "LinearHead",
    "MixingHead",
    "NgramTable",
    "Setting",
    "build_head",
    "hashes_of",
    "head_config",
    "packed",
]
