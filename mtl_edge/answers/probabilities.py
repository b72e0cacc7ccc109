"""Logits to probabilities."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["sigmoid", "softmax"]

Float = TypeVar("Float", np.float32, np.float64)


def softmax(logits: npt.NDArray[Float], temperature: float = 1.0) -> npt.NDArray[Float]:
    """Probabilities over the last axis, of logits divided by `temperature`."""
    scaled = logits / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: npt.NDArray[Float] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: npt.NDArray[Float], temperature: float = 1.0) -> npt.NDArray[Float]:
    """A probability for each logit by itself, divided by `temperature`."""
    # By tanh, which does not overflow.
    result: npt.NDArray[Float] = (np.tanh(logits / (2 * temperature)) + 1) / 2
    return result
