"""Linear heads on states that do not change: solved, with the setting that suits the rows best."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.batches import Labelled
from mtl_edge.training.heads import LinearHead, Setting
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.loop import ValidationScore, improves, score
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.solve import Features, LinearModel, linear_model
from mtl_edge.training.states import States

__all__ = [
    "LinearHeads",
    "Problem",
    "calibrated_score",
    "features_of",
    "log_solved",
    "solve_heads",
    "take_weights",
]

TEXTS_AT_ONCE = 64

LinearHeads = Mapping[int, LinearHead]  # by depth


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows that one linear head is fitted to.

    Attributes:
        values: the head's features, `[rows, features]`.
    """

    values: Tensor
    rows: Labelled
    recipe: Recipe

    def solutions(self, settings: Sequence[Setting]) -> Iterator[LinearModel]:
        """The model of each setting, all of the same layers; one begins where the last ended."""
        layers = torch.tensor(settings[0].layers)
        columns = layers.sqrt().repeat_interleave(self.values.shape[1] // len(layers))
        features, model = Features(self.values * columns), None
        rows, recipe = self.rows, replace(self.recipe, label_smoothing=0.0)
        criterion = training_kind(rows.task).criterion(rows.task, rows.targets, recipe)
        targets = torch.from_numpy(rows.targets)
        for setting in settings:
            model = linear_model(
                features, targets, rows.task.outputs, criterion, setting.strength, model
            )
            yield LinearModel(model.weight * columns, model.bias)

    def loss_of(self, model: LinearModel) -> float:
        """The model's loss on the rows that it was fitted to."""
        return score(model(self.values), self.rows).loss


def by_layers(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Settings of the same layers together."""
    return [list(group) for _, group in groupby(settings, lambda setting: setting.layers)]


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
    `mtl_edge.training.loop.improves`. A strength that is clearly too large ends the search.

    Args:
        first_pass: what this function returned before, if `training` now holds the validation rows
            too: their settings are taken.

    Returns:
        Per depth `setting`, its position among the head's, and its score and loss on `validation`,
        calibrated.

    Raises:
        MtlEdgeError: a state is not a number.
    """
    started = time.monotonic()
    rows = training + validation
    found: dict[int, dict[str, float]] = {}
    for depth, values in features_of(task, heads, states, rows.rows).items():
        known = settings = list(heads[depth].settings(few=False))
        if first_pass is not None:
            settings = [known[int(first_pass[depth]["setting"])]]
        problem = Problem(values[: len(training)], training, recipe)
        setting, model, own = _best(problem, settings, values[len(training) :], validation)
        take_weights(heads[depth], model)
        found[depth] = {"setting": known.index(setting), "score": own.score, "loss": own.loss}
        part = f"{task}.refit@{depth}" if first_pass is not None else f"{task}@{depth}"
        log_solved(journal, part, started, problem.loss_of(model), own, setting)
    return found


def _best(
    problem: Problem, settings: Sequence[Setting], values: Tensor, validation: Labelled
) -> tuple[Setting, LinearModel, ValidationScore]:
    """The setting that does best on the validation rows, with its model and score."""
    best: tuple[Setting, LinearModel, ValidationScore] | None = None
    for group in by_layers(settings):
        for setting, model in zip(group, problem.solutions(group), strict=False):
            own = calibrated_score(model(values), validation)
            if best is None or improves(own, best[2]):
                best = setting, model, own
            elif own.score <= best[2].score and own.loss > best[2].loss:
                break
    assert best is not None
    return best


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
    return found


@torch.no_grad()
def take_weights(head: LinearHead, model: LinearModel) -> None:
    """Give the head the solved weights."""
    head.output.weight.copy_(model.weight)
    head.output.bias.copy_(model.bias)
    head.eval()


def calibrated_score(logits: Tensor, rows: Labelled) -> ValidationScore:
    """The score, and the loss under the temperature that a model with such logits gets."""
    fitted = training_kind(rows.task).calibrated(rows.task, logits.numpy(), rows.targets, None)
    return score(logits / fitted.temperature, rows)


def log_solved(
    journal: Journal,
    part: str,
    started: float,
    train_loss: float,
    found: ValidationScore | None,
    setting: Setting,
) -> None:
    """The one line of figures that a solved head leaves.

    Args:
        found: on rows that it was not solved on; none: there are no such.
    """
    journal.forget_after([part], 0)  # of a run that was stopped
    journal.log(
        part=part,
        epoch=1,
        step=1,
        seconds=round(time.monotonic() - started, 3),
        learning_rate=None,
        train_loss=train_loss,
        selection_score=None if found is None else found.score,
        selection_loss=None if found is None else found.loss,
        strength=setting.strength,
        layers=list(setting.layers),
    )
