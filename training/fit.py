"""Heads taught on states that do not change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_edge.training.batches import Labelled, Show, endless
from mtl_edge.training.heads import Head
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop import Learner, Loop, score
from mtl_edge.training.recipe import Recipe, criterion_for
from mtl_edge.training.states import States, device

__all__ = ["fit_heads", "predict"]


def fit_heads(
    task: str,
    heads: Mapping[int, Head],
    states: States,
    train: Labelled,
    selection: Labelled,
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    show: Show | None = None,
    refit: bool = False,
) -> dict[int, dict[str, float]]:
    """Teach one task's heads in place, one for each depth, in one pass over the states.

    A head of depth `d` sees the embeddings and the first `d` layers, one of depth 0 what
    `mtl_edge.training.static` says of each token. Each keeps the weights of the
    epoch in which it did best on `selection`.

    Args:
        show: see `mtl_edge.training.batches`; of a batch at fault.
        refit: a second pass, in which `train` holds the rows of `selection` too: recorded under
            names of its own.

    Returns:
        Per depth, that epoch's number (from 1), its accuracy and its loss on `selection`.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    name = f"{task}.refit" if refit else task
    names = {depth: f"{name}@{depth}" for depth in heads}
    place = device()
    for head in heads.values():
        head.to(place)
    criterion = criterion_for(train.labels, next(iter(heads.values())).config.labels, recipe)
    criterion.to(place)
    deepest = max(head.config.states for head in heads.values())
    steps = -(-len(train) // recipe.batch_size)
    loop = Loop(
        name=name,
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
        journal=journal or Journal(),
    )

    def losses_of(batch: Sequence[int]) -> dict[str, Tensor]:
        values, mask, ids = states.batch([train.rows[i] for i in batch], deepest, place)
        targets = torch.tensor([train.labels[i] for i in batch], device=place)
        return {
            names[depth]: head.loss(
                criterion, targets, states.read_by(head.config.states, values, ids), mask, ids
            )
            for depth, head in heads.items()
        }

    found = loop.run(
        {names[depth]: Learner(head, [names[depth]]) for depth, head in heads.items()},
        endless(
            [int(states.lengths[row]) for row in train.rows],
            recipe.batch_size,
            random.Random(recipe.seed),
        ),
        losses_of,
        lambda: {
            names[depth]: score(predict(head, states, selection.rows), selection.labels)
            for depth, head in heads.items()
        },
        lambda batch: [show(task, train.rows[i], train.labels[i]) for i in batch] if show else [],
    )
    for head in heads.values():
        head.cpu().finish()
    return {
        depth: {"epoch": found[name]["epoch"], **found[name]["parts"][name]}
        for depth, name in names.items()
    }


@torch.inference_mode()
def predict(head: Head, states: States, rows: Sequence[int]) -> Tensor:
    """Logits `[rows, labels]`."""
    head.eval()
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
