"""Names of a checkpoint's files, its schema version, and the file of out-of-fold logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors.numpy
import safetensors.torch

from mtl_edge.training.domain.gate import GateWeights
from mtl_edge.training.folds import OutOfFold

__all__ = [
    "BACKBONE",
    "CONFIG",
    "DOMAINS",
    "FOLDS",
    "HEADS",
    "METRICS",
    "RECORD",
    "SAMPLES",
    "SCHEMA",
    "heads_file",
    "read_folds",
    "read_gates",
    "save_folds",
    "save_gates",
]

SCHEMA = 3
RECORD, HEADS, BACKBONE = "checkpoint.json", "heads.safetensors", "backbone"
FOLDS = "folds.safetensors"
DOMAINS = "domains.safetensors"
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


def save_gates(gates: Mapping[int, GateWeights], names: Sequence[str], file: Path) -> None:
    """Write the gates of all depths, by the tasks' places in `names`."""
    place = {name: i for i, name in enumerate(names)}
    safetensors.torch.save_file(
        {
            f"{place[name]}.depth-{depth}": weights.contiguous()
            for depth, of_depth in gates.items()
            for name, weights in of_depth.items()
        },
        file,
    )


def read_gates(file: Path, names: Sequence[str]) -> dict[int, GateWeights]:
    """What `save_gates` wrote."""
    found: dict[int, dict[str, Any]] = {}
    for key, weights in safetensors.torch.load_file(file).items():
        place, depth = key.split(".depth-")
        found.setdefault(int(depth), {})[names[int(place)]] = weights
    return dict(found)
