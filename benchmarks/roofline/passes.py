"""The least time that a pass can take: a roofline of operations and bytes.

As in Williams, Waterman and Patterson 2009 ("Roofline: an insightful visual performance model for
multicore architectures"), a pass takes at least the time of its operations at the machine's rate,
and at least that of the bytes that it has to read at the rate of reading; the larger bounds it.

Counted are operations that any way to compute the same takes: the encoder's products with weights
and attention's two, in the precision of the graph, and each weight of the heads once a text. Bytes
are those of the weights, once, and of the rows looked up. The state of all tokens is added, written
and read once a layer, only where it is larger than the last cache: a smaller one can stay there.
Softmax, norms, GELU, quantization and pooling are left out: the bound has none of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mtl_edge.benchmarks.roofline.rates import MachineLimits
from mtl_edge.benchmarks.roofline.weights import Weights, weights_of
from mtl_edge.bundle import Bundle, Graph

__all__ = [
    "BYTES",
    "FEED_FORWARD",
    "Roofline",
    "Work",
    "operations",
    "roofline",
    "work_of",
]

Shape = tuple[int, int]
# What encoders call the width of their feed-forward layers.
FEED_FORWARD = ("intermediate_size", "hidden_dim", "ffn_dim", "d_ff")
BYTES = {"int8": 1, "fp16": 2, "bf16": 2, "tf32": 4, "fp32": 4}  # of a number


@dataclass(frozen=True, slots=True)
class Work:
    """What a pass has to do.

    Attributes:
        operations: multiplications and additions.
        weight_bytes: of weights and rows.
        state_bytes: of the states between layers, written and read.
        state: bytes of one such state.
    """

    operations: float
    weight_bytes: float
    state_bytes: float
    state: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least time of a pass, in milliseconds.

    Attributes:
        ms: the larger of the two below.
        by_operations: that the operations take.
        by_bytes: that moving the bytes takes.
        states_moved: whether the states between layers are among the bytes.
    """

    ms: float
    by_operations: float
    by_bytes: float
    operations: float
    bytes: float
    states_moved: bool


def operations(bundle: Bundle, shapes: Sequence[Shape]) -> float | None:
    """Multiplications and additions of the encoder's matrix products, padding included.

    Products with weights and attention's two of states, for batches of `(texts, tokens)`; None if
    the bundle's config.json does not tell the width of the feed-forward layers.
    """
    config = json.loads(bundle.file("config.json").read_text(encoding="utf-8"))
    wide = next((config[name] for name in FEED_FORWARD if name in config), None)
    if wide is None:
        return None
    width, layers = bundle.manifest.backbone.hidden_size, bundle.manifest.depth
    weights = 4 * width * width + 2 * width * wide
    return float(
        sum(layers * texts * tokens * (2 * weights + 4 * width * tokens)
            for texts, tokens in shapes)
    )  # fmt: skip


def work_of(
    bundle: Bundle,
    graph: Graph,
    batch: int,
    tokens: int,
    *,
    precision: str | None = None,
    weights: Weights | None = None,
) -> Work | None:
    """What a pass of `batch` texts of `tokens` tokens has to do; none: see `operations`.

    Args:
        precision: to compute in, if not the graph's.
        weights: of the graph, if they were read before.
    """
    products = operations(bundle, [(batch, tokens)])
    if products is None:
        return None
    read, width = weights or weights_of(bundle, graph), bundle.manifest.backbone.hidden_size
    if precision in (None, graph.precision):
        size = read.encoder_bytes + read.heads_bytes + batch * tokens * read.row_bytes
    else:
        size = BYTES[precision] * (read.encoder + read.heads + batch * tokens * width)
    state = BYTES[precision or graph.precision] * batch * tokens * width
    return Work(
        operations=products + 2.0 * batch * read.heads,
        weight_bytes=float(size),
        state_bytes=2.0 * bundle.manifest.depth * state,
        state=float(state),
    )


def roofline(work: Work, precision: str, limits: MachineLimits) -> Roofline:
    """The least time of some work in a precision."""
    # Where the size of the cache is not known, states are assumed to fit.
    moved = limits.cache is not None and work.state > limits.cache
    size = work.weight_bytes + (work.state_bytes if moved else 0.0)
    by_operations = work.operations / limits.rate(precision) / 1e9
    by_bytes = size / limits.read_at(size) / 1e6
    return Roofline(
        max(by_operations, by_bytes), by_operations, by_bytes, work.operations, size, moved
    )
