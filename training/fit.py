"""Heads taught on states that do not change."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.heads import MixedAttentionHead
from mtl_edge.training.progress import Progress
from mtl_edge.training.states import States

__all__ = ["Recipe", "fit_head", "fit_temperature", "predict"]

BATCHES_SORTED_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a head learns: AdamW on a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120).

    Attributes:
        epochs: none: 8, or as many more as 500 steps take where there are few rows.
    """

    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    seed: int = 0

    def to_json(self) -> dict[str, int | float | None]:
        return asdict(self)

    def epochs_of(self, steps: int) -> int:
        """Epochs to run if one of them takes `steps` steps."""
        return self.epochs or max(8, -(-500 // steps))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows of `States` and their labels' positions."""

    rows: Sequence[int]
    labels: Sequence[int]


def fit_head(
    head: MixedAttentionHead,
    states: States,
    train: Labelled,
    selection: Labelled,
    recipe: Recipe,
    title: str,
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
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    targets = torch.tensor(selection.labels)
    best: tuple[float, float] = (-1.0, 0.0)
    kept, result = head.state_dict(), {}
    with Progress(title, total=epochs * steps, unit="steps") as progress:
        for epoch in range(1, epochs + 1):
            head.train()
            for batch in _batches(states, train.rows, recipe.batch_size, generator):
                values, mask = states.batch([train.rows[i] for i in batch])
                loss = criterion(head(values, mask), torch.tensor([train.labels[i] for i in batch]))
                if not torch.isfinite(loss):
                    raise MtlEdgeError(
                        f"{title}: the loss became {loss.item()} in epoch {epoch}; "
                        f"lower --learning-rate (it is {recipe.learning_rate})"
                    )
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


@torch.inference_mode()
def predict(head: MixedAttentionHead, states: States, rows: Sequence[int]) -> Tensor:
    """Logits `[rows, labels]`."""
    head.eval()
    order = sorted(rows, key=states.lengths.__getitem__)
    logits = torch.cat([head(*states.batch(order[i : i + 64])) for i in range(0, len(order), 64)])
    place = {row: i for i, row in enumerate(order)}
    return logits[[place[row] for row in rows]]


def fit_temperature(logits: npt.NDArray[np.float32], labels: Sequence[int]) -> float:
    """The temperature under which `logits` are best calibrated (Guo et al. 2017, arXiv:1706.04599).

    Returns:
        The minimum of the cross-entropy between 0.05 and 20.
    """
    targets = np.asarray(labels)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        scaled -= scaled.max(1, keepdims=True)
        partition = np.log(np.exp(scaled).sum(1))
        return float((partition - scaled[np.arange(len(targets)), targets]).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def _batches(
    states: States, rows: Sequence[int], size: int, generator: random.Random
) -> Iterator[list[int]]:
    """Shuffled positions in `rows`, those of like length together so that little is padding."""
    order = list(range(len(rows)))
    generator.shuffle(order)
    span = size * BATCHES_SORTED_TOGETHER
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span], key=lambda i: states.lengths[rows[i]])
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    generator.shuffle(batches)
    return iter(batches)
