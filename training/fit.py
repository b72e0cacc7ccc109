"""Heads trained on states that do not change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_edge.training.batches import DescribeRow, Labelled, endless
from mtl_edge.training.device import device
from mtl_edge.training.heads import Head, LinearHead
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.loop import Learner, Loop, score
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.solved import solve_heads
from mtl_edge.training.states import States

__all__ = ["fit_heads", "linear_heads", "predict"]


def fit_heads(
    task: str,
    heads: Mapping[int, Head],
    states: States,
    training: Labelled,
    validation: Labelled,
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    describe_row: DescribeRow | None = None,
    first_pass: Mapping[int, Mapping[str, float]] | None = None,
) -> dict[int, dict[str, float]]:
    """Train one task's heads in place, one for each depth, in one pass over the states.

    Linear heads are solved: see `mtl_edge.training.solved`.

    A head of depth `d` sees the embeddings and the first `d` layers, one of depth 0 the tokens'
    vectors of `mtl_edge.training.static`. Each keeps the weights of the epoch in which it did best
    on the validation rows.

    Args:
        describe_row: see `mtl_edge.training.batches`; for a batch whose loss is not a number.
        first_pass: what this function returned before, if this is a second pass, in which
            `training` holds the validation rows too: recorded under names of its own.

    Returns:
        Per depth, that epoch's number (from 1), its score and its loss on `validation`; for linear
        heads see `solve_heads`.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    journal = journal or Journal()
    if linear := linear_heads(heads):
        return solve_heads(task, linear, states, training, validation, recipe, journal, first_pass)
    loop = _loop(task, heads, len(training), recipe, journal, first_pass is not None)
    parts = {depth: f"{loop.name}@{depth}" for depth in heads}
    kind = training_kind(training.task)
    criterion = kind.criterion(training.task, training.targets, recipe).to(device())

    found = loop.run(
        {parts[depth]: Learner(head, [parts[depth]]) for depth, head in heads.items()},
        endless(
            [int(states.lengths[row]) for row in training.rows],
            recipe.batch_size,
            random.Random(recipe.seed),
        ),
        lambda batch: {
            parts[depth]: loss
            for depth, loss in _losses(heads, states, training, batch, criterion).items()
        },
        lambda: {
            parts[depth]: score(predict(head, states, validation.rows), validation)
            for depth, head in heads.items()
        },
        lambda batch: _described(task, training, batch, describe_row),
    )
    for head in heads.values():
        head.cpu().finish()
    return {
        depth: {"epoch": found[part]["epoch"], **found[part]["parts"][part]}
        for depth, part in parts.items()
    }


def linear_heads(heads: Mapping[int, Head]) -> dict[int, LinearHead]:
    """The same heads, if all of them are linear; else none."""
    linear = {depth: head for depth, head in heads.items() if isinstance(head, LinearHead)}
    return linear if len(linear) == len(heads) else {}


def _loop(
    task: str,
    heads: Mapping[int, Head],
    rows: int,
    recipe: Recipe,
    journal: Journal,
    refit: bool,
) -> Loop:
    """Epochs over so many training rows; moves the heads to where they are trained."""
    for head in heads.values():
        head.to(device())
    steps = -(-rows // recipe.batch_size)
    return Loop(
        name=f"{task}.refit" if refit else task,
        title=f"task {task}" + (", all rows" if refit else ""),
        groups=[g for head in heads.values() for g in head.groups(recipe.learning_rate)],
        epochs=recipe.epochs_of(steps),
        steps=steps,
        weight_decay=recipe.weight_decay,
        warmup=0.3,
        training=list(heads.values()),
        rate_option="--learning-rate",
        rate=recipe.learning_rate,
        patience=recipe.patience,
        journal=journal,
    )


def _losses(
    heads: Mapping[int, Head],
    states: States,
    training: Labelled,
    batch: Sequence[int],
    criterion: torch.nn.Module,
) -> dict[int, Tensor]:
    """Each depth's loss of a batch, given as positions among the training rows."""
    deepest = max(head.config.states for head in heads.values())
    values, mask, ids = states.batch([training.rows[i] for i in batch], deepest, device())
    targets = torch.from_numpy(training.targets[batch]).to(device())
    return {
        depth: head.loss(
            criterion, targets, states.layers_read_by(head.config.states, values, ids), mask, ids
        )
        for depth, head in heads.items()
    }


def _described(
    task: str, training: Labelled, batch: Sequence[int], describe_row: DescribeRow | None
) -> list[Mapping[str, Any]]:
    if describe_row is None:
        return []
    return [describe_row(task, training.rows[i], training.targets[i]) for i in batch]


@torch.inference_mode()
def predict(head: Head, states: States, rows: Sequence[int]) -> Tensor:
    """Logits `[rows, labels]`."""
    head.eval()
    if not len(rows):
        return torch.zeros(0, head.config.labels)
    place = next(head.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: states.lengths[rows[i]])
    parts = [
        head(*states.batch([rows[i] for i in order[start : start + 64]], head.config.states, place))
        for start in range(0, len(order), 64)
    ]
    logits = torch.cat(parts).cpu()
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return logits[back]
