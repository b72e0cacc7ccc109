"""Heads taught on states that do not change."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.heads import Head
from mtl_edge.training.progress import Progress
from mtl_edge.training.states import States

__all__ = [
    "Labelled",
    "Recipe",
    "batches_of",
    "criterion_for",
    "fit_head",
    "predict",
    "require_finite",
]

BATCHES_SORTED_TOGETHER = 16
FEWEST_STEPS = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """How parts learn: AdamW on a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120).

    Attributes:
        epochs: none: 8 for heads on a frozen backbone, or as many more as 500 steps take where
            there are few rows; 3 where the backbone learns.
        backbone_learning_rate: where the backbone learns; low-rank updates take ten times as much.
        class_weights: whether a label's loss is weighted by how rare it is.
        temperature: of the mix of tasks where the backbone learns: a task's share of the steps is
            proportional to rows ** (1 / temperature), as in Raffel et al. 2020 (arXiv:1910.10683);
            1 is proportional to rows, infinity is uniform.
    """

    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    backbone_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    class_weights: bool = False
    temperature: float = 1.0
    seed: int = 0

    def to_json(self) -> dict[str, int | float | None]:
        return asdict(self)

    def epochs_of(self, steps: int) -> int:
        """Epochs of a head on frozen states if one of them takes `steps` steps."""
        return self.epochs or max(8, -(-FEWEST_STEPS // steps))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Positions of texts, and their labels' positions."""

    rows: Sequence[int]
    labels: Sequence[int]


def criterion_for(labels: Sequence[int], count: int, recipe: Recipe) -> nn.CrossEntropyLoss:
    """The loss of a task with `count` labels; weights average to 1 over the rows."""
    weight = None
    if recipe.class_weights:
        seen = torch.bincount(torch.tensor(labels), minlength=count).clamp(min=1)
        weight = len(labels) / (count * seen)
    return nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)


def fit_head(
    head: Head, states: States, train: Labelled, selection: Labelled, recipe: Recipe, title: str
) -> dict[str, float]:
    """Teach `head` in place and keep the weights of the epoch that did best on `selection`.

    Returns:
        That epoch's number (from 1), its accuracy and its loss on `selection`.

    Raises:
        MtlEdgeError: the loss is not a number.
    """
    generator = random.Random(recipe.seed)
    steps = -(-len(train.rows) // recipe.batch_size)
    epochs = recipe.epochs_of(steps)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=epochs * steps
    )
    criterion = criterion_for(train.labels, head.config.labels, recipe)
    lengths = [int(states.lengths[row]) for row in train.rows]
    targets = torch.tensor(selection.labels)
    best = (-1.0, 0.0)
    kept, result = head.state_dict(), {}
    with Progress(title, total=epochs * steps, unit="steps") as progress:
        for epoch in range(1, epochs + 1):
            head.train()
            for batch in batches_of(lengths, recipe.batch_size, generator):
                values, mask = states.batch([train.rows[i] for i in batch], head.config.states)
                loss = criterion(head(values, mask), torch.tensor([train.labels[i] for i in batch]))
                require_finite(loss, title, epoch, "--learning-rate", recipe.learning_rate)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update()
            logits = predict(head, states, selection.rows)
            accuracy = float((logits.argmax(1) == targets).float().mean())
            selection_loss = float(nn.functional.cross_entropy(logits, targets))
            progress.update(0, f"selection {accuracy:.1%}")
            # Accuracy decides; among equals the surer epoch.
            if (accuracy, -selection_loss) > best:
                best = (accuracy, -selection_loss)
                kept = copy.deepcopy(head.state_dict())
                result = {"epoch": epoch, "accuracy": accuracy, "loss": selection_loss}
    head.load_state_dict(kept)
    head.eval()
    return result


def require_finite(loss: Tensor, title: str, epoch: int, option: str, rate: float) -> None:
    """
    Raises:
        MtlEdgeError: the loss is not a number.
    """
    if not torch.isfinite(loss):
        raise MtlEdgeError(
            f"{title}: the loss became {loss.item()} in epoch {epoch}; "
            f"lower {option} (it is {rate})"
        )


@torch.inference_mode()
def predict(head: Head, states: States, rows: Sequence[int]) -> Tensor:
    """Logits `[rows, labels]`."""
    head.eval()
    order = sorted(range(len(rows)), key=lambda i: states.lengths[rows[i]])
    parts = [
        head(*states.batch([rows[i] for i in order[start : start + 64]], head.config.states))
        for start in range(0, len(order), 64)
    ]
    logits = torch.cat(parts)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return logits[back]


def batches_of(lengths: Sequence[int], size: int, generator: random.Random) -> Iterator[list[int]]:
    """Shuffled positions in batches, those of like length together so that little is padding."""
    order = list(range(len(lengths)))
    generator.shuffle(order)
    span = size * BATCHES_SORTED_TOGETHER
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span], key=lengths.__getitem__)
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    generator.shuffle(batches)
    return iter(batches)
