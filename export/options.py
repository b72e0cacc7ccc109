"""What a user may ask of an export: each option with its type and default, in this one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from mtl_edge.errors import OptionError
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.states import CACHE_LIMIT, default_cache

__all__ = ["ExportOptions", "changed"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `mtl-edge export`, by the names that they have on the command line.

    Attributes:
        targets: graphs to make, names of `mtl_edge.export.targets.TARGETS`.
        depth: layers of the encoder; `auto`: the fewest that lose at most `max_accuracy_drop` on
            the validation rows; none: all that were trained.
        calibration: file of texts whose activations set the int8 scales; none: the checkpoint's.
        refit: files of texts that the heads of int8 graphs are fitted on once more.
        vocabulary: files of texts whose tokens alone keep their embeddings in int8 graphs; none:
            all tokens do.
        embeddings: bits a number of the word table takes in int8 graphs.
        with_tokenizer: also write graphs that take strings.
        ort: also write ONNX Runtime's own format.
        reduce_range: of onnx-int8: weights in 7 bits.
        keep_worst: of onnx-int8: products that stay float32, the noisiest first.
        max_accuracy_drop: points of accuracy that a graph may lose to the torch model.
        budget: limits to search the best bundle within: see `mtl_edge.export.budget_search.budget`.
        exits: depths of the early exits; `auto`: those that pay; none: no early exit.
        exit_drop: points of accuracy that early exits may lose to full depth.
        exit_confidence: percent, that they lose no more.
        cache: folder of encoder states.
        cache_limit: gigabytes that it may take.
        reading: how the files above are read.
    """

    targets: tuple[str, ...] = ("onnx-int8", "openvino-int8")
    depth: int | Literal["auto"] | None = None
    calibration: Path | None = None
    refit: tuple[Path, ...] = ()
    vocabulary: tuple[Path, ...] = ()
    embeddings: Literal["8bit", "4bit"] = "8bit"
    with_tokenizer: bool = False
    ort: bool = False
    reduce_range: bool = False
    keep_worst: int = 0
    max_accuracy_drop: float = 0.5
    budget: str | None = None
    exits: tuple[int, ...] | Literal["auto"] | None = None
    exit_drop: float = 0.3
    exit_confidence: float = 95.0
    cache: Path = field(default_factory=default_cache)
    cache_limit: float = CACHE_LIMIT / 10**9
    reading: ReadOptions = field(default_factory=ReadOptions)

    def given(self) -> list[str]:
        """Names of the options that are not at their default."""
        return changed(self, ExportOptions(), but=("reading",)) + changed(
            self.reading, ReadOptions()
        )

    def require_in_range(self) -> None:
        """
        Raises:
            OptionError: a number is out of range; those of early exits are not looked at.
        """
        if not self.max_accuracy_drop >= 0:
            raise OptionError(
                f"--max-accuracy-drop is {self.max_accuracy_drop}, expected 0 or more"
            )
        if not 0 < self.cache_limit < math.inf:
            raise OptionError(
                f"--cache-limit is {self.cache_limit}, expected gigabytes, more than 0"
            )
        if self.keep_worst < 0:
            raise OptionError(f"--keep-worst is {self.keep_worst}, expected 0 or more")


def changed(values: object, defaults: object, but: tuple[str, ...] = ()) -> list[str]:
    """Names of a dataclass's fields, but for some, that differ from those of `defaults`."""
    names = [f.name for f in fields(defaults) if f.name not in but]  # type: ignore[arg-type]
    return [name for name in names if getattr(values, name) != getattr(defaults, name)]
