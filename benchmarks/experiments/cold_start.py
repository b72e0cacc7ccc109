"""From nothing to a first answer, part by part, and the memory that it takes: fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.benchmarks.core.measure import rounds_of
from mtl_edge.benchmarks.core.record import Rounds
from mtl_edge.errors import EngineError
from mtl_edge.timing import interleave

__all__ = ["COLD", "PARTS", "Start", "memory", "starts"]

CHILD = Path(__file__).with_name("fresh_process.py")
COLD = "cold start"
# In the order in which they come.
PARTS = ("python", "import mtl_edge", "import engine", "verify", "tokenizer", "start graph",
         "warm up", "first answer")  # fmt: skip

# An engine, its threads, and the tokens up to which shapes are fixed.
Start = tuple[str, int, int | None]
Figures = dict[str, dict[str, float]]


def starts(bundle: Path, ways: Mapping[str, Start], rounds: int) -> tuple[Rounds, Figures]:
    """Milliseconds of the whole, and medians of each part, after a round that does not count.

    That one brings files into the system's cache and lets `auto` measure, which it does once
    a machine.

    Raises:
        EngineError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as cache:
        turns = {name: partial(_run, bundle, way, "-", cache) for name, way in ways.items()}
        interleave(turns, rounds=1)
        found = interleave(turns, rounds=rounds)
    wholes = {name: [1e3 * one["seconds"]["whole"] for one in own] for name, own in found.items()}
    figures: Figures = {}
    for name, own in found.items():
        for part in (*PARTS, "load"):
            seconds = [one["seconds"][part] for one in own if part in one["seconds"]]
            if seconds:
                figures.setdefault(f"cold start: {part} ms", {})[name] = 1e3 * float(
                    np.median(seconds)
                )
    return rounds_of(COLD, wholes, texts=1, references=()), figures


def memory(bundle: Path, ways: Mapping[str, Start], texts: Sequence[str]) -> Figures:
    """Megabytes once all is imported, once it is loaded, and after use; each way in one process.

    Raises:
        EngineError: a process failed.
    """
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        file = Path(work) / "texts.json"
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        for name, way in ways.items():
            for stage, found in _run(bundle, way, str(file), work)["megabytes"].items():
                for which, value in found.items():
                    if value is not None:  # the system tells
                        figures.setdefault(f"memory: {stage}, {which} MB", {})[name] = value
    return figures


def _run(bundle: Path, way: Start, texts: str, cache: str) -> dict[str, Any]:
    engine, threads, fixed = way
    # -P: the folder of the file does not become a place to import from.
    command = [sys.executable, "-P", str(CHILD), repr(time.monotonic()), str(bundle), engine]
    done = subprocess.run(
        [*command, str(threads), "-" if fixed is None else str(fixed), texts],
        capture_output=True,
        text=True,
        env={**os.environ, "MTL_EDGE_CACHE": cache},
        check=False,
    )
    if done.returncode:
        raise EngineError(
            f"a process that loads {bundle} in {engine} ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
