"""All ways at all shapes: outputs first, then times in alternating rounds, beside the roofline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch

from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks import machine
from mtl_edge.benchmarks.gpu import card
from mtl_edge.benchmarks.gpu.clock import Clock, HostClock, alternate
from mtl_edge.benchmarks.gpu.ways import REFERENCE, Subject, Way, WayInfo
from mtl_edge.benchmarks.limits.floor import Floor, floor_of, work_of
from mtl_edge.benchmarks.limits.weights import Weights, weights_of
from mtl_edge.bundle import TOKENIZER
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import EngineError, OptionError
from mtl_edge.io.labelled import Rows
from mtl_edge.timing import Timing
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.progress import Progress

__all__ = ["Effort", "measure"]

# How far logits may be from torch fp32's: root mean square of the differences to that of the
# logits, by what weights were rounded to or products computed in. Ways beyond are not timed.
TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 0.1, "int8": 0.3}
WHOLE = " | whole"  # of a call that begins and ends on the host
FAILURES = (RuntimeError, ImportError)  # torch's, an engine's, and those of what they link to

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        shapes: texts and tokens.
        rounds: of a shape.
        iterations: of a call in a round, at most.
        sides, sizes: see `card.measure`.
    """

    shapes: Sequence[Shape]
    rounds: int
    iterations: int
    sides: Sequence[int] = card.SIDES
    sizes: tuple[int, ...] | None = None


def measure(
    subject: Subject,
    ways: Mapping[str, WayInfo],
    data: Mapping[str, Rows],
    clock: Clock,
    effort: Effort,
) -> dict[str, Any]:
    """All figures, as they are written to JSON.

    A way that cannot start, runs out of memory or gives other answers than torch fp32 stands in the
    result with the reason, and is not timed.

    Args:
        ways: to measure, the reference among them.
        data: labelled rows by task.
        clock: of the subject's device.

    Raises:
        EngineError: the reference cannot start, or runs out of memory.
        OptionError: config.json does not tell the encoder's sizes.
    """
    started: dict[str, Way | str] = {
        name: _start(info, subject) for name, info in ways.items() if not info.per_shape
    }
    reference = _reference(started)
    weights = weights_of(subject.bundle, subject.bundle.manifest.graphs[0])
    with Progress("the card's limits", total=1, unit="card") as progress:
        limits = card.measure(subject.device, clock, sides=effort.sides, sizes=effort.sizes)
        progress.update()
    scores = _scores(subject, started, reference, data)
    shapes = {}
    total = effort.rounds * len(effort.shapes)
    with Progress("timing", total=total, unit="rounds") as progress:
        for batch, tokens in effort.shapes:
            own = {
                name: _start(info, subject) if info.per_shape else started[name]
                for name, info in ways.items()
            }
            shapes[f"{batch}x{tokens}"] = _at(
                (batch, tokens), subject, own, reference, weights, limits, clock, effort,
                partial(progress.update, note=f"{batch}x{tokens}"),
            )  # fmt: skip
    return {
        "date": date.today().isoformat(),
        "device": card.describe(subject.device),
        "machine": machine.describe(),
        "limits": limits.to_json(),
        "scores": scores,
        "shapes": shapes,
    }


def _start(info: WayInfo, subject: Subject) -> Way | str:
    """The way, or why there is none."""
    try:
        return info.make(subject)
    except FAILURES as error:
        return _told(error)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _reference(started: Mapping[str, Way | str]) -> Way:
    found = started.get(REFERENCE, "it was left out")
    if isinstance(found, str):
        raise EngineError(f"{REFERENCE} has to run, since all others are compared with it: {found}")
    return found


def _at(
    shape: Shape,
    subject: Subject,
    ways: Mapping[str, Way | str],
    reference: Way,
    weights: Weights,
    limits: card.CardLimits,
    clock: Clock,
    effort: Effort,
    between: Callable[[], object],
) -> dict[str, Any]:
    """Each way's figures at one shape."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, subject.bundle.manifest.backbone.vocabulary, shape)
    mask = np.ones_like(ids)
    padded = (np.arange(shape[1]) <= rng.integers(0, shape[1], (shape[0], 1))).astype(ids.dtype)
    found: dict[str, dict[str, Any]] = {}
    calls: dict[str, tuple[Callable[[], object], Clock]] = {}
    try:
        expected = [(m, reference.whole(ids, m)) for m in (padded, mask)]
    except FAILURES as error:
        raise EngineError(
            f"{REFERENCE} fails on {shape[0]}x{shape[1]}, so that there is nothing to compare with "
            f"({_told(error)}); leave that shape out of --shapes"
        ) from error
    inputs = tuple(torch.from_numpy(x).to(subject.device) for x in (ids, mask))
    for name, way in ways.items():
        checked = _checked(way, ids, expected)
        found[name] = checked
        if isinstance(way, str) or "failed" in checked:
            continue
        calls[name + WHOLE] = partial(way.whole, ids, mask), HostClock()
        if way.on_device is not None:
            calls[name] = partial(way.on_device, *inputs), clock
    times = alternate(calls, rounds=effort.rounds, iterations=effort.iterations, between=between)
    for name, way in ways.items():
        if isinstance(way, Way) and name + WHOLE in times:
            floor = _floor(subject, weights, shape, way.computes, limits)
            found[name] |= _figures(way, times.get(name), times[name + WHOLE], floor, shape[0])
    return found


def _checked(way: Way | str, ids: Ids, expected: Sequence[tuple[Ids, Logits]]) -> dict[str, Any]:
    """How far its logits are from those expected with each mask, or why it is not to be timed."""
    if isinstance(way, str):
        return {"failed": way}
    try:
        difference = max(_difference(way.whole(ids, mask), right) for mask, right in expected)
    except FAILURES as error:
        return {"failed": _told(error)}
    allowed = TOLERANCE[way.weights]
    if not difference <= allowed:
        return {
            "difference": difference,
            "failed": f"its logits differ from {REFERENCE}'s by {difference:.1%} of their size, "
            f"expected {allowed:.1%} at most",
        }
    return {"difference": difference}


def _difference(logits: Logits, right: Logits) -> float:
    """Root mean square of the differences to that of the right ones, the most over the tasks."""
    return max(
        float(np.sqrt(((logits[t] - e) ** 2).mean() / (e**2).mean())) for t, e in right.items()
    )


def _floor(
    subject: Subject, weights: Weights, shape: Shape, precision: str, limits: card.CardLimits
) -> Floor:
    bundle = subject.bundle
    graph = bundle.manifest.graphs[0]
    work = work_of(bundle, graph, *shape, precision=precision, weights=weights)
    if work is None:
        raise OptionError(
            f"{bundle.file('config.json')} does not tell the width of the encoder's feed-forward "
            "layers; give a bundle of an encoder like BERT or DistilBERT"
        )
    return floor_of(work, limits.tops[precision], limits.read_at, limits.cache)


def _figures(
    way: Way, on_device: Timing | None, whole: Timing, floor: Floor, batch: int
) -> dict[str, Any]:
    time = on_device or whole
    return {
        "ms": None if on_device is None else on_device.to_json(),
        "whole_ms": whole.to_json(),
        "texts_per_second": batch / whole.median * 1e3,
        "computes": way.computes,
        "floor": floor.to_json(),
        "tops": floor.operations / time.median / 1e9,
        "reached": floor.ms / time.median,
    }


def _scores(
    subject: Subject, started: Mapping[str, Way | str], reference: Way, data: Mapping[str, Rows]
) -> dict[str, Any]:
    """Accuracy, and agreement with the reference, of each way that runs batches of any shape."""
    encoder = TextEncoder.from_file(
        subject.bundle.file(TOKENIZER), subject.bundle.manifest.max_tokens
    )
    labels = {task.name: task.labels for task in subject.bundle.manifest.tasks}
    result: dict[str, Any] = {}
    for task, rows in data.items():
        ids = encoder(rows.texts)
        right = np.array([labels[task].index(label) for label in rows.labels])
        first = in_batches(reference.whole, ids)[task].argmax(1)
        result[task] = {"rows": len(rows), **rows.source, "ways": {}}
        for name, way in started.items():
            if isinstance(way, str):
                continue
            try:
                answers = in_batches(way.whole, ids)[task].argmax(1)
            except FAILURES as error:
                result[task]["ways"][name] = {"error": str(error)}
                continue
            result[task]["ways"][name] = {
                "accuracy": float((answers == right).mean()),
                "agreement": float((answers == first).mean()),
            }
    return result
