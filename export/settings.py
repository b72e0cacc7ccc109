"""What a user may ask of an export besides its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtl_edge.export.exits import Promise
from mtl_edge.training.states import CACHE_LIMIT, default_cache

__all__ = ["DEFAULTS", "MAX_ACCURACY_DROP", "Settings"]

MAX_ACCURACY_DROP = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Attributes:
        max_accuracy_drop: see `mtl_edge.export.proof.evaluate`.
        reduce_range: of onnx-int8: weights in 7 bits, for CPUs whose int8 products overflow.
        keep_worst: of onnx-int8: how many products stay float32, those that int8 adds most noise
            to.
        refit: texts like those that will be asked, on which the heads of int8 graphs are fitted
            once more: see `mtl_edge.export.refit`.
        vocabulary: texts whose tokens alone keep a row in the word tables of int8 graphs; none:
            all do. See `mtl_edge.export.smaller`.
        four_bits: whether those tables take four bits a number.
        with_tokenizer: whether to add graphs that take strings: see `mtl_edge.export.text_graph`.
        ort: whether to add ONNX Runtime's own format: see `mtl_edge.export.ort_format`.
        promise: of cheaper stages: see `mtl_edge.export.exits`; none: the bundle has no such stage.
        cache, cache_limit: of the states that `refit` takes: see `mtl_edge.training.states`.
    """

    max_accuracy_drop: float = MAX_ACCURACY_DROP
    reduce_range: bool = False
    keep_worst: int = 0
    refit: Sequence[str] = ()
    vocabulary: Sequence[str] = ()
    four_bits: bool = False
    with_tokenizer: bool = False
    ort: bool = False
    promise: Promise | None = None
    cache: Path = field(default_factory=default_cache)
    cache_limit: int = CACHE_LIMIT


DEFAULTS = Settings()
