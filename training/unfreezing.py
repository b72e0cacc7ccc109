"""Which weights of a model learn, and at which rates."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from mtl_edge.training.heads import Head
from mtl_edge.training.model import MultiTaskModel, layers_of
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.scenarios import Learning
from mtl_edge.training.weighting import Weighting

__all__ = ["head_of", "learning_heads", "parameter_groups", "unfreeze"]

LORA_RANK = 8
LORA_FACTOR = (
    10  # low-rank updates start at zero and need larger steps (Hu et al. 2021, 2106.09685)
)


def head_of(model: MultiTaskModel, task: str) -> Any:
    """The task's head."""
    return model.heads[model.tasks.index(task)]


def learning_heads(model: MultiTaskModel, learning: Learning) -> list[Head]:
    """Heads of the tasks whose heads learn."""
    return [head_of(model, task) for task in model.tasks if task in learning.heads]


def unfreeze(model: MultiTaskModel, learning: Learning) -> list[nn.Module]:
    """Let what learns require gradients, and nothing else; returns its modules.

    In mode `lora`, low-rank updates are added to the encoder.
    """
    model.requires_grad_(False)
    learners: list[nn.Module] = list(learning_heads(model, learning))
    if learning.backbone == "full":
        learners.append(model.encoder)
    elif learning.backbone == "top-layers":
        layers = layers_of(model.encoder)
        learners += list(layers[max(0, len(layers) - learning.top_layers) :])
    for part in learners:
        part.requires_grad_(True)
    if learning.backbone == "lora":
        _add_lora(model)
        learners.append(model.encoder)
    return learners


def _add_lora(model: MultiTaskModel) -> None:
    from peft import LoraConfig, get_peft_model  # slow to import, and only used here

    config = LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.05, target_modules="all-linear"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by old names
        model.encoder = get_peft_model(model.encoder, config)  # type: ignore[assignment]


def parameter_groups(
    model: MultiTaskModel, weighting: Weighting, learning: Learning, recipe: Recipe
) -> list[dict[str, Any]]:
    """Parameters that learn with their learning rates, as optimizers take them."""
    rate = recipe.backbone_learning_rate * (LORA_FACTOR if learning.backbone == "lora" else 1)
    heads = [
        group
        for head in learning_heads(model, learning)
        for group in head.groups(recipe.learning_rate)
    ]
    of_heads = {id(p) for group in heads for p in group["params"]}
    backbone = [p for p in model.parameters() if p.requires_grad and id(p) not in of_heads]
    weights = list(weighting.parameters())
    return [
        {"params": backbone, "lr": rate},
        *heads,
        *([{"params": weights, "lr": recipe.learning_rate}] if weights else []),
    ]
