"""What tells how long work takes: a GPU's own events, or the host's clock where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch

from mtl_edge.timing import Timing

__all__ = ["Clock", "CudaClock", "HostClock", "alternate", "clock_of"]

Call = Callable[[], object]
WARM_UP = 5  # calls; of a CUDA graph the first two run step by step and record
MOST_MS = 200.0  # of one call's turn


class Clock(Protocol):
    def ms(self, call: Call, iterations: int) -> list[float]:
        """Milliseconds of each of so many calls in a row."""
        ...


class HostClock:
    """Calls that end with their work done."""

    def ms(self, call: Call, iterations: int) -> list[float]:
        taken = []
        for _ in range(iterations):
            start = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - start))
        return taken


class CudaClock:
    """Events in the current stream around each call; the host waits once, at the end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def ms(self, call: Call, iterations: int) -> list[float]:
        pairs = [(_event(), _event()) for _ in range(iterations)]
        torch.cuda.synchronize(self._device)
        for start, end in pairs:
            start.record()
            call()
            end.record()
        torch.cuda.synchronize(self._device)
        return [float(start.elapsed_time(end)) for start, end in pairs]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock_of(device: torch.device) -> Clock:
    """For work on a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()


def alternate(
    calls: Mapping[str, tuple[Call, Clock]],
    *,
    rounds: int,
    iterations: int,
    between: Call | None = None,
) -> dict[str, Timing]:
    """Each round's median of `iterations` calls in a row, by turns, so that clocks and heat are
    the same for all; calls that are slow are made less often.

    Args:
        rounds: every second one goes through the calls backwards.
        between: called before each round, as for progress.
    """
    often = {}
    for name, (call, clock) in calls.items():
        ms = min(clock.ms(call, WARM_UP))
        often[name] = max(2, min(iterations, int(MOST_MS / max(ms, 1e-3))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for _ in range(rounds):
        if between is not None:
            between()
        for name in names:
            call, clock = calls[name]
            call()
            taken[name].append(float(np.median(clock.ms(call, often[name]))))
        names.reverse()
    return {name: Timing(tuple(times)) for name, times in taken.items()}
