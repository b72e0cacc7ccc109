"""Our bundles: one for each depth, trained and exported as a user would, once, and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.peers.table import OWN, Peer
from mtl_edge.bundle import open_bundle
from mtl_edge.errors import ExportError
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.data import TaskData

__all__ = ["ENGINES", "bundles_of", "entries"]

ENGINES = ("openvino", "onnxruntime")
SHORT = {"openvino": "openvino", "onnxruntime": "onnx"}


def bundles_of(
    depths: Sequence[int],
    data_options: Sequence[str],
    tasks: Sequence[TaskData],
    backbone: Backbone,
    work: Path,
) -> dict[int, tuple[Path, float]]:
    """By number of layers, the bundle of the encoder's first ones, both engines' int8 graphs in it,
    and the seconds that it took: of its own export, and of the one training that serves them all,
    which encodes every text anew, on as many cores as everything else.

    A stamp beside each folder, written last, says what it was made from.

    Args:
        data_options: of `mtl-edge train`, that say what the tasks are.

    Raises:
        ExportError: training or export failed.
    """
    deepest = max(depths)
    train = ["train", *data_options, "--depth", str(deepest), "--refit"]
    if len(depths) > 1:
        train.append("--all-depths")
    checkpoint = work / "mtl-edge" / "checkpoint"
    made_from: list[Any] = [train, backbone.info.sha256]
    made_from += [dict(rows.source) for task in tasks for rows in (task.train, task.dev) if rows]
    states = work / "mtl-edge" / "states"
    shutil.rmtree(states, ignore_errors=True)
    training = _make(checkpoint, train, made_from, ["--cache", str(states), "--restart"])
    shutil.rmtree(states, ignore_errors=True)
    bundles = {}
    for depth in depths:
        bundle = work / "mtl-edge" / f"bundle-{depth}"
        # What int8 loses is what is to be seen here, so nothing is refused.
        export = ["export", str(checkpoint), "--max-accuracy-drop", "100"]
        if depth != deepest:
            export += ["--depth", str(depth)]
        bundles[depth] = bundle, training + _make(bundle, export, [made_from, export])
    return bundles


def _make(
    folder: Path, command: Sequence[str], made_from: Sequence[Any], options: Sequence[str] = ()
) -> float:
    """Run `mtl-edge` unless the folder is what it would make; the seconds that it took.

    Args:
        options: that do not change what is made.
    """
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    stamp = folder.with_name(f"{folder.name}.stamp.json")
    if folder.is_dir() and stamp.is_file():
        kept = json.loads(stamp.read_text(encoding="utf-8"))
        if kept["made_from"] == digest:
            return float(kept["seconds"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    whole = [sys.executable, "-m", "mtl_edge.cli", *command, *options, "--out", str(folder)]
    if folder.is_dir():
        whole.append("--overwrite")
    print(f"{folder.name}: {command[0]}", file=sys.stderr, flush=True)
    began = time.monotonic()
    if code := subprocess.run(whole, stdout=subprocess.DEVNULL).returncode:
        raise ExportError(
            f"`mtl-edge {command[0]}` ended with {code}; see above, and run it by itself: mtl-edge "
            f"{' '.join(whole[3:])}"
        )
    seconds = time.monotonic() - began
    stamp.write_text(json.dumps({"made_from": digest, "seconds": seconds}) + "\n", encoding="utf-8")
    return seconds


def entries(name: str, bundle: Path, made_in: float | None = None) -> list[Peer]:
    """A bundle in each engine that it has graphs for."""
    held = {graph.engine for graph in open_bundle(bundle, verify="size").manifest.graphs}
    return [
        Peer(
            f"{name} {SHORT[engine]}",
            f"mtl-edge, {name}, {'OpenVINO' if engine == 'openvino' else 'ONNX Runtime'}, int8",
            "mtl-edge",
            OWN,
            "README.md",
            {"bundle": str(bundle.resolve()), "engine": engine},
            made_in=made_in,
        )
        for engine in ENGINES
        if engine in held
    ]
