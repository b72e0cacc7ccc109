"""Linear models, solved: regularized fits to features that do not change, by L-BFGS.

`linear_model` minimizes the sum of the rows' losses times a strength, plus half the squared
weights; the bias is free. With a loss of cross-entropy that is scikit-learn's `LogisticRegression`
with `C` for the strength, with one of squared errors ridge regression. These problems are convex,
so there is one answer, whatever the seed. The loss is the task's own, see
`mtl_edge.training.kinds`: a new kind of task needs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

__all__ = ["Features", "LinearModel", "linear_model"]

ITERATIONS = 500
# Relative change of the objective at which the search ends: about what float32 tells apart.
PRECISION = 1e-7
STEP = 1e-2  # of logits, over which the loss's curvature is taken

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`features @ weight.T + bias` are logits: weight `[outputs, features]`, bias `[outputs]`."""

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


class _Loss:
    """The sum of the rows' losses and its derivative by the logits.

    Args:
        criterion: the mean over rows, from logits and targets.
    """

    def __init__(self, criterion: nn.Module, targets: Tensor) -> None:
        self._criterion, self._targets = criterion, targets

    def __call__(self, logits: Tensor) -> tuple[float, Tensor]:
        logits = logits.detach().requires_grad_()
        with torch.enable_grad():
            total = len(logits) * self._criterion(logits, self._targets)
            (slope,) = torch.autograd.grad(total, logits)
        return float(total.detach()), slope

    def curvature(self, outputs: int) -> float:
        """Of a row's loss along one logit, the mean over all of them, where they are 0.

        The trace of the Hessian by Hutchinson's estimator.
        """
        signs = torch.randint(
            2, (len(self._targets), outputs), generator=torch.Generator().manual_seed(0)
        )
        step = STEP * (2.0 * signs - 1)
        _, ahead = self(step)
        _, behind = self(-step)
        return max(float((step * (ahead - behind)).mean()) / (2 * STEP**2), 1e-6)


def linear_model(
    features: Features,
    targets: Tensor,
    outputs: int,
    criterion: nn.Module,
    strength: float,
    start: LinearModel | None = None,
) -> LinearModel:
    """The one linear model that minimizes the objective.

    Args:
        criterion: the mean loss of logits `[rows, outputs]` and targets.
        strength: of the losses against the penalty, for features of mean squared norm 1.
        start: where to begin, as the answer for a strength nearby; only the time depends on it.
    """
    strength, loss = strength / features.scale, _Loss(criterion, targets)
    rows, size = features.values.shape
    # Each direction is scaled by about the inverse root of the objective's curvature along it.
    curvature = strength * loss.curvature(outputs)
    scales = (1 + curvature * features.variances).rsqrt().unsqueeze(1)
    bias_scale = (curvature * rows) ** -0.5
    values, penalty = features.values * scales.float().T, scales.square().numpy()

    def value_and_slope(flat: Vector) -> tuple[float, Vector]:
        point = flat.reshape(size + 1, outputs)
        at = torch.from_numpy(point.astype(np.float32))
        total, slopes = loss(values @ at[:-1] + bias_scale * at[-1])
        shrunk = penalty * point[:-1]
        slope = np.empty_like(point)
        slope[:-1] = strength * (values.T @ slopes).numpy() + shrunk
        slope[-1] = strength * bias_scale * slopes.sum(0).numpy()
        return strength * total + float((shrunk * point[:-1]).sum()) / 2, slope.ravel()

    first = np.zeros((size + 1, outputs))
    if start is not None:
        weight = start.weight.double()
        first[:-1] = ((weight @ features.directions).T / scales).numpy()
        first[-1] = ((start.bias.double() + weight @ features.mean) / bias_scale).numpy()
    found = minimize(
        value_and_slope, first.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": PRECISION, "gtol": 1e-6, "maxcor": 20},
    )  # fmt: skip
    point = torch.from_numpy(found.x.reshape(size + 1, outputs))
    weight = (features.directions @ (scales * point[:-1])).T
    return LinearModel(weight.float(), (bias_scale * point[-1] - weight @ features.mean).float())
