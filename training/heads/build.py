"""The table of heads, and how a head is named, configured and built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mtl_edge.errors import OptionError
from mtl_edge.training.heads.attention import AttentionHead, ConvolutionHead
from mtl_edge.training.heads.head import Head, HeadConfig
from mtl_edge.training.heads.pooled import POOLINGS, LinearHead, MlpHead, NormalizedHead

__all__ = ["DEFAULT_HEAD", "HEADS", "HEAD_FOR_FEW", "build_head", "head_config"]

QUERIES_WITHOUT_LAYERS = 2

HEADS: Mapping[str, type[Head]] = {
    "attention": AttentionHead,
    "convolution": ConvolutionHead,
    "linear": LinearHead,
    "mlp": MlpHead,
    "normalized": NormalizedHead,
}

# Up to so many labels a table of n-grams has a column a label. Beyond them it has fewer buckets and
# a rank: up to 256 labels it takes as much time, memory and space as the table of four does.
MOST_COLUMNS = 8
BUCKETS, LABELS_A_RANK, RANKS = 2**17, 16, (16, 64)
# Where layers have read the context, such a table helps little, and learns the rows by heart.
NGRAM_DROPOUT = 0.9

DEFAULT_HEAD = "attention"
HEAD_FOR_FEW = "normalized"  # see `mtl_edge.training.few`


def head_config(
    spec: str, *, states: int, width: int, labels: int, relative: bool = True
) -> HeadConfig:
    """A configuration from how a user names a head: `attention`, `linear:cls`, `mlp:max`, ...

    Raises:
        OptionError: there is no such head or pooling.
    """
    kind, _, pooling = spec.partition(":")
    if kind not in HEADS:
        raise OptionError(f"--head {spec!r}: unknown; there are {', '.join(HEADS)}")
    config = HeadConfig(states=states, width=width, labels=labels, kind=kind, relative=relative)
    if states == 1:  # states of tokens without context: fewer queries are as good
        config = replace(config, queries=QUERIES_WITHOUT_LAYERS)
    if labels > MOST_COLUMNS:
        rank = min(max(labels // LABELS_A_RANK, RANKS[0]), RANKS[1])
        config = replace(config, buckets=BUCKETS, rank=rank)
        if states > 1:
            config = replace(config, ngram_dropout=NGRAM_DROPOUT)
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
