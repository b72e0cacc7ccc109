"""How many threads an engine gets unless told."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["MOST_BY_DEFAULT", "default_threads", "physical_core", "physical_cores"]

MOST_BY_DEFAULT = 8  # beyond, a small encoder's threads wait for each other more than they compute
TOPOLOGY = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int:
    """The physical cores that this process may use, at most eight."""
    return min(MOST_BY_DEFAULT, physical_cores())


def physical_cores() -> int:
    """Cores that this process may use by its affinity and its container's quota.

    Two hardware threads of one core count once where Linux tells; elsewhere all count.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {physical_core(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, int(min(len(cores), _quota())))


def physical_core(cpu: int) -> tuple[str, ...]:
    """What is the same for the hardware threads of one core."""
    folder = TOPOLOGY / f"cpu{cpu}/topology"
    try:
        return tuple((folder / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:  # not told, as in some containers
        return (str(cpu),)


def _quota() -> float:
    """Cores' worth of time that a container has (cgroup v2), rounded up; infinite without one."""
    try:
        limit, period = QUOTA.read_text().split()
        return math.inf if limit == "max" else math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return math.inf
