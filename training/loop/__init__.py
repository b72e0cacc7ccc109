"""The loop in which everything learns: steps, figures, the best epoch, stops and restarts."""

from __future__ import annotations

from mtl_edge.training.loop.learner import Learner, ValidationScore, improves, score
from mtl_edge.training.loop.loop import Loop

__all__ = ["Learner", "Loop", "ValidationScore", "improves", "score"]
