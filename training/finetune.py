"""Scenarios in which the backbone learns: end to end, batches of several tasks mixed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl_edge.batches.planning import Tokens, pad
from mtl_edge.training.batches import Labelled, Show, mixed
from mtl_edge.training.heads import Head
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop import Learner, Loop, Score, score
from mtl_edge.training.model import MultiTaskModel, layers_of, logits_of
from mtl_edge.training.recipe import Recipe, criterion_for
from mtl_edge.training.scenarios import Learning
from mtl_edge.training.states import device
from mtl_edge.training.weighting import WEIGHTINGS

__all__ = ["finetune"]

EPOCHS = 3
TaskBatch = tuple[str, list[int]]
LORA_RANK = 8
LORA_FACTOR = (
    10  # low-rank updates start at zero and need larger steps (Hu et al. 2021, 2106.09685)
)


@dataclass(frozen=True, slots=True)
class Finetuned:
    """
    Attributes:
        chosen: per task, the number of the epoch that was kept, and accuracy and loss of the
            selection rows then.
        parameters: how many learned.
    """

    chosen: Mapping[str, Mapping[str, float]]
    parameters: int


def finetune(
    model: MultiTaskModel,
    ids: Sequence[Tokens],
    train: Mapping[str, Labelled],
    selection: Mapping[str, Labelled],
    learning: Learning,
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    show: Show | None = None,
) -> tuple[MultiTaskModel, Finetuned]:
    """Teach the backbone and the heads that learn; keep the epoch best on `selection`.

    Args:
        ids: token ids of all texts, which the positions in `train` and `selection` refer to.
        train: rows of the tasks whose heads learn.
        show: see `mtl_edge.training.batches`; of a batch at fault.

    Returns:
        The model, updates merged into its weights, and what came of it.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    torch.manual_seed(recipe.seed)
    rate = recipe.backbone_learning_rate * (LORA_FACTOR if learning.backbone == "lora" else 1)
    learners = _unfreeze(model, learning)
    weighting = WEIGHTINGS[recipe.weighting](list(train), recipe.task_weights)
    both = nn.ModuleList([model, weighting]).to(device())
    heads = [
        group
        for head in _learning_heads(model, learning)
        for group in head.groups(recipe.learning_rate)
    ]
    known = {id(p) for group in heads for p in group["params"]}
    backbone = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    weights = list(weighting.parameters())
    groups = [
        {"params": backbone, "lr": rate},
        *heads,
        *([{"params": weights, "lr": recipe.learning_rate}] if weights else []),
    ]
    criteria = {
        task: criterion_for(rows.labels, _head(model, task).config.labels, recipe).to(device())
        for task, rows in train.items()
    }
    loop = Loop(
        name="model",
        title=f"training {learning.backbone}",
        groups=groups,
        epochs=recipe.epochs or EPOCHS,
        steps=sum(-(-len(rows) // recipe.batch_size) for rows in train.values()),
        weight_decay=recipe.weight_decay,
        warmup=0.1,
        training=learners,
        rate_option="--backbone-learning-rate",
        rate=recipe.backbone_learning_rate,
        clip=1.0,
        patience=recipe.patience,
        journal=journal or Journal(),
    )

    def losses_of(batch: TaskBatch) -> dict[str, Tensor]:
        task, chosen = batch
        rows = train[task]
        arrays = pad([ids[rows.rows[i]] for i in chosen])
        input_ids, mask = (torch.from_numpy(array).to(device()) for array in arrays)
        states = model.states(input_ids, mask)
        targets = torch.tensor([rows.labels[i] for i in chosen], device=device())
        # The other heads do not run.
        return {task: _head(model, task).loss(criteria[task], targets, states, mask, input_ids)}

    def judge() -> dict[str, Score]:
        model.eval()  # dropout is off in what is frozen, and in all of it here
        return {
            task: score(
                torch.from_numpy(logits_of(model, [ids[row] for row in rows.rows])[task]),
                rows.labels,
            )
            for task, rows in selection.items()
        }

    def rows_of(batch: TaskBatch) -> list[Mapping[str, str]]:
        task, chosen = batch
        rows = train[task]
        return [show(task, rows.rows[i], rows.labels[i]) for i in chosen] if show else []

    model.eval()
    found = loop.run(
        {"model": Learner(both, list(train))},
        mixed(
            train,
            [len(tokens) for tokens in ids],
            recipe.batch_size,
            recipe.mix,
            recipe.mix_temperature,
            recipe.seed,
        ),
        losses_of,
        judge,
        rows_of,
        weighting,
    )
    for head in _learning_heads(model, learning):
        head.finish()
    if learning.backbone == "lora":
        model.encoder = model.encoder.merge_and_unload()  # type: ignore[operator]
    best = found["model"]
    return model.cpu().eval().requires_grad_(False), Finetuned(
        {task: {"epoch": best["epoch"], **best["parts"][task]} for task in train},
        sum(p.numel() for group in groups for p in group["params"]),
    )


def _head(model: MultiTaskModel, task: str) -> Any:
    return model.heads[model.tasks.index(task)]


def _learning_heads(model: MultiTaskModel, learning: Learning) -> list[Head]:
    return [_head(model, task) for task in model.tasks if task in learning.heads]


def _unfreeze(model: MultiTaskModel, learning: Learning) -> list[nn.Module]:
    """Let what learns require gradients, and nothing else; returns its modules."""
    model.requires_grad_(False)
    learners: list[nn.Module] = list(_learning_heads(model, learning))
    if learning.backbone == "full":
        learners.append(model.encoder)
    elif learning.backbone == "top-layers":
        layers = layers_of(model.encoder)
        learners += list(layers[max(0, len(layers) - learning.top_layers) :])
    for part in learners:
        part.requires_grad_(True)
    if learning.backbone == "lora":
        from peft import LoraConfig, get_peft_model  # slow to import, and only used here

        config = LoraConfig(
            r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.05, target_modules="all-linear"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by old names
            model.encoder = get_peft_model(model.encoder, config)  # type: ignore[assignment]
        learners.append(model.encoder)
    return learners
