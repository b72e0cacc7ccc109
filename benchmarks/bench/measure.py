"""The measurement of `mtl-edge bench`, in its order: outputs, then accuracy, then times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mtl_edge.benchmarks.core import cuda, scores
from mtl_edge.benchmarks.core.check import check
from mtl_edge.benchmarks.core.command import model_of, new_record, noise_in
from mtl_edge.benchmarks.core.machine import describe, pinned
from mtl_edge.benchmarks.core.measure import (
    LeastMs,
    Shape,
    at_shape,
    at_shapes,
    in_one_call,
    one_at_a_time,
)
from mtl_edge.benchmarks.core.record import Machine, Record, Rounds
from mtl_edge.benchmarks.core.scores import LabelledFile
from mtl_edge.benchmarks.core.system import System, systems_of
from mtl_edge.benchmarks.roofline import rates
from mtl_edge.benchmarks.roofline.passes import roofline, work_of
from mtl_edge.benchmarks.roofline.rates import MachineLimits
from mtl_edge.benchmarks.roofline.weights import weights_of
from mtl_edge.bundle import Bundle
from mtl_edge.timing import Clock
from mtl_edge.training.data import spread
from mtl_edge.training.progress import Progress

__all__ = ["EFFORTS", "MOST_NOISE", "SWEEP", "Effort", "Texts", "measure", "times_at_shapes"]

MOST_NOISE = 0.1  # above it, there is a warning
BUSY = 0.5  # of the cores, by the load of the minute before
SWEEP = "batch of "  # begins the names of the rounds with batches of growing size
SWEEP_ROUNDS = 10
MIB = 2**20
FEW_SIZES = (4 * MIB, 32 * MIB, 256 * MIB)  # to read, in bytes


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        shapes: `(batch, tokens)` for the engines' own calls.
        rounds, seconds: at most, for a shape; no new round starts after the seconds.
        texts: of the stream, at most.
        passes: over them, one at a time.
        bulk_rounds: of all of them in one call.
        batches: sizes, for the throughput.
        batch_seconds: for all of those sizes.
        limit_rounds: of the products that tell the machine's limits; 0: they are not measured.
    """

    name: str
    shapes: Sequence[Shape]
    rounds: int
    seconds: float
    texts: int
    passes: int
    bulk_rounds: int
    batches: Sequence[int]
    batch_seconds: float
    limit_rounds: int


EFFORTS: Mapping[str, Effort] = {
    effort.name: effort
    for effort in (
        Effort("quick", ((1, 32), (32, 32)), 20, 1.0, 64, 1, 3, (1, 8, 64), 1.0, 0),
        Effort(
            "default", ((1, 16), (1, 32), (8, 32), (32, 32)), 60, 2.5, 192, 2, 4,
            (1, 4, 16, 64, 128), 4.0, 8,
        ),
        Effort(
            "full",
            ((1, 16), (1, 32), (1, 64), (1, 128), (8, 32), (8, 128), (32, 32), (32, 128)),
            100, 20.0, 1000, 3, 10, (1, 2, 4, 8, 16, 32, 64, 128), 30.0, 25,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts to time: names of their files, those that are measured, and how many there were."""

    source: list[str]
    texts: list[str]
    of: int


def measure(
    bundle: Bundle,
    checkpoint: Path | None,
    texts: Texts,
    labelled: Sequence[LabelledFile],
    effort: Effort,
    *,
    threads: int,
    command: str,
    device: str = "CPU",
) -> Record:
    """Everything that `mtl-edge bench` tells.

    Args:
        texts: all there are; the effort says how many are measured.
        labelled: files to measure accuracy on.
        command: that repeats it, for the record.
        device: `CPU`, or `CUDA` as the runtime has it.

    Raises:
        EngineError: an engine does not start, or none gives outputs that can be used.
        CheckpointError, MissingPackageError, OptionError: see `systems_of`.
    """
    started, on_gpu = time.monotonic(), device != "CPU"
    machine = describe(cuda.card(device) if on_gpu else None)
    some = spread(texts.texts, effort.texts)
    with pinned(threads), ExitStack() as stack:
        make = partial(cuda.systems_of, device=device) if on_gpu else systems_of
        systems, missing = make(bundle, checkpoint, threads, some, stack)
        checked = check(systems, some, own_ids="vocabulary" in bundle.manifest.reduced)
        sound, clock = checked.sound, cuda.clock(device) if on_gpu else None
        accuracy = scores.measure(bundle, sound, labelled)
        limits = _limits(threads, effort, device)
        least_ms = None if limits is None else _least_ms(bundle, limits)
        words, lengths = bundle.manifest.backbone.vocabulary, [len(i) for i in sound[0].ids(some)]
        middle = round(median(lengths))
        rounds = times_at_shapes(sound, effort, words, least_ms=least_ms, clock=clock)
        rounds += [one_at_a_time(sound, some, effort.passes)]
        rounds += [in_one_call(sound, some, effort.bulk_rounds)]
        rounds += _sweep(sound, effort, middle, words, least_ms, clock)
    return new_record(
        "bench", command, threads, started,
        machine=machine,
        model=model_of(bundle),
        inputs={**_inputs(texts, lengths, sound, effort), "device": device},
        systems=[system.info(checked.failed.get(system.name)) for system in systems],
        checks=checked.checks,
        rounds=rounds,
        scores=accuracy,
        limits={} if limits is None else limits.figures(),
        warnings=_warnings(machine, missing, checked.failed, noise_in(rounds) or 0.0),
    )  # fmt: skip


def _inputs(
    texts: Texts, lengths: Sequence[int], systems: Sequence[System], effort: Effort
) -> dict[str, Any]:
    sizes = [system.batch_tokens for system in systems if system.batch_tokens is not None]
    return {
        "effort": effort.name,
        "source": texts.source,
        "texts": len(lengths),
        "of": texts.of,
        "tokens": sum(lengths),
        "median_tokens": round(median(lengths)),
        "most_tokens": max(lengths),
        "passes": effort.passes,
        "torch_batch_tokens": sizes[0] if sizes else None,
    }


def times_at_shapes(
    systems: Sequence[System],
    effort: Effort,
    vocabulary: int,
    *,
    least_ms: LeastMs | None = None,
    clock: Clock | None = None,
) -> list[Rounds]:
    """The engines' own calls at the effort's shapes, the first system's twice."""
    return at_shapes(
        "fixed shapes", systems, effort.shapes, vocabulary,
        rounds=effort.rounds, seconds=effort.seconds, least_ms=least_ms, clock=clock,
    )  # fmt: skip


def _sweep(
    systems: Sequence[System],
    effort: Effort,
    tokens: int,
    vocabulary: int,
    least_ms: LeastMs | None,
    clock: Clock | None,
) -> list[Rounds]:
    """Batches of growing size, `tokens` tokens each; no system twice."""
    texts = sum(effort.batches)
    with Progress("sizes of batches", total=len(effort.batches) * SWEEP_ROUNDS, unit="rounds") as p:
        return [
            at_shape(
                systems, (batch, tokens), vocabulary, rounds=SWEEP_ROUNDS,
                seconds=effort.batch_seconds * batch / texts, name=f"{SWEEP}{batch}",
                twice=False, least_ms=least_ms, between=p.update, clock=clock,
            )
            for batch in effort.batches
        ]  # fmt: skip


def _limits(threads: int, effort: Effort, device: str) -> MachineLimits | None:
    """The machine's limits; None where the effort has no rounds for them."""
    if not effort.limit_rounds:
        return None
    if device != "CPU":
        return cuda.limits(device)
    shapes = rates.SHAPES if effort.name == "full" else rates.SHAPES[1:3]
    total = len(shapes) * effort.limit_rounds
    with Progress("the machine's limits", total=total, unit="rounds") as progress:
        return rates.measure(
            threads, shapes=shapes, rounds=effort.limit_rounds, between=progress.update,
            sizes=None if effort.name == "full" else FEW_SIZES,
        )  # fmt: skip


def _least_ms(bundle: Bundle, limits: MachineLimits) -> LeastMs:
    """The roofline by system, batch and tokens.

    The torch model's work is that of the bundle's encoder in its precision.
    """
    weights = {graph.target: weights_of(bundle, graph) for graph in bundle.manifest.graphs}

    def found(system: System, batch: int, tokens: int) -> float | None:
        graph = system.graph or bundle.manifest.graphs[0]
        work = work_of(
            bundle, graph, batch, tokens,
            precision=system.precision, weights=weights[graph.target],
        )  # fmt: skip
        return None if work is None else roofline(work, system.precision, limits).ms

    return found


def _warnings(
    machine: Machine, missing: Sequence[str], failed: Mapping[str, str], noise: float
) -> list[str]:
    found = [f"{name} failed and was not timed: {reason}" for name, reason in failed.items()]
    found += [f"{name} was not measured: its engine is not installed" for name in missing]
    if noise > MOST_NOISE:
        found.append(
            f"the first system timed against itself differs by up to {noise:.0%} between "
            "rounds: smaller differences mean nothing; measure again on a machine with nothing "
            "else to do, or with --full"
        )
    if machine.load_before is not None and machine.load_before > BUSY * machine.cores:
        found.append(
            f"the machine was busy before the start (load {machine.load_before:.1f} on "
            f"{machine.cores} cores)"
        )
    return found
