"""Out-of-fold logits: what heads answer on rows that they were not trained on, by K folds.

Thresholds of early exits are fitted on such logits (see `mtl_edge.export.early_exit.exits`).
Validation rows are too few for that, and heads that were refitted have seen them as well. A fold's
heads learn from fewer rows than those that ship and are, if anything, worse; what is fitted on all
folds together holds for heads trained in this way, on average over the folds, as the rows grow
(Bayle et al. 2020, arXiv:2007.12671). It is no guarantee of finite samples for one set of weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.errors import OptionError
from mtl_edge.training.batches import DescribeRow, Labelled
from mtl_edge.training.fit import fit_heads, predict
from mtl_edge.training.heads import Head
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.states import States

__all__ = ["OutOfFold", "out_of_fold", "require_texts"]

VALIDATION = 10  # one in so many of the other folds' texts chooses the fold's epoch

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """One task's logits, of heads that were not trained on the rows.

    Attributes:
        right: the right answers, see `mtl_edge.answers.kinds`.
        logits: by depth, float32 `[rows, outputs]`.
    """

    right: npt.NDArray[Any]
    logits: Mapping[int, Values]

    def at(self, depth: int) -> OutOfFold | None:
        """The same for a model of `depth` layers; none if there are no logits of that depth."""
        if depth not in self.logits:
            return None
        return OutOfFold(self.right, {d: v for d, v in self.logits.items() if d <= depth})


def require_texts(task: str, texts: Sequence[str], folds: int) -> None:
    """
    Raises:
        OptionError: there are so few that none is left to train some fold's heads on.
    """
    # As many as there are folds validate, and each fold needs one more that is not in it.
    if (count := len(set(texts))) < folds + 2:
        raise OptionError(
            f"--exit-folds {folds} needs {folds + 2} or more texts that differ, and task {task!r} "
            f"has {count}; give more rows, or lower --exit-folds"
        )


def out_of_fold(
    task: str,
    build_heads: Callable[[], Mapping[int, Head]],
    states: States,
    rows: Labelled,
    folds: int,
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    describe_row: DescribeRow | None = None,
) -> OutOfFold:
    """Train heads on all folds but one and take their logits of that one, for each of `folds`.

    A text that occurs twice is in one fold.

    Args:
        build_heads: makes untrained heads by depth.
        describe_row: see `mtl_edge.training.batches`; for a batch whose loss is not a number.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    texts = sorted(set(rows.rows))
    random.Random(recipe.seed).shuffle(texts)
    place = {text: i for i, text in enumerate(texts)}
    places = np.array([place[text] for text in rows.rows])
    found: dict[int, Values] = {}
    for fold in range(folds):
        held_out = places % folds == fold
        validation = ~held_out & (places // folds % VALIDATION == 0)
        heads = build_heads()
        fit_heads(
            f"{task}.fold{fold + 1}",
            heads,
            states,
            rows.take(np.flatnonzero(~held_out & ~validation)),
            rows.take(np.flatnonzero(validation)),
            recipe,
            journal=journal,
            describe_row=_for_task(task, describe_row),
        )
        own = rows.take(np.flatnonzero(held_out))
        for depth, head in heads.items():
            logits = predict(head, states, own.rows).numpy()
            found.setdefault(depth, np.empty((len(rows), logits.shape[1]), np.float32))
            found[depth][held_out] = logits
    return OutOfFold(training_kind(rows.task).right(rows.task, rows.targets), found)


def _for_task(task: str, describe_row: DescribeRow | None) -> DescribeRow | None:
    """Rows are described as the task's, whatever the fold is called."""
    if describe_row is None:
        return None
    return lambda _, text, target: describe_row(task, text, target)
