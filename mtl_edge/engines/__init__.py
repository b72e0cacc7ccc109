"""What executes a graph. One module per engine; `ENGINES` names them all."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_edge.errors import EngineError, MissingPackageError, OptionError

__all__ = [
    "CPU",
    "ENGINES",
    "Engine",
    "Logits",
    "Setup",
    "automatic",
    "available",
    "default_threads",
    "start",
]

MOST_THREADS = 512
CPU = "CPU"

Logits = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Setup:
    """How an engine shall run a graph.

    Attributes:
        threads: none: all cores that this process may use.
        max_tokens: that the graph takes in a text; none: any number.
        precision: of the graph.
        device: `CPU`, or what the engine calls another: `CUDA`, `CoreML`, `Dml`, ... in ONNX
            Runtime, `GPU` and `NPU` in OpenVINO.
    """

    threads: int | None = None
    max_tokens: int | None = None
    precision: str = "int8"
    device: str = CPU


class Engine(Protocol):
    """A graph ready to run."""

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> Logits:
        """Logits `[batch, labels]` per task for inputs `[batch, tokens]`."""
        ...

    def close(self) -> None:
        """Release the graph."""
        ...


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Where an engine's code is and what it needs.

    Attributes:
        module: holds `start(files, setup) -> Engine`.
        package: must be importable.
        install: what pip installs for it.
        runs: whose graphs it can open, by the engine that a manifest names.
        also: packages that it needs besides.
        automatic: devices on which `auto` counts it, without a number; none: on every one.
    """

    module: str
    package: str
    install: str
    runs: tuple[str, ...]
    also: tuple[str, ...] = ()
    automatic: tuple[str, ...] | None = None


ENGINES: Mapping[str, EngineInfo] = {
    "onnxruntime": EngineInfo(
        "mtl_edge.engines.onnxruntime", "onnxruntime", "onnxruntime", runs=("onnxruntime",)
    ),
    "openvino": EngineInfo(
        "mtl_edge.engines.openvino", "openvino", "mtl-edge[openvino]", runs=("openvino",)
    ),
    "torch": EngineInfo(
        "mtl_edge.engines.torch",
        "torch",
        "mtl-edge[torch]",
        runs=("onnxruntime",),
        also=("onnx",),
        automatic=("CUDA",),
    ),
}


def available(name: str) -> bool:
    """Whether the engine is known and what it needs installed."""
    return name in ENGINES and not _missing(ENGINES[name])


def _missing(info: EngineInfo) -> list[str]:
    return [p for p in (info.package, *info.also) if importlib.util.find_spec(p) is None]


def automatic(name: str, device: str) -> bool:
    """Whether `auto` may take the engine on a device: installed, and meant for it."""
    if not available(name):
        return False
    meant = ENGINES[name].automatic
    return meant is None or device.partition(":")[0] in meant


def default_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def start(name: str, files: Sequence[Path], setup: Setup = Setup()) -> Engine:
    """Open a graph with the engine `name`.

    Args:
        files: the graph's; the one to open first.

    Raises:
        EngineError: the engine or the device is unknown, or it refuses a file.
        MissingPackageError: the engine's package is not installed.
        OptionError: the number of threads is out of range.
    """
    if setup.threads is not None and not 1 <= setup.threads <= MOST_THREADS:
        raise OptionError(f"threads is {setup.threads}, expected 1 to {MOST_THREADS}")
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    info = ENGINES[name]
    if missing := _missing(info):
        raise MissingPackageError(
            f"engine {name} needs the package {missing[0]}; "
            f"install it with `pip install '{info.install}'`"
        )
    setup = replace(setup, threads=setup.threads or default_threads())
    engine: Engine = importlib.import_module(info.module).start(files, setup)
    return engine
