"""Cores that a measurement keeps to, so that all in it have the same ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mtl_edge.engines.cores import physical_core

__all__ = ["free_cores", "pinned"]


def free_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may use; none where the system does not tell.

    Of each physical core one hardware thread comes first, and then their siblings.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    seen: Counter[tuple[str, ...]] = Counter()
    order = []
    for core in sorted(os.sched_getaffinity(0)):
        physical = physical_core(core)
        order.append((seen[physical], core))
        seen[physical] += 1
    return tuple(core for _, core in sorted(order))


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Keep what is started within to as many cores as there are threads, and give their numbers.

    Threads that run already stay where they are. Where there are no more cores than threads, all of
    them may be used; so where the system does not pin.
    """
    free = free_cores()
    cores = free[: max(1, threads)]
    if len(cores) == len(free):
        yield cores
        return
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, free)
