"""Engines, which execute graphs: one module each, and the table `ENGINES` that names them all."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import (
    EngineError,
    MissingPackageError,
    OptionError,
    OutOfMemoryError,
    RunError,
)

__all__ = [
    "CPU",
    "CUDA",
    "ENGINES",
    "Engine",
    "Ids",
    "Logits",
    "Setup",
    "Spin",
    "automatic",
    "available",
    "failure",
    "is_cuda",
    "start",
]

MOST_THREADS = 512
CPU, CUDA = "CPU", "CUDA"
Spin = Literal["call", "never", "always"]

Ids = npt.NDArray[np.int64]
Logits = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Setup:
    """How an engine shall run a graph.

    Attributes:
        threads: None: `mtl_edge.engines.cores.default_threads`.
        max_tokens: that the graph takes in a text; None: any number.
        precision: of the graph.
        device: `CPU`, or what the engine calls another: `CUDA`, `CoreML`, `Dml`, ... in ONNX
            Runtime, `GPU` and `NPU` in OpenVINO.
        spin: whether worker threads wait busily: `call`, between the operators of a call alone;
            `never`; or `always`, between calls too, which takes cores from the app around.
        fixed_tokens: single texts of up to so many tokens get graphs of fixed shapes, in engines
            that gain by it; 0: none; None: as the engine finds worth its memory.
    """

    threads: int | None = None
    max_tokens: int | None = None
    precision: str = "int8"
    device: str = CPU
    spin: Spin = "call"
    fixed_tokens: int | None = None


class Engine(Protocol):
    """A graph ready to run, from any number of threads.

    Attributes:
        multiple: what it pads the number of tokens to.
        tokens_per_batch: with so many, padding included, it does most of them a second.
        fixed_shapes: `(batch, tokens)` that it compiled ahead.
    """

    multiple: int
    tokens_per_batch: int

    @property
    def fixed_shapes(self) -> tuple[tuple[int, int], ...]: ...

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Logits `[batch, labels]` per task for inputs `[batch, tokens]`.

        Raises:
            OutOfMemoryError: the batch does not fit into memory.
            EngineError: it failed otherwise; RunError, if the fault is the engine's own.
        """
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
        automatic: devices on which `auto` counts it, without a number; None: all.
    """

    module: str
    package: str
    install: str
    automatic: tuple[str, ...] | None = None


ENGINES: Mapping[str, EngineInfo] = {
    "onnxruntime": EngineInfo("mtl_edge.engines.onnxruntime", "onnxruntime", "onnxruntime"),
    "openvino": EngineInfo(
        "mtl_edge.engines.openvino",
        "openvino",
        "mtl-edge[openvino]",
        automatic=(CPU, "GPU", "NPU"),
    ),
}


def available(name: str) -> bool:
    """Whether the engine is known and its package installed."""
    return name in ENGINES and importlib.util.find_spec(ENGINES[name].package) is not None


def automatic(name: str, device: str) -> bool:
    """Whether `auto` may take the engine on a device: installed, and meant for it."""
    if not available(name):
        return False
    devices = ENGINES[name].automatic
    return devices is None or re.split(r"[:.]", device)[0] in devices  # CUDA:1, GPU.1


def is_cuda(device: str) -> bool:
    """Whether a device is an NVIDIA GPU of ONNX Runtime: `CUDA`, or a certain one as `CUDA:1`."""
    return device.partition(":")[0] == CUDA


def failure(engine: str, shape: tuple[int, ...], error: Exception) -> RunError:
    """What to raise for an engine's own error on a batch: engines have no class for full memory."""
    message = str(error).lower()
    full = isinstance(error, MemoryError) or "alloc" in message or "out of memory" in message
    kind = OutOfMemoryError if full else RunError
    return kind(f"{engine} failed on {shape}: {error}")


def start(name: str, files: Sequence[Path], setup: Setup = Setup()) -> Engine:
    """Open a graph with the engine `name`.

    Args:
        files: the graph's; the one to open first.

    Raises:
        EngineError: the engine or the device is unknown, its installation is damaged, or it
            refuses a file.
        MissingPackageError: the engine's package is not installed.
        OptionError: the number of threads is out of range, or `spin` is unknown.
    """
    threads = setup.threads
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MOST_THREADS):
        raise OptionError(f"threads is {threads!r}, expected 1 to {MOST_THREADS}")
    if setup.spin not in get_args(Spin):
        raise OptionError(f"spin is {setup.spin!r}, expected {', '.join(get_args(Spin))}")
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    info = ENGINES[name]
    if not available(name):
        raise MissingPackageError(
            f"engine {name} needs the package {info.package}; "
            f"install it with `pip install '{info.install}'`"
        )
    setup = replace(setup, threads=setup.threads or default_threads())
    try:
        module = importlib.import_module(info.module)
    except (ImportError, OSError, RuntimeError) as error:  # what it links to is missing or other
        raise EngineError(
            f"engine {name} is installed, but its import fails ({error}); install it again with "
            f"`pip install --force-reinstall '{info.install}'`"
        ) from error
    engine: Engine = module.start(files, setup)
    return engine
