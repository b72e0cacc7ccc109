"""A task's gate from own texts and foreign ones, and the threshold that keeps the promise.

The gate is a logistic regression. Its threshold is fitted on logits that each text gets from a gate
that was fitted without it: the largest under which so few of the task's own texts fall that the
upper bound of Clopper and Pearson (1934) for their share is at most the one promised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta
from torch import Tensor, nn

from mtl_edge.training.solve import Features, linear_model

__all__ = ["CONFIDENCE", "Gate", "GateTexts", "bound_of", "fewest_texts", "solve_gate"]

CONFIDENCE = 0.95
FOLDS = 5
STRENGTH = 10.0  # of the rows against the penalty: see `mtl_edge.training.solve`
CERTAINTY_SPREAD = 0.3  # of the certainty beside states of mean squared norm 1

Values = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GateTexts:
    """Texts that a gate is fitted to, each once.

    Attributes:
        means: mean states `[n, width]`.
        certainty: of the task's logits, `[n]`, of a head that has not seen the text; None: unused.
        own: which are in the task's domain, `[n]`.
        weights: how much each counts, `[n]`.
    """

    means: Values
    certainty: Values | None
    own: Mask
    weights: Values

    def take(self, which: Mask) -> GateTexts:
        certainty = None if self.certainty is None else self.certainty[which]
        return GateTexts(self.means[which], certainty, self.own[which], self.weights[which])


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate, and what was found with it.

    Attributes:
        weights: see `mtl_edge.training.domain.gate.GateWeights`.
        threshold: probability below which a text is foreign; 0: no text is.
        refused: own texts below it.
        logits: of the texts that it was fitted to, each by a gate that had not seen it, `[n]`.
    """

    weights: Tensor
    threshold: float
    refused: int
    logits: Values


def solve_gate(texts: GateTexts, share: float, level: float = 1 - CONFIDENCE) -> Gate:
    """The gate of one task.

    Args:
        share: of own texts that may be called foreign.
        level: chance that they are more.
    """
    logits = np.empty(len(texts.own), np.float32)
    folds = np.random.default_rng(0).permutation(len(logits)) % FOLDS
    for fold, rest in _folds(texts, folds):
        logits[folds == fold] = _logits(_solved(rest), texts.take(folds == fold))
    own = np.sort(logits[texts.own])
    allowed = _most_refused(len(own), share, level)
    # As the runtime computes it, so that the text that it is of reaches it.
    threshold = 0.0 if allowed is None else float((np.tanh(own[allowed] / 2) + 1) / 2)
    refused = 0 if allowed is None else int((own < own[allowed]).sum())
    return Gate(_solved(texts), threshold, refused, logits)


def _folds(texts: GateTexts, folds: npt.NDArray[np.int64]) -> Iterator[tuple[int, GateTexts]]:
    """Each fold, with the texts of the others."""
    return ((fold, texts.take(folds != fold)) for fold in range(FOLDS))


def bound_of(refused: int, rows: int, level: float = 1 - CONFIDENCE) -> float:
    """What the share of refused rows is at most, but for the chance `level`."""
    return float(beta.ppf(1 - level, refused + 1, rows - refused)) if refused < rows else 1.0


def fewest_texts(share: float, level: float = 1 - CONFIDENCE) -> int:
    """How many own texts a promise takes."""
    return int(np.ceil(np.log(level) / np.log1p(-share)))


def _most_refused(rows: int, share: float, level: float) -> int | None:
    """How many own texts may be refused; None: so few can promise nothing."""
    if not rows or bound_of(0, rows, level) > share:
        return None
    refused = 0
    while bound_of(refused + 1, rows, level) <= share:
        refused += 1
    return refused


class _WeightedRows(nn.Module):
    """Binary cross-entropy, each row by its weight."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """
        Args:
            targets: right answer and weight, `[n, 2]`.
        """
        right, weights = targets.unbind(1)
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], right, reduction="none"
        )
        return (losses * weights).mean()


def _solved(texts: GateTexts) -> Tensor:
    """The weights of the logistic regression, see `Gate`."""
    size = float(np.sqrt(np.square(texts.means, dtype=np.float64).sum(1).mean())) or 1.0
    center, spread = 0.0, 0.0
    values = texts.means
    if texts.certainty is not None:
        center = float(texts.certainty[texts.own].mean())
        spread = CERTAINTY_SPREAD * size / (float(texts.certainty[texts.own].std()) or 1.0)
        values = np.column_stack([values, spread * (texts.certainty - center)])
    targets = torch.from_numpy(np.column_stack([texts.own, texts.weights]).astype(np.float32))
    features = Features(torch.from_numpy(values.astype(np.float32)))
    model = linear_model(features, targets, 1, _WeightedRows(), STRENGTH)
    weights, bias = model.weight[0], model.bias[0]
    if texts.certainty is None:
        return torch.cat([weights, torch.zeros(1), bias.view(1)])
    of_certainty = spread * weights[-1]
    bias = bias - center * of_certainty
    return torch.cat([weights[:-1], of_certainty.view(1), bias.view(1)])


def _logits(weights: Tensor, texts: GateTexts) -> Values:
    found: Values = texts.means @ weights[:-2].numpy() + float(weights[-1])
    if texts.certainty is not None:
        found = found + float(weights[-2]) * texts.certainty
    return found.astype(np.float32)
