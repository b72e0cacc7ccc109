"""What a batch takes, learnt from the batches that ran."""

from __future__ import annotations

__all__ = ["Pace"]

KEPT = 0.9  # of the weight of what was seen before, with each batch: some ten count
# Sizes that differ by less than this share of their mean, squared, tell nothing of what size costs.
SPREAD = 0.01


class Pace:
    """A line through the batches' tokens and seconds, the latest ones counting most.

    Least squares with exponential forgetting, as for a machine whose speed changes with what else
    it does. Threads may share it: a batch that is added while another one is may be lost, which
    harms nothing.
    """

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, padding included, took so long."""
        weight, x, y, xx, xy = (KEPT * value for value in self._sums)
        self._sums = (
            weight + 1,
            x + tokens,
            y + seconds,
            xx + tokens * tokens,
            xy + tokens * seconds,
        )

    def seconds(self, tokens: int) -> float | None:
        """What a batch of so many tokens will take; none: nothing ran yet.

        Where all that ran was of one size, a smaller one is taken to cost as much, and a larger one
        in proportion: more than it will.
        """
        weight, x, y, xx, xy = self._sums
        if not weight:
            return None
        size, mean = x / weight, y / weight
        variance = xx / weight - size * size
        if variance <= SPREAD * size * size:
            return mean * max(1.0, tokens / size)
        slope = max(0.0, (xy / weight - size * mean) / variance)
        constant = mean - slope * size
        if constant < 0:
            return mean * tokens / size
        return constant + slope * tokens

    def clear(self) -> None:
        """Forget all, as what ran before shapes were warm."""
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
