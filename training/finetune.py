"""Scenarios in which the backbone learns: end to end, batches of several tasks mixed."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_edge.planning import pad
from mtl_edge.training.fit import Labelled, Recipe, batches_of, criterion_for, require_finite
from mtl_edge.training.model import MultiTaskModel, layers_of, logits_of
from mtl_edge.training.progress import Progress
from mtl_edge.training.scenarios import Learning
from mtl_edge.training.states import device

__all__ = ["finetune"]

EPOCHS = 3
LORA_RANK = 8
LORA_FACTOR = (
    10  # low-rank updates start at zero and need larger steps (Hu et al. 2021, 2106.09685)
)


def finetune(
    model: MultiTaskModel,
    ids: Sequence[Sequence[int]],
    train: Mapping[str, Labelled],
    selection: Mapping[str, Labelled],
    learning: Learning,
    recipe: Recipe,
) -> tuple[MultiTaskModel, dict[str, Any]]:
    """Teach the backbone and the heads that learn; keep the epoch best on `selection`.

    Args:
        ids: token ids of all texts, which the positions in `train` and `selection` refer to.
        train: rows of the tasks whose heads learn.

    Returns:
        The model, updates merged into its weights; that epoch's number and mean accuracy, and how
        many parameters learned.

    Raises:
        MtlEdgeError: the loss is not a number.
    """
    torch.manual_seed(recipe.seed)
    rate = recipe.backbone_learning_rate * (LORA_FACTOR if learning.backbone == "lora" else 1)
    learners = _unfreeze(model, learning)
    model.to(device())
    heads = [p for head in _learning_heads(model, learning) for p in head.parameters()]
    known = set(map(id, heads))
    backbone = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr}
        for parameters, lr in ((backbone, rate), (heads, recipe.learning_rate))
        if parameters
    ]
    parameters = sum(p.numel() for group in groups for p in group["params"])
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    epochs = recipe.epochs or EPOCHS
    steps = sum(-(-len(rows.rows) // recipe.batch_size) for rows in train.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=epochs * steps, pct_start=0.1
    )
    criteria = {
        task: criterion_for(rows.labels, _head(model, task).config.labels, recipe).to(device())
        for task, rows in train.items()
    }
    mix = _mix(ids, train, recipe, steps)
    best, kept, result = -1.0, copy.deepcopy(model.state_dict()), {}
    with Progress(f"training {learning.backbone}", total=epochs * steps, unit="steps") as progress:
        for epoch in range(1, epochs + 1):
            model.eval()
            for part in learners:  # dropout is off in what is frozen
                part.train()
            for _ in range(steps):
                task, batch = next(mix)
                rows = train[task]
                loss = criteria[task](
                    _forward(model, task, [ids[rows.rows[i]] for i in batch]),
                    torch.tensor([rows.labels[i] for i in batch], device=device()),
                )
                require_finite(loss, task, epoch, "--backbone-learning-rate", rate)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
                optimizer.step()
                schedule.step()
                progress.update()
            accuracy = _accuracy(model, ids, selection)
            progress.update(0, f"selection {accuracy:.1%}")
            if accuracy > best:
                best, kept = accuracy, copy.deepcopy(model.state_dict())
                result = {"epoch": epoch, "accuracy": accuracy, "parameters": parameters}
    model.load_state_dict(kept)
    if learning.backbone == "lora":
        model.encoder = model.encoder.merge_and_unload()  # type: ignore[operator]
    return model.cpu().eval().requires_grad_(False), result


def _head(model: MultiTaskModel, task: str) -> Any:
    return model.heads[model.tasks.index(task)]


def _learning_heads(model: MultiTaskModel, learning: Learning) -> list[nn.Module]:
    return [_head(model, task) for task in model.tasks if task in learning.heads]


def _unfreeze(model: MultiTaskModel, learning: Learning) -> list[nn.Module]:
    """Let what learns require gradients, and nothing else; returns its modules."""
    model.requires_grad_(False)
    learners = _learning_heads(model, learning)
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


def _mix(
    ids: Sequence[Sequence[int]], train: Mapping[str, Labelled], recipe: Recipe, steps: int
) -> Iterator[tuple[str, list[int]]]:
    """Batches without end, each of one task, drawn by the share that the temperature gives it."""
    generator = random.Random(recipe.seed)
    tasks = list(train)
    shares = [len(train[task].rows) ** (1 / recipe.temperature) for task in tasks]
    streams = {task: _endless(ids, train[task], recipe, generator) for task in tasks}
    while True:
        (task,) = generator.choices(tasks, shares)
        yield task, next(streams[task])


def _endless(
    ids: Sequence[Sequence[int]], rows: Labelled, recipe: Recipe, generator: random.Random
) -> Iterator[list[int]]:
    lengths = [len(ids[row]) for row in rows.rows]
    while True:
        yield from batches_of(lengths, recipe.batch_size, generator)


def _forward(model: MultiTaskModel, task: str, texts: Sequence[Sequence[int]]) -> Tensor:
    """One task's logits; the other heads do not run."""
    input_ids, mask = (torch.from_numpy(array).to(device()) for array in pad(texts))
    logits: Tensor = _head(model, task)(model.states(input_ids, mask), mask)
    return logits


def _accuracy(
    model: MultiTaskModel, ids: Sequence[Sequence[int]], selection: Mapping[str, Labelled]
) -> float:
    """Mean over the tasks."""
    scores = []
    for task, rows in selection.items():
        logits = logits_of(model, [ids[row] for row in rows.rows])[task]
        scores.append(float((logits.argmax(1) == rows.labels).mean()))
    return sum(scores) / len(scores)
