"""Names of a checkpoint's files, its schema version, and the file of out-of-fold logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors.numpy

from mtl_edge.training.folds import OutOfFold

__all__ = [
    "BACKBONE",
    "CONFIG",
    "FOLDS",
    "HEADS",
    "METRICS",
    "RECORD",
    "SAMPLES",
    "SCHEMA",
    "heads_file",
    "read_folds",
    "save_folds",
]

SCHEMA = 3
RECORD, HEADS, BACKBONE = "checkpoint.json", "heads.safetensors", "backbone"
FOLDS = "folds.safetensors"
SAMPLES, CONFIG, METRICS = "samples.jsonl", "config.toml", "metrics.jsonl"


def heads_file(depth: int) -> str:
    """The file of the heads that read fewer layers than the model has."""
    return f"depth-{depth}.safetensors"


def save_folds(out_of_fold: Mapping[str, OutOfFold], names: Sequence[str], file: Path) -> None:
    """Write the logits of the tasks that have some, by their places in `names`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for place, name in enumerate(names):
        if (found := out_of_fold.get(name)) is not None:
            arrays[f"{place}.right"] = found.right
            arrays |= {f"{place}.depth-{d}": logits for d, logits in found.logits.items()}
    safetensors.numpy.save_file(arrays, file)


def read_folds(file: Path, names: Sequence[str]) -> dict[str, OutOfFold]:
    """What `save_folds` wrote, by task."""
    right: dict[str, Any] = {}
    logits: dict[str, dict[int, Any]] = {}
    for key, array in safetensors.numpy.load_file(file).items():
        place, kind = key.split(".", 1)
        if kind == "right":
            right[names[int(place)]] = array
        else:
            logits.setdefault(names[int(place)], {})[int(kind.removeprefix("depth-"))] = array
    return {
        name: OutOfFold(found, dict(sorted(logits[name].items()))) for name, found in right.items()
    }
