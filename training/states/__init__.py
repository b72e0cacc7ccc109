"""Encoder states, computed once and kept on disk.

A frozen encoder gives the same states for the same tokens, whatever is learnt from them, so they
are kept in a cache that all runs share:

    CACHE/SPACE/ID.npy        values: float16 or float32 [tokens, layers + 1, width]
    CACHE/SPACE/ID.index.npy  texts in it: 16 bytes of key, first row, number of rows

SPACE is a digest of everything besides the tokens that decides the states: weights, configuration,
precision, attention; or the quantized graph. A text's key is a digest of its token ids, and so of
text, tokenizer and maximum tokens. A shard is written under another name, then renamed, its index
last: a killed run loses the shard it was at and a later one goes on from there; two runs at once
never write to the same file, at worst both compute the same shard. States are read through a memory
map, so a corpus may be larger than memory.
"""

from __future__ import annotations

from mtl_edge.training.states.cache import CACHE_LIMIT, StateCache, default_cache
from mtl_edge.training.states.encoder import Encoder, Kind, TorchEncoder, Values, digest
from mtl_edge.training.states.texts import States

__all__ = [
    "CACHE_LIMIT",
    "Encoder",
    "Kind",
    "StateCache",
    "States",
    "TorchEncoder",
    "Values",
    "default_cache",
    "digest",
]
