"""Fair timing: several calls measured in alternating rounds of one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Timing", "alternate"]

WARM_UP = 3
QUIET_MS = 5.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one call over all rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.rounds, q))

    def to_json(self) -> dict[str, float | int]:
        """Median, spread and number of rounds, for the record."""
        return {
            "median": self.median,
            "p10": self.quantile(0.1),
            "p90": self.quantile(0.9),
            "rounds": len(self.rounds),
        }

    def ratio_of(self, other: Timing) -> tuple[float, float, float]:
        """How many times longer `other` took, round by round: median, lower and upper quartile."""
        ratios = np.asarray(other.rounds) / np.asarray(self.rounds)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return float(middle), float(low), float(high)


def alternate(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    seconds: float = 10.0,
    warm_up: int = WARM_UP,
    between: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time `calls` in turn, so that a busy moment of the machine falls on all of them.

    Each is warmed up first. In each round every call runs once untimed, since the one before has
    emptied the caches, and once timed.

    Args:
        rounds: at most this many.
        seconds: no new round starts after this, but there are at least three.
        warm_up: untimed calls of each before the first round.
        between: called before each round, as for progress.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - started > seconds:
            break
        if between is not None:
            between()
        for name, call in calls.items():
            _settle()
            call()
            before = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - before))
    return {name: Timing(tuple(times)) for name, times in taken.items()}


def _settle() -> None:
    """Let the previous call's worker threads go to sleep: torch's spin on for milliseconds."""
    time.sleep(QUIET_MS / 1e3)
