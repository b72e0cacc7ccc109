"""From nothing to a first answer, part by part, and the memory that it takes: fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.errors import EngineError

__all__ = ["PARTS", "Start", "memory", "starts"]

CHILD = Path(__file__).with_name("fresh_process.py")
# In the order in which they come.
PARTS = ("python", "import mtl_edge", "import engine", "verify", "tokenizer", "start graph",
         "warm up", "first answer")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """A way to load a bundle."""

    engine: str
    fixed_tokens: int | None = None


def starts(bundle: Path, ways: Mapping[str, Start], rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each part, medians over alternating rounds, after one that does not count.

    That one brings files into the system's cache and lets `auto` measure, which it does once
    a machine.

    Raises:
        EngineError: a process failed.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as cache:
        for number in range(rounds + 1):
            for name, way in ways.items():
                result = _run(bundle, way, "-", cache)
                if number:
                    found[name].append(result)
    return {name: _summary(results) for name, results in found.items()}


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [result["seconds"] for result in results]
    parts = {part: 1e3 * float(np.median([s[part] for s in seconds]))
             for part in (*PARTS, "load") if part in seconds[0]}  # fmt: skip
    wholes = [1e3 * s["whole"] for s in seconds]
    return {
        "engine": results[-1]["engine"],
        "whole_ms": float(np.median(wholes)),
        "p10": float(np.quantile(wholes, 0.1)),
        "p90": float(np.quantile(wholes, 0.9)),
        "processes": len(wholes),
        "parts_ms": parts,
    }


def memory(bundle: Path, ways: Mapping[str, Start], texts: Sequence[str]) -> dict[str, Any]:
    """Megabytes once all is imported, once it is loaded, and after use; each way in one process.

    Raises:
        EngineError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        file = Path(work) / "texts.json"
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        found = {name: _run(bundle, way, str(file), work) for name, way in ways.items()}
    return {name: result["megabytes"] for name, result in found.items()}


def _run(bundle: Path, way: Start, texts: str, cache: str) -> dict[str, Any]:
    fixed = "-" if way.fixed_tokens is None else str(way.fixed_tokens)
    # -P: the folder of the file does not become a place to import from.
    command = [sys.executable, "-P", str(CHILD), repr(time.monotonic()), str(bundle), way.engine]
    done = subprocess.run(
        [*command, fixed, texts],
        capture_output=True,
        text=True,
        env={**os.environ, "MTL_EDGE_CACHE": cache},
        check=False,
    )
    if done.returncode:
        raise EngineError(
            f"a process that loads {bundle} in {way.engine} ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
