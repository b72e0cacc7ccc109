"""The least time that a pass can take: a roofline of operations and bytes.

As in Williams, Waterman and Patterson 2009 ("Roofline: an insightful visual performance model for
multicore architectures"), a pass takes at least the time of its operations at the machine's rate,
and at least that of the bytes that it has to read at the rate of reading; the larger is the floor.

Counted are operations that any way to compute the same takes: the encoder's products with weights
and attention's two, in the precision of the graph, and each weight of the heads once a text. Bytes
are those of the weights, once, and of the rows looked up. The state of all tokens is added, written
and read once a layer, only where it is larger than the last cache: a smaller one can stay there.
Softmax, norms, GELU, quantization and pooling are left out: a floor has none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_edge.benchmarks.limits.rates import Limits
from mtl_edge.benchmarks.limits.weights import Weights, weights_of
from mtl_edge.bundle import Bundle, Graph

__all__ = [
    "BYTES",
    "FEED_FORWARD",
    "Floor",
    "Work",
    "floor_ms",
    "floor_of",
    "operations",
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
class Floor:
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

    @property
    def bound(self) -> str:
        """What the floor is made of."""
        return "operations" if self.by_operations >= self.by_bytes else "bytes"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bound": self.bound}


def operations(bundle: Bundle, shapes: Sequence[Shape]) -> float | None:
    """Multiplications and additions of the encoder's matrix products, padding included.

    Products with weights and attention's two of states, for batches of `(texts, tokens)`; none if
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


def floor_of(
    work: Work, tops: float, read_at: Callable[[float], float], cache: int | None
) -> Floor:
    """The floor under some work.

    Args:
        tops: tera-operations a second.
        read_at: gigabytes a second, where so many bytes are read in each pass.
        cache: bytes of the last cache; none: not known, and states are taken to fit.
    """
    moved = cache is not None and work.state > cache
    size = work.weight_bytes + (work.state_bytes if moved else 0.0)
    by_operations = work.operations / tops / 1e9
    by_bytes = size / read_at(size) / 1e6
    return Floor(
        max(by_operations, by_bytes), by_operations, by_bytes, work.operations, size, moved
    )


def floor_ms(
    bundle: Bundle,
    graph: Graph,
    batch: int,
    tokens: int,
    limits: Limits,
    weights: Weights | None = None,
) -> Floor | None:
    """The floor under one pass of a graph on `batch` texts of `tokens` tokens.

    Args:
        weights: of the graph, if they were read before.

    Returns:
        None where config.json does not tell the sizes: see `operations`.
    """
    work = work_of(bundle, graph, batch, tokens, weights=weights)
    if work is None:
        return None
    return floor_of(work, limits.tops(graph.precision), limits.read_at, limits.cache)
