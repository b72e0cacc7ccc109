"""An estimator of how long a batch takes, fitted online to the batches that ran."""

from __future__ import annotations

import time

__all__ = ["LatencyEstimator"]

DECAY = 0.9  # of the weight of earlier batches, with each new one: some ten count
# Below this relative variance of batch sizes, no slope is fitted: all batches count as of one size.
LEAST_VARIANCE = 0.01
# Seconds without a batch after which the estimate is dropped. A stage that seems too slow for a
# budget does not run, so nothing would correct what one slow batch said, as of a machine that
# swapped. The shorter, the sooner the stage is back; the longer, the fewer calls try a text that
# may take more time than they have.
EXPIRY = 3.0


class LatencyEstimator:
    """Seconds of a batch as a linear function of its tokens, the latest batches counting most.

    Least squares with exponential forgetting, since a machine's speed changes with what
    else it does; after `EXPIRY` seconds without a batch it begins anew. Threads may share it: of
    two batches that are added at once one may be lost, which does no harm.
    """

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._latest = 0.0  # when a batch was last added, of `time.perf_counter`

    def add(self, tokens: int, seconds: float) -> None:
        """Learn from a batch of so many tokens, padding included, that took so long."""
        now = time.perf_counter()
        if now - seconds - self._latest > EXPIRY:
            self.clear()
        weight, x, y, xx, xy = (DECAY * value for value in self._sums)
        self._sums = (
            weight + 1,
            x + tokens,
            y + seconds,
            xx + tokens * tokens,
            xy + tokens * seconds,
        )
        self._latest = now

    def seconds(self, tokens: int) -> float | None:
        """The estimate for a batch of so many tokens; None if nothing has run of late.

        Where all batches were of one size, a smaller one is taken to cost as much, and a larger one
        in proportion, which is more than it will.
        """
        weight, x, y, xx, xy = self._sums
        if not weight or time.perf_counter() - self._latest > EXPIRY:
            return None
        size, mean = x / weight, y / weight
        variance = xx / weight - size * size
        if variance <= LEAST_VARIANCE * size * size:
            return mean * max(1.0, tokens / size)
        slope = max(0.0, (xy / weight - size * mean) / variance)
        constant = mean - slope * size
        if constant < 0:
            return mean * tokens / size
        return constant + slope * tokens

    def clear(self) -> None:
        """Forget everything, as of runs that were a warm-up."""
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
