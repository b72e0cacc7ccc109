"""Where figures come from: the machine and the versions, for the record."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtl_edge.engines.cores import default_threads

__all__ = ["describe", "processor_of"]

PACKAGES = ("mtl-edge", "torch", "transformers", "onnxruntime", "openvino", "nncf", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def describe() -> dict[str, object]:
    """Processor, cores, operating system and versions."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def processor_of(machine: Mapping[str, Any]) -> str:
    """What `describe` found, as reports name it: the processor and its instructions."""
    return f"{machine['processor']} ({', '.join(machine['instructions'])})"


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


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _instructions() -> list[str]:
    present = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in FLAGS if flag in present]
