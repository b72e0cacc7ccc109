"""The whole measurement, in its order: outputs, then accuracy, then times."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.bench import scores, shapes, stream
from mtl_edge.benchmarks.bench.check import check
from mtl_edge.benchmarks.bench.effort import Effort
from mtl_edge.benchmarks.bench.entrants import enter
from mtl_edge.benchmarks.bench.floors import floors
from mtl_edge.benchmarks.bench.rounds import MOST_NOISE
from mtl_edge.benchmarks.bench.schema import (
    SCHEMA_VERSION,
    Contender,
    Machine,
    Model,
    Report,
    Rounds,
    Stream,
)
from mtl_edge.benchmarks.bench.scores import Labelled
from mtl_edge.benchmarks.bench.stream import Texts
from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.pinning import pinned
from mtl_edge.bundle import Bundle
from mtl_edge.training.data import spread

__all__ = ["measure"]

BUSY = 0.5  # of the cores, by the load of the minute before


def measure(
    bundle: Bundle,
    checkpoint: Path | None,
    texts: Texts,
    labelled: Sequence[Labelled],
    effort: Effort,
    *,
    threads: int,
    command: str,
) -> Report:
    """Everything that `mtl-edge bench` tells.

    Args:
        texts: all there are; the effort says how many are measured.
        labelled: files to measure accuracy on.
        command: that repeats it, for the record.

    Raises:
        EngineError: an engine does not start, or none gives outputs that can be used.
        CheckpointError, MissingPackageError, OptionError: see `enter`.
    """
    started = time.monotonic()
    machine = _machine()
    some = replace(texts, texts=spread(texts.texts, effort.texts))
    with pinned(threads), ExitStack() as stack:
        entrants, missing = enter(bundle, checkpoint, threads, some.texts, stack)
        checked = check(entrants, some.texts, own_ids="vocabulary" in bundle.manifest.reduced)
        sound = checked.sound
        accuracy = scores.measure(bundle, sound, labelled)
        limits, floor = floors(bundle, threads, effort)
        words = bundle.manifest.backbone.vocabulary
        fixed = shapes.fixed(sound, effort, words, floor)
        streamed = stream.measure(sound, some, effort)
        sweep = shapes.sweep(sound, effort, streamed.median_tokens, words, floor)
    noise = _noise(fixed, streamed)
    return Report(
        schema_version=SCHEMA_VERSION,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command,
        effort=effort.name,
        seconds=round(time.monotonic() - started, 1),
        threads=threads,
        machine=machine,
        model=_model(bundle),
        contenders=[
            Contender(e.name, e.engine, e.precision, e.bytes, checked.failed.get(e.name))
            for e in entrants
        ],
        checks=checked.checks,
        shapes=fixed,
        stream=streamed,
        sweep=sweep,
        scores=accuracy,
        limits=limits,
        noise=noise,
        warnings=_warnings(machine, missing, checked.failed, noise),
    )


def _machine() -> Machine:
    found: dict[str, Any] = describe()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return Machine(**found, load_before=load)


def _model(bundle: Bundle) -> Model:
    manifest = bundle.manifest
    return Model(
        folder=bundle.path.name,
        backbone=_shown(manifest.backbone.name),
        depth=manifest.depth,
        max_tokens=manifest.max_tokens,
        tasks={task.name: list(task.labels) for task in manifest.tasks},
    )


def _shown(backbone: str) -> str:
    """The name, without the folders that it lay in."""
    return Path(backbone).name if Path(backbone).is_absolute() else backbone


def _noise(fixed: Sequence[Rounds], streamed: Stream) -> float:
    parts = [streamed.noise, streamed.bulk.noise, *(rounds.noise for rounds in fixed)]
    return max(noise.spread for noise in parts if noise is not None)


def _warnings(
    machine: Machine, missing: Sequence[str], failed: dict[str, str], noise: float
) -> list[str]:
    found = [f"{name} failed and was not timed: {reason}" for name, reason in failed.items()]
    found += [f"{name} was not measured: its engine is not installed" for name in missing]
    if noise > MOST_NOISE:
        found.append(
            f"the first contender timed against itself differs by up to {noise:.0%} between "
            "rounds: smaller differences mean nothing; measure again on a machine with nothing "
            "else to do, or with --full"
        )
    if machine.load_before is not None and machine.load_before > BUSY * machine.cores:
        found.append(
            f"the machine was busy before the start (load {machine.load_before:.1f} on "
            f"{machine.cores} cores)"
        )
    return found
