"""Where figures come from: the machine, the cores that are used, and the command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mtl_edge.benchmarks.core.record import Machine
from mtl_edge.engines.cores import default_threads, physical_core

__all__ = ["command_line", "describe", "free_cores", "pinned", "portable"]

PACKAGES = ("mtl-edge", "torch", "transformers", "onnxruntime", "onnxruntime-gpu", "openvino",
            "nncf", "numpy")  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def describe(accelerator: str | None = None) -> Machine:
    """This machine, now."""
    return Machine(
        processor=_cpuinfo("model name") or platform.processor() or "unknown",
        instructions=_instructions(),
        cores=default_threads(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
        load_before=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        accelerator=accelerator,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpuinfo(field: str) -> str:
    """A field of Linux's description of the first core, or nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(field))
    return next(values, "")


def _instructions() -> list[str]:
    present = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in FLAGS if flag in present]


def free_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may use; empty where the system does not tell.

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


def command_line(start: str, given: Sequence[str] | None) -> str:
    """The command that repeats a measurement, without folders that only one machine has.

    Of an absolute path the name alone is kept, but within the folder that `$DATA` stands for.

    Args:
        start: as `mtl-edge bench`.
        given: its arguments; None: those of this process.
    """
    arguments = sys.argv[1:] if given is None else given
    words = [portable(argument) for argument in arguments]
    # The variable's name is left as it is, for a shell to fill in.
    return " ".join([start, *(w if "$DATA/" in w else shlex.quote(w) for w in words)])


def portable(argument: str) -> str:
    """An argument as it may stand in a record."""
    before, sign, value = argument.rpartition("=")
    if not os.path.isabs(value):
        return argument
    path, data = Path(value), os.environ.get("DATA")
    if data and path.is_relative_to(data):
        return f"{before}{sign}$DATA/{path.relative_to(data)}"
    return f"{before}{sign}{path.name}"
