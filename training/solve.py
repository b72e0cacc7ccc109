"""Linear heads, solved: regularized linear models on pooled states, by L-BFGS.

`linear_model` minimizes the sum of the rows' losses, times the strength of the data, plus half the
squared weights; the bias is free. That is scikit-learn's `LogisticRegression` with `C` for the
strength, on the same features. The problem is convex, so there is one answer, whatever the seed.

A kind of task is one entry of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["OBJECTIVES", "Features", "LinearModel", "linear_model"]

ITERATIONS = 500
# Relative change of the objective at which the search ends: below what float32 tells apart.
PRECISION = 1e-7

Vector = npt.NDArray[np.float64]
# Logits `[rows, labels]` and targets to each row's loss, and its derivative by the logits.
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of one label a row: multinomial logistic regression."""
    logs = torch.log_softmax(logits, 1)
    chosen = targets.unsqueeze(1)
    slope = logs.exp().scatter_add_(1, chosen, -torch.ones_like(logs[:, :1]))
    return -logs.gather(1, chosen).squeeze(1), slope


OBJECTIVES: Mapping[str, Objective] = {"single": _softmax}


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`features @ weight.T + bias` are logits: weight `[labels, features]`, bias `[labels]`."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


class Features:
    """Rows' features, centred and turned to their principal directions.

    There the Hessian of the objective is nearly diagonal, so that L-BFGS needs tens of steps where
    it took hundreds, and no more directions than rows are needed.

    Args:
        values: float32 `[rows, features]`.

    Attributes:
        scale: mean squared norm of a row: strengths are divided by it, so that they mean the same
            for features of any size.
    """

    def __init__(self, values: Tensor) -> None:
        rows, width = values.shape
        exact = values.double()
        self.scale = float(exact.square().sum(1).mean().clamp(min=1e-12))
        self.mean = exact.mean(0)
        centred = exact - self.mean
        if rows < width:
            variances, sides = torch.linalg.eigh(centred @ centred.T)
            kept = variances > 1e-9 * variances[-1].clamp(min=1e-12)
            self.variances = variances[kept]
            self.directions = centred.T @ (sides[:, kept] / self.variances.sqrt())
        else:
            variances, self.directions = torch.linalg.eigh(centred.T @ centred)
            self.variances = variances.clamp(min=0)
        self.values = (centred @ self.directions).float()


def linear_model(
    features: Features,
    targets: Tensor,
    labels: int,
    strength: float,
    *,
    kind: str = "single",
    row_weights: Tensor | None = None,
    start: LinearModel | None = None,
) -> LinearModel:
    """The one linear model that minimizes the objective.

    Args:
        targets: as the kind's entry of `OBJECTIVES` takes them; positions of labels for `single`.
        strength: of the data against the penalty, for features of mean squared norm 1.
        row_weights: of each row's loss; none: 1.
        start: where to begin, as the answer for a strength nearby; only the time depends on it.
    """
    strength = strength / features.scale
    rows, size = features.values.shape
    # Each direction is scaled by about the inverse root of the objective's curvature along it.
    curvature = strength / labels * (1 - 1 / labels)
    scales = (1 + curvature * features.variances).rsqrt().unsqueeze(1)
    bias_scale = (curvature * rows) ** -0.5
    values, penalty = features.values * scales.float().T, scales.square().numpy()
    weights = None if row_weights is None else row_weights.unsqueeze(1)
    objective = OBJECTIVES[kind]

    def value_and_slope(flat: Vector) -> tuple[float, Vector]:
        point = flat.reshape(size + 1, labels)
        at = torch.from_numpy(point.astype(np.float32))
        losses, slopes = objective(values @ at[:-1] + bias_scale * at[-1], targets)
        if weights is not None:
            losses, slopes = losses * weights[:, 0], slopes * weights
        slope = np.empty_like(point)
        slope[:-1] = strength * (values.T @ slopes).numpy() + penalty * point[:-1]
        slope[-1] = strength * bias_scale * slopes.sum(0).numpy()
        total = strength * float(losses.double().sum()) + float((penalty * point[:-1] ** 2).sum()) / 2
        return total, slope.ravel()

    first = np.zeros((size + 1, labels))
    if start is not None:
        first[:-1] = ((start.weight.double() @ features.directions).T / scales).numpy()
        first[-1] = ((start.bias.double() + start.weight.double() @ features.mean) / bias_scale).numpy()
    found = minimize(
        value_and_slope, first.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": PRECISION, "gtol": 1e-6, "maxcor": 20},
    )  # fmt: skip
    point = torch.from_numpy(found.x.reshape(size + 1, labels))
    weight = (features.directions @ (scales * point[:-1])).T
    return LinearModel(weight.float(), (bias_scale * point[-1] - weight @ features.mean).float())
