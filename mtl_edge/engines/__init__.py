"""What executes a graph. One module per engine; `ENGINES` names them all."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_edge.errors import EngineError, MissingPackageError, OptionError

__all__ = ["ENGINES", "Engine", "Logits", "available", "default_threads", "start"]

MOST_THREADS = 512

Logits = dict[str, npt.NDArray[np.float32]]


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
        module: holds `start(files, threads, max_tokens) -> Engine`.
        package: must be importable.
        install: what pip installs for it.
    """

    module: str
    package: str
    install: str


ENGINES: Mapping[str, EngineInfo] = {
    "onnxruntime": EngineInfo("mtl_edge.engines.onnxruntime", "onnxruntime", "onnxruntime"),
    "openvino": EngineInfo("mtl_edge.engines.openvino", "openvino", "mtl-edge[openvino]"),
}


def available(name: str) -> bool:
    """Whether the engine is known and its package installed."""
    return name in ENGINES and importlib.util.find_spec(ENGINES[name].package) is not None


def default_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def start(
    name: str,
    files: Sequence[Path],
    threads: int | None = None,
    max_tokens: int | None = None,
) -> Engine:
    """Open a graph with the engine `name`.

    Args:
        files: the graph's; the one to open first.
        threads: default: all cores.
        max_tokens: that the graph takes in a text; default: any number.

    Raises:
        EngineError: the engine is unknown, or refuses a file.
        MissingPackageError: the engine's package is not installed.
        OptionError: `threads` is out of range.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"threads is {threads}, expected 1 to {MOST_THREADS}")
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    info = ENGINES[name]
    if not available(name):
        raise MissingPackageError(
            f"engine {name} needs the package {info.package}; "
            f"install it with `pip install '{info.install}'`"
        )
    module = importlib.import_module(info.module)
    engine: Engine = module.start(files, threads or default_threads(), max_tokens)
    return engine
