"""Calibration: temperatures, calibration error, and thresholds for abstaining."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from mtl_edge.answers.probabilities import softmax

__all__ = ["NEVER", "calibration_error", "fit_temperature", "fit_thresholds"]

BINS = 15
CONFIDENCE = 0.9
SHARES = 10
NEVER = 1.01  # no probability reaches it


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


def calibration_error(
    logits: npt.NDArray[np.float32], labels: Sequence[int], temperature: float
) -> float:
    """Expected calibration error of the largest probability, 15 equal bins (Naeini et al. 2015)."""
    probabilities = softmax(logits.astype(np.float64), temperature)
    sure = probabilities.max(1)
    right = probabilities.argmax(1) == np.asarray(labels)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
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
