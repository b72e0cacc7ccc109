"""Which early exits a bundle gets: of the depths there are, those that make a text cheapest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from mtl_edge.bundle import Exit
from mtl_edge.errors import OptionError
from mtl_edge.export.early_exit.exits import (
    Promise,
    TaskFit,
    answers_of,
    exits_of,
    fit,
    require_rows,
)
from mtl_edge.timing import time_calls
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.model import logits_of

__all__ = ["cheapest", "choices", "costs_of", "fitted_exits"]

MOST_EXITS = 2
TEXTS_TIMED = 32


def fitted_exits(checkpoint: Checkpoint, promise: Promise) -> tuple[Exit, ...]:
    """The early exits that keep a promise; where it names no depths, of those that pay.

    Raises:
        OptionError: see `mtl_edge.export.early_exit.exits.fit`.
    """
    if promise.depths is None:
        promise = cheapest(checkpoint, promise, costs_of(checkpoint))
    return exits_of(checkpoint, fit(checkpoint, promise), promise)


def costs_of(checkpoint: Checkpoint) -> dict[int, float]:
    """By depth, milliseconds that the torch model takes for some texts, in interleaved rounds.

    Of the depths that early exits could have; what counts is how they compare.
    """
    found = [answers.logits.keys() for answers in checkpoint.out_of_fold.values()]
    depths = sorted(set.intersection(*map(set, found))) if found else []
    texts = [s.text for s in checkpoint.samples if s.split == "calibration"][:TEXTS_TIMED]
    ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)(texts)
    models = {depth: checkpoint.at(depth).model() for depth in {*depths, checkpoint.depth}}
    times = time_calls(
        {str(d): lambda model=model: logits_of(model, ids) for d, model in models.items()}  # type: ignore[misc]
    )
    return {int(depth): time.median for depth, time in times.items()}


def choices(depths: Iterable[int], most: int = MOST_EXITS) -> list[tuple[int, ...]]:
    """The combinations of these depths that `cheapest` chooses among."""
    ordered = sorted(depths)
    return [one for count in range(1, most + 1) for one in combinations(ordered, count)]


def cheapest(
    checkpoint: Checkpoint,
    promise: Promise,
    costs: Mapping[int, float],
    most: int = MOST_EXITS,
) -> Promise:
    """The promise with those depths, up to `most` of them, that make a text cheapest on average.

    Args:
        costs: by depth, full depth too, what a text takes in any unit; a text that passes several
            exits takes their sum.

    Raises:
        OptionError: see `mtl_edge.export.early_exit.exits.fit`; or no early exit pays.
    """
    known = sorted(set(costs) - {checkpoint.depth})
    combined = choices(known, most)
    promise = replace(promise, tried=max(1, len(combined)))
    for task in checkpoint.tasks:
        require_rows(task.name, len(answers_of(checkpoint, task.name, ()).right), promise)
    if not known:
        raise OptionError(
            f"--exits auto: the checkpoint holds answers of depth {checkpoint.depth} alone; train "
            "with --exits 0"
        )
    best, least = None, costs[checkpoint.depth]
    for depths in combined:
        chosen = replace(promise, depths=depths)
        try:
            found = fit(checkpoint, chosen)
        except OptionError:
            if len(known) == 1:
                raise
            continue
        cost = float(
            np.mean([_cost(one, depths, costs, checkpoint.depth) for one in found.values()])
        )
        if cost < least:
            best, least = chosen, cost
    if best is None:
        raise OptionError(
            f"--exits auto: no stage of depth {', '.join(map(str, known))} pays for a drop of "
            f"{100 * promise.drop:g} points; allow more with --exit-drop, or leave --exits out"
        )
    return best


def _cost(found: TaskFit, depths: Iterable[int], costs: Mapping[int, float], full: int) -> float:
    """What a text takes on average, over all exits that it comes to."""
    waiting, total = 1.0, 0.0
    for depth in depths:
        total += waiting * costs[depth]
        waiting -= found.exit_rates[depth]
    return total + waiting * costs[full]
