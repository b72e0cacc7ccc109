"""Calibration: temperatures, calibration error, and thresholds for abstaining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import beta

__all__ = ["NEVER", "calibration_error", "fit_decisions", "fit_temperature", "fit_thresholds"]

BINS = 15
CONFIDENCE = 0.9
PRIOR_SPREAD = 0.5  # of the temperature's logarithm
SHARES = 10
NEVER = 1.01  # no probability reaches it
UNSEEN = 0.5  # the threshold of a label without rows to fit one on
NEAR_BEST = 0.95  # of the largest F1
LEAST = 1e-12


def fit_temperature(
    logits: npt.NDArray[np.float32], labels: Sequence[int] | npt.NDArray[Any]
) -> float:
    """The temperature under which `logits` are best calibrated (Guo et al. 2017, arXiv:1706.04599).

    Args:
        labels: right positions; or, for logits that are independent of each other, 0 to 1 for each.

    Returns:
        The most likely between 0.05 and 20, if its logarithm is before any row normal around 0: of
        a handful of rows all right, no temperature is too low for the rows alone.
    """
    targets = np.asarray(labels)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        prior = log_temperature**2 / (2 * PRIOR_SPREAD**2)
        if targets.ndim == 2:
            return float((np.logaddexp(0, scaled) - targets * scaled).sum()) + prior
        scaled -= scaled.max(1, keepdims=True)
        partition = np.log(np.exp(scaled).sum(1))
        return float((partition - scaled[np.arange(len(targets)), targets]).sum()) + prior

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def calibration_error(probabilities: npt.NDArray[np.float32], right: npt.NDArray[Any]) -> float:
    """Expected calibration error of the largest probability, 15 equal bins (Naeini et al. 2015).

    Args:
        right: right positions; or, of independent labels, whether each is there.
    """
    if right.ndim == 2:  # each label's own probability is one to look at
        sure, hit = probabilities.ravel(), right.ravel()
    else:
        sure, hit = probabilities.max(1), probabilities.argmax(1) == right
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [
        abs(hit[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
        for b in range(BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def fit_thresholds(
    probabilities: npt.NDArray[np.float32], labels: Sequence[int], accuracy: float
) -> tuple[float, ...]:
    """Per label, the least probability from which on its answers are right at `accuracy`.

    A label's answers are ordered by how sure they are. Of the surest tenth, two tenths and so on,
    the largest share is chosen for which the lower bound of its accuracy (Clopper & Pearson 1934)
    reaches `accuracy` with 90% confidence, divided among the ten tests: selection with a guaranteed
    risk (Geifman & El-Yaniv 2017, arXiv:1705.08500). A label for which no share does, as when it
    has few answers, gets a threshold that no probability reaches.
    """
    answers, sure = probabilities.argmax(1), probabilities.max(1)
    right = answers == np.asarray(labels)
    thresholds = []
    for label in range(probabilities.shape[1]):
        order = np.flatnonzero(answers == label)
        order = order[np.argsort(-sure[order], kind="stable")]
        found = NEVER
        for tenths in range(SHARES, 0, -1):
            count = len(order) * tenths // SHARES
            good = int(right[order[:count]].sum())
            error = (1 - CONFIDENCE) / SHARES
            if good and beta.ppf(error, good, count - good + 1) >= accuracy:
                found = float(sure[order[count - 1]])
                break
        thresholds.append(found)
    return tuple(thresholds)


def fit_decisions(
    probabilities: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]
) -> tuple[float, ...]:
    """Per label, the probability from which on to say that a text has it, for a large F1.

    The geometric mean of all thresholds whose F1 is within a twentieth of the largest: the one that
    is best on rows of a rare label is mostly so by chance.

    Args:
        probabilities, right: `[rows, labels]`.

    Returns:
        `UNSEEN` for labels that no row has.
    """
    return tuple(
        _decision(probabilities[:, label], right[:, label]) for label in range(right.shape[1])
    )


def _decision(probability: npt.NDArray[np.float32], has: npt.NDArray[np.bool_]) -> float:
    if not has.any():
        return UNSEEN
    order = np.argsort(-probability, kind="stable")
    thresholds = probability[order].astype(np.float64)
    f1 = 2 * np.cumsum(has[order]) / (np.arange(1, len(order) + 1) + has.sum())
    # A threshold does not split equal ones, so that what counts is the last of them.
    last = np.append(thresholds[:-1] > thresholds[1:], True)
    good = last & (f1 >= NEAR_BEST * f1[last].max())
    return float(np.exp(np.log(thresholds[good].clip(LEAST)).mean()))
