"""What a training run is told besides its rows and its backbone: the one place for defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtl_edge.errors import OptionError
from mtl_edge.training.recipe import Recipe, require_positive
from mtl_edge.training.states import CACHE_LIMIT, default_cache

__all__ = ["DEFAULT_BACKBONE", "DEFAULT_FOREIGN", "DEFAULT_MAX_TOKENS", "TrainOptions"]

DEFAULT_BACKBONE = "distilbert-base-uncased"
DEFAULT_MAX_TOKENS = 128
DEFAULT_FOREIGN = 1.0  # percent
FEWEST_TOKENS = 3  # the two around a text, and one of its own


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of `mtl-edge train`, by their names.

    Attributes:
        scenario, learn, freeze, top_layers: see `mtl_edge.training.scenarios`.
        heads: how each task's head is named; a task that is not here gets the default, or keeps
            the one that it has.
        depth: layers of the backbone to use; none: all.
        all_depths: whether to train heads for every smaller depth too.
        exits: depths of early exits that a bundle may have: heads are trained for them, too, and
            out-of-fold logits are kept, on which export fits thresholds.
        exit_folds: of these logits, see `mtl_edge.training.folds`.
        max_tokens: of a text, the rest is cut; none: 128, or as the model was trained before.
        refit: whether to train the heads once more at the end, on training and validation rows,
            for as long; temperatures and thresholds stay those from before. Needs rows to report
            on.
        abstain: accuracy that answers shall have from their label's threshold on; none: no
            thresholds.
        in_domain: percent of a task's own texts that may be called foreign to it, for telling which
            are; none: no text is.
        cache: folder of encoder states.
        cache_limit: gigabytes that it may take.
        baselines: whether to measure what a head has to beat.

    Raises:
        OptionError: a number is out of range.
    """

    scenario: str = "heads"
    learn: Sequence[str] = ()
    freeze: Sequence[str] = ()
    top_layers: int = 2
    heads: Mapping[str, str] = field(default_factory=dict)
    depth: int | None = None
    all_depths: bool = False
    exits: Sequence[int] = ()
    exit_folds: int = 5
    max_tokens: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    refit: bool = False
    abstain: float | None = None
    in_domain: float | None = None
    cache: Path = field(default_factory=default_cache)
    cache_limit: float = CACHE_LIMIT / 10**9
    baselines: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.cache_limit):
            raise OptionError(f"--cache-limit is {self.cache_limit}, expected gigabytes")
        if self.max_tokens is not None and self.max_tokens < FEWEST_TOKENS:
            raise OptionError(f"--max-tokens is {self.max_tokens}, expected 3 or more")
        if self.abstain is not None and not 0 < self.abstain < 1:
            raise OptionError(f"--abstain is {self.abstain}, expected a share between 0 and 1")
        if self.in_domain is not None and not 0 < self.in_domain < 50:
            raise OptionError(f"--in-domain is {self.in_domain}, expected percent, 0 to 50")
        require_positive("top_layers", self.top_layers)
        require_positive("cache_limit", self.cache_limit)

    @property
    def cache_bytes(self) -> int:
        """`cache_limit` in bytes."""
        return int(self.cache_limit * 10**9)
