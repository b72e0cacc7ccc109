"""Fair timing: systems take turns in rounds of one run.

The one loop of engine selection, `export --budget` and all benchmarks. A busy moment of the machine
falls on all who take part, and so does the order, which is drawn anew for each round: what ran
before changes a program's time by more than many a change that is to be measured (Mytkowicz et al.
2009, "Producing wrong data without doing anything obviously wrong!").
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

__all__ = [
    "LEAST_ROUNDS",
    "SETTLE",
    "WARM_UP",
    "Clock",
    "Timing",
    "clocked",
    "interleave",
    "time_calls",
    "wall_ms",
]

T = TypeVar("T")
Clock = Callable[[Callable[[], object]], float]  # milliseconds of a call

WARM_UP = 3
LEAST_ROUNDS = 3
SETTLE = 5e-3  # seconds in which the threads of the call before go to sleep; torch's spin on


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
        """Median, tenths and number of rounds, for a record."""
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


def interleave(
    turns: Mapping[str, Callable[[], T]],
    *,
    rounds: int,
    seconds: float = math.inf,
    between: Callable[[], object] | None = None,
) -> dict[str, list[T]]:
    """Give everyone a turn in each round, and collect what the turns return.

    Args:
        rounds: at most this many.
        seconds: no new round starts after this, but there are at least three.
        between: called after each round, as for progress.
    """
    rng = np.random.default_rng(0)
    names = list(turns)
    taken: dict[str, list[T]] = {name: [] for name in names}
    started = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - started > seconds:
            break
        for place in rng.permutation(len(names)):
            taken[names[place]].append(turns[names[place]]())
        if between is not None:
            between()
    return taken


def clocked(
    call: Callable[[], object],
    *,
    lead: int = 1,
    settle: float = SETTLE,
    clock: Clock | None = None,
) -> Callable[[], float]:
    """A turn that times `call`, in milliseconds.

    Args:
        lead: untimed calls before, since whoever was before has emptied the caches.
        settle: seconds of quiet before those.
        clock: milliseconds of a call; by default those of the wall.
    """
    measured = clock or wall_ms

    def turn() -> float:
        time.sleep(settle)
        for _ in range(lead):
            call()
        return measured(call)

    return turn


def wall_ms(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    before = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - before)


def time_calls(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    seconds: float = 10.0,
    warm_up: int = WARM_UP,
    lead: int = 1,
    settle: float = SETTLE,
    between: Callable[[], object] | None = None,
    clock: Clock | None = None,
) -> dict[str, Timing]:
    """Time `calls` in interleaved rounds, each warmed up before the first.

    Args:
        rounds, seconds, between: see `interleave`.
        warm_up: untimed calls of each before the first round.
        lead, settle, clock: see `clocked`.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    turns = {name: clocked(call, lead=lead, settle=settle, clock=clock)
             for name, call in calls.items()}  # fmt: skip
    taken = interleave(turns, rounds=rounds, seconds=seconds, between=between)
    return {name: Timing(tuple(times)) for name, times in taken.items()}
