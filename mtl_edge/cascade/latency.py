"""What a batch takes, learnt from the batches that ran."""

from __future__ import annotations

import time

__all__ = ["Pace"]

KEPT = 0.9  # of the weight of what was seen before, with each batch: some ten count
# Sizes that differ by less than this share of their mean, squared, tell nothing of what size costs.
SPREAD = 0.01
# Seconds without a batch after which what was seen counts no more. A stage that seems too slow for
# a budget does not run, so nothing would correct what one slow batch said, as of a machine that
# swapped. The shorter, the sooner the stage is back; the longer, the fewer calls try a text that
# may take more time than they have.
AGE = 3.0


class Pace:
    """A line through the batches' tokens and seconds, the latest ones counting most.

    Least squares with exponential forgetting, as for a machine whose speed changes with what else
    it does; after `AGE` seconds without a batch it begins anew. Threads may share it: a batch that
    is added while another one is may be lost, which harms nothing.
    """

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._told = 0.0  # when, of `time.perf_counter`

    def add(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, padding included, took so long."""
        now = time.perf_counter()
        if now - seconds - self._told > AGE:
            self.clear()
        weight, x, y, xx, xy = (KEPT * value for value in self._sums)
        self._sums = (
            weight + 1,
            x + tokens,
            y + seconds,
            xx + tokens * tokens,
            xy + tokens * seconds,
        )
        self._told = now

    def seconds(self, tokens: int) -> float | None:
        """What a batch of so many tokens will take; none: nothing ran of late.

        Where all that ran was of one size, a smaller one is taken to cost as much, and a larger one
        in proportion: more than it will.
        """
        weight, x, y, xx, xy = self._sums
        if not weight or time.perf_counter() - self._told > AGE:
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
