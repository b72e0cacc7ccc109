"""Scenarios in which the backbone learns: end to end, batches of several tasks mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl_edge.batches.planning import Tokens, pad
from mtl_edge.training.batches import DescribeRow, Labelled, mixed
from mtl_edge.training.device import device
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.loop import Learner, Loop, ValidationScore, score
from mtl_edge.training.model import MultiTaskModel, logits_of
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.scenarios import Learning
from mtl_edge.training.unfreezing import head_of, learning_heads, parameter_groups, unfreeze
from mtl_edge.training.weighting import WEIGHTINGS

__all__ = ["Finetuned", "finetune"]

EPOCHS = 3
TaskBatch = tuple[str, list[int]]  # positions among the task's training rows


@dataclass(frozen=True, slots=True)
class Finetuned:
    """
    Attributes:
        model: updates merged into its weights.
        best_epochs: per task, the number of the epoch that was kept, and score and loss of the
            validation rows then.
        parameters: how many learned.
    """

    model: MultiTaskModel
    best_epochs: Mapping[str, Mapping[str, float]]
    parameters: int


def finetune(
    model: MultiTaskModel,
    ids: Sequence[Tokens],
    training: Mapping[str, Labelled],
    validation: Mapping[str, Labelled],
    learning: Learning,
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    describe_row: DescribeRow | None = None,
) -> Finetuned:
    """Train the backbone and the heads that learn; keep the epoch best on the validation rows.

    Args:
        ids: token ids of all texts, which the positions in `training` and `validation` refer to.
        training: rows of the tasks whose heads learn.
        describe_row: see `mtl_edge.training.batches`; for a batch whose loss is not a number.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    torch.manual_seed(recipe.seed)
    learners = unfreeze(model, learning)
    weighting = WEIGHTINGS[recipe.weighting](list(training), recipe.task_weights)
    both = nn.ModuleList([model, weighting]).to(device())
    groups = parameter_groups(model, weighting, learning, recipe)
    tasks = _TasksOfModel(model, ids, training, validation, recipe, describe_row)
    loop = _loop(learners, groups, training, learning, recipe, journal or Journal())
    lengths = [len(tokens) for tokens in ids]
    batches = mixed(
        training, lengths, recipe.batch_size, recipe.mix, recipe.mix_temperature, recipe.seed
    )
    model.eval()
    best = loop.run(
        {"model": Learner(both, list(training))},
        batches,
        tasks.losses_of,
        tasks.evaluate,
        tasks.describe,
        weighting,
    )["model"]
    for head in learning_heads(model, learning):
        head.finish()
    if learning.backbone == "lora":
        model.encoder = model.encoder.merge_and_unload()  # type: ignore[operator]
    return Finetuned(
        model.cpu().eval().requires_grad_(False),
        {task: {"epoch": best["epoch"], **best["parts"][task]} for task in training},
        sum(p.numel() for group in groups for p in group["params"]),
    )


def _loop(
    learners: Sequence[nn.Module],
    groups: Sequence[Mapping[str, Any]],
    training: Mapping[str, Labelled],
    learning: Learning,
    recipe: Recipe,
    journal: Journal,
) -> Loop:
    """Epochs over the training rows of all tasks together."""
    return Loop(
        name="model",
        title=f"training {learning.backbone}",
        groups=groups,
        epochs=recipe.epochs or EPOCHS,
        steps=sum(-(-len(rows) // recipe.batch_size) for rows in training.values()),
        weight_decay=recipe.weight_decay,
        warmup=0.1,
        training=learners,
        rate_option="--backbone-learning-rate",
        rate=recipe.backbone_learning_rate,
        clip=1.0,
        patience=recipe.patience,
        journal=journal,
    )


class _TasksOfModel:
    """The tasks' losses and scores with a model that is being trained."""

    def __init__(
        self,
        model: MultiTaskModel,
        ids: Sequence[Tokens],
        training: Mapping[str, Labelled],
        validation: Mapping[str, Labelled],
        recipe: Recipe,
        describe_row: DescribeRow | None,
    ) -> None:
        self._model, self._ids = model, ids
        self._training, self._validation = training, validation
        self._describe_row = describe_row
        self._criteria = {
            task: training_kind(rows.task).criterion(rows.task, rows.targets, recipe).to(device())
            for task, rows in training.items()
        }

    def losses_of(self, batch: TaskBatch) -> dict[str, Tensor]:
        """The loss of the batch's task; the other heads do not run."""
        task, positions = batch
        rows = self._training[task]
        arrays = pad([self._ids[rows.rows[i]] for i in positions])
        input_ids, mask = (torch.from_numpy(array).to(device()) for array in arrays)
        states = self._model.states(input_ids, mask)
        targets = torch.from_numpy(rows.targets[positions]).to(device())
        head = head_of(self._model, task)
        return {task: head.loss(self._criteria[task], targets, states, mask, input_ids)}

    def evaluate(self) -> dict[str, ValidationScore]:
        """Each task's score on its validation rows."""
        self._model.eval()  # dropout is off in what is frozen, and in all of it here
        scores = {}
        for task, rows in self._validation.items():
            logits = logits_of(self._model, [self._ids[row] for row in rows.rows])[task]
            scores[task] = score(torch.from_numpy(logits), rows)
        return scores

    def describe(self, batch: TaskBatch) -> list[Mapping[str, Any]]:
        """The batch's rows as a user knows them."""
        task, positions = batch
        rows = self._training[task]
        if self._describe_row is None:
            return []
        return [self._describe_row(task, rows.rows[i], rows.targets[i]) for i in positions]
