"""Options of an export as those who build graphs take them: files read, units plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtl_edge.export.early_exit.exits import Promise
from mtl_edge.export.options import ExportOptions
from mtl_edge.training.states import CACHE_LIMIT, default_cache

__all__ = ["DEFAULTS", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """See `mtl_edge.export.options.ExportOptions` for those that have its names.

    Attributes:
        refit: texts that the heads of int8 graphs are fitted on: see `mtl_edge.export.int8.refit`.
        vocabulary: texts whose tokens alone keep a row in the word tables of int8 graphs; none:
            all do. See `mtl_edge.export.int8.word_table`.
        four_bits: whether those tables take four bits a number.
        promise: of early exits: see `mtl_edge.export.early_exit.exits`; none: there are none.
        cache_limit: bytes.
    """

    max_accuracy_drop: float = ExportOptions.max_accuracy_drop
    reduce_range: bool = ExportOptions.reduce_range
    keep_worst: int = ExportOptions.keep_worst
    refit: Sequence[str] = ()
    vocabulary: Sequence[str] = ()
    four_bits: bool = ExportOptions.embeddings == "4bit"
    with_tokenizer: bool = ExportOptions.with_tokenizer
    ort: bool = ExportOptions.ort
    promise: Promise | None = None
    cache: Path = field(default_factory=default_cache)
    cache_limit: int = CACHE_LIMIT


DEFAULTS = Settings()
