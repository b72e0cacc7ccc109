"""One training run: tasks and a backbone in, a checkpoint out."""

from __future__ import annotations

from mtl_edge.training.run.pipeline import train

__all__ = ["train"]
