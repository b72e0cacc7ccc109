"""Linear heads on states that do not change: solved, with the setting that suits the rows best."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.batches import Labelled
from mtl_edge.training.calibration import fit_temperature
from mtl_edge.training.heads import LinearHead, Setting
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop import ValidationScore, improves, score
from mtl_edge.training.recipe import Recipe, criterion_for
from mtl_edge.training.solve import Features, LinearModel, linear_model
from mtl_edge.training.states import States

__all__ = ["LinearHeads", "Problem", "solve_heads"]

TEXTS_AT_ONCE = 64

LinearHeads = Mapping[int, LinearHead]  # by depth


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows that one linear head is fitted to.

    Attributes:
        values: the head's features, `[rows, features]`.
        targets: positions of labels, `[rows]`.
        weights: of each row's loss; none: 1.
    """

    values: Tensor
    targets: Tensor
    labels: int
    weights: Tensor | None = None

    @staticmethod
    def of(values: Tensor, rows: Labelled, labels: int, recipe: Recipe) -> Problem:
        targets = torch.tensor(rows.labels)
        by_label = criterion_for(rows.labels, labels, recipe).weight
        return Problem(values, targets, labels, None if by_label is None else by_label[targets])

    def solutions(self, settings: Sequence[Setting]) -> Iterator[tuple[Setting, LinearModel]]:
        """The model of each setting; a strength begins where the one before ended."""
        layers: tuple[float, ...] = ()
        for setting in settings:
            if setting.layers != layers:
                layers, model = setting.layers, None
                columns = _column_scales(layers, self.values.shape[1])
                features = Features(self.values * columns)
            model = linear_model(
                features, self.targets, self.labels, setting.strength,
                row_weights=self.weights, start=model,
            )  # fmt: skip
            yield setting, LinearModel(model.weight * columns, model.bias)


def _column_scales(layers: Sequence[float], width: int) -> Tensor:
    return torch.tensor(layers).sqrt().repeat_interleave(width // len(layers))


def solve_heads(
    task: str,
    heads: LinearHeads,
    states: States,
    training: Labelled,
    validation: Labelled,
    recipe: Recipe,
    journal: Journal,
    first_pass: Mapping[int, Mapping[str, float]] | None = None,
) -> dict[int, dict[str, float]]:
    """Solve one task's linear heads in place, one for each depth.

    Of the head's settings that one is taken which does best on the validation rows: see
    `mtl_edge.training.loop.improves`.

    Args:
        first_pass: what this function returned before, if `training` now holds the validation rows
            too: their settings are taken.

    Returns:
        Per depth `setting`, its position among the head's, and its accuracy and loss on
        `validation`, calibrated.

    Raises:
        MtlEdgeError: a state is not a number.
    """
    started = time.monotonic()
    rows = training + validation
    found: dict[int, dict[str, float]] = {}
    for depth, values in features_of(task, heads, states, rows.rows).items():
        head = heads[depth]
        settings = head.settings(few=False)
        if first_pass is not None:
            settings = [settings[int(first_pass[depth]["setting"])]]
        problem = Problem.of(values[: len(training)], training, head.config.labels, recipe)
        best: tuple[Setting, LinearModel, ValidationScore] | None = None
        for setting, model in problem.solutions(settings):
            own = calibrated_score(model(values[len(training) :]).numpy(), validation.labels)
            if best is None or improves(own, best[2]):
                best = setting, model, own
        assert best is not None
        take(head, best[1])
        found[depth] = {
            "setting": head.settings(few=False).index(best[0]),
            "accuracy": best[2].accuracy,
            "loss": best[2].loss,
        }
        name = f"{task}.refit@{depth}" if first_pass is not None else f"{task}@{depth}"
        log(journal, name, started, float(training_loss(problem, best[1])), best[2], best[0])
    return found


@torch.inference_mode()
def features_of(
    task: str, heads: LinearHeads, states: States, rows: Sequence[int]
) -> dict[int, Tensor]:
    """By depth, what each head's linear map reads of the rows, `[rows, features]`.

    Raises:
        MtlEdgeError: one is not a number.
    """
    deepest = max(head.config.states for head in heads.values())
    order = sorted(range(len(rows)), key=lambda i: states.lengths[rows[i]])
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), TEXTS_AT_ONCE):
        some = order[start : start + TEXTS_AT_ONCE]
        layers, mask, ids = states.batch([rows[i] for i in some], deepest)
        for depth, head in heads.items():
            read = states.layers_read_by(head.config.states, layers, ids)
            values = head.features(read, mask)
            found.setdefault(depth, torch.empty(len(rows), values.shape[1]))[some] = values
    for depth, values in found.items():
        if not torch.isfinite(values).all():
            raise MtlEdgeError(
                f"{task}: states of depth {depth} are no numbers; take another backbone"
            )
    return {depth: values.clone() for depth, values in found.items()}


@torch.no_grad()
def take(head: LinearHead, model: LinearModel) -> None:
    """Give the head the solved weights."""
    head.output.weight.copy_(model.weight)
    head.output.bias.copy_(model.bias)
    head.eval()


def calibrated_score(
    logits: npt.NDArray[np.float32], labels: Sequence[int]
) -> ValidationScore:
    """Accuracy, and the loss under the temperature that a model with such logits would get."""
    return score(torch.from_numpy(logits / fit_temperature(logits, labels)), labels)


def training_loss(problem: Problem, model: LinearModel) -> float:
    return score(model(problem.values), problem.targets.tolist()).loss


def log(
    journal: Journal,
    part: str,
    started: float,
    train_loss: float,
    found: ValidationScore | None,
    setting: Setting,
) -> None:
    """The one line of figures that a head leaves which is solved; `found`: none, if unknown."""
    journal.forget_after([part], 0)  # of a run that was stopped
    journal.log(
        part=part,
        epoch=1,
        step=1,
        seconds=round(time.monotonic() - started, 3),
        learning_rate=None,
        train_loss=train_loss,
        selection_accuracy=None if found is None else found.accuracy,
        selection_loss=None if found is None else found.loss,
        strength=setting.strength,
        layers=list(setting.layers),
    )
