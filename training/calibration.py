"""Probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from mtl_edge.probabilities import softmax

__all__ = ["calibration_error", "fit_temperature"]

BINS = 15


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
