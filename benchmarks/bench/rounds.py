"""Calls in turn, in an order drawn anew each round, and what their times say of each other.

The order matters: each call runs in the caches and at the clock that the one before left. Drawn
anew, that falls on all alike (Mytkowicz et al. 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from time import perf_counter

import numpy as np
import numpy.typing as npt

from mtl_edge.benchmarks.bench.bootstrap import median_of
from mtl_edge.benchmarks.bench.schema import Noise, Pair, Timed
from mtl_edge.timing import WARM_UP, Timing, alternate

__all__ = ["AGAIN", "MOST_NOISE", "in_random_order", "noise_of", "pairs_of", "timed"]

AGAIN = "the first, again"  # the name of its second turn in each round
MOST_NOISE = 0.1
LEAST_ROUNDS = 3

Times = Mapping[str, npt.ArrayLike]


def in_random_order(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float,
    warm_up: int = WARM_UP,
    between: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """`mtl_edge.timing.alternate`, each round in another order.

    Args:
        rounds: at most this many.
        seconds: no new round starts after this, but there are at least three.
        warm_up: untimed calls of each before the first round.
        between: called after each round, as for progress.
    """
    rng = np.random.default_rng(0)
    names = list(calls)
    alternate(calls, rounds=0, warm_up=warm_up)
    taken: dict[str, list[float]] = {name: [] for name in names}
    started = perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and perf_counter() - started > seconds:
            break
        order = {names[place]: calls[names[place]] for place in rng.permutation(len(names))}
        for name, timing in alternate(order, rounds=1, warm_up=0).items():
            taken[name] += timing.rounds
        if between is not None:
            between()
    return {name: Timing(tuple(times)) for name, times in taken.items()}


def pairs_of(times: Times) -> list[Pair]:
    """Every contender against each one before it, by the ratios of each round, or of each text."""
    return [
        Pair(name, to, median_of(np.asarray(times[to]) / np.asarray(times[name])))
        for to, name in combinations([name for name in times if name != AGAIN], 2)
    ]


def noise_of(times: Times) -> Noise:
    """What the first contender's two turns say: their ratio's median and quartiles."""
    first = next(iter(times))
    low, middle, high = np.quantile(
        np.asarray(times[AGAIN]) / np.asarray(times[first]), [0.25, 0.5, 0.75]
    )
    return Noise(float(middle), float(low), float(high), float(max(abs(low - 1), abs(high - 1))))


def timed(rounds: Sequence[float], floor_ms: float | None = None) -> Timed:
    """Median and tails of all rounds, and the share of the floor that they reach."""
    p10, median, p90 = np.quantile(rounds, [0.1, 0.5, 0.9])
    return Timed(
        median=float(median),
        p10=float(p10),
        p90=float(p90),
        rounds=[round(value, 4) for value in rounds],
        share_of_floor=None if floor_ms is None else floor_ms / float(median),
    )
