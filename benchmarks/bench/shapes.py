"""The engines' own calls: latency at fixed shapes, throughput against the size of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtl_edge.benchmarks.bench.effort import Effort, Shape
from mtl_edge.benchmarks.bench.entrants import Entrant
from mtl_edge.benchmarks.bench.floors import Floor
from mtl_edge.benchmarks.bench.rounds import AGAIN, in_random_order, noise_of, pairs_of, timed
from mtl_edge.benchmarks.bench.schema import Rounds
from mtl_edge.engines import Ids
from mtl_edge.training.progress import Progress

__all__ = ["fixed", "sweep"]

SWEEP_ROUNDS = 10


def fixed(
    entrants: Sequence[Entrant], effort: Effort, vocabulary: int, floor: Floor
) -> list[Rounds]:
    """Each shape's times in rounds, the first contender's twice."""
    total = len(effort.shapes) * effort.rounds
    with Progress("fixed shapes", total=total, unit="rounds") as progress:
        return [
            _rounds(entrants, shape, vocabulary, effort.rounds, effort.seconds, floor, progress)
            for shape in effort.shapes
        ]


def sweep(
    entrants: Sequence[Entrant], effort: Effort, tokens: int, vocabulary: int, floor: Floor
) -> list[Rounds]:
    """The same for batches of growing size, `tokens` tokens each; nobody twice."""
    texts = sum(effort.batches)
    with Progress("sizes of batches", total=len(effort.batches) * SWEEP_ROUNDS, unit="rounds") as p:
        return [
            _rounds(
                entrants, (batch, tokens), vocabulary, SWEEP_ROUNDS,
                effort.batch_seconds * batch / texts, floor, p, again=False,
            )
            for batch in effort.batches
        ]  # fmt: skip


def _rounds(
    entrants: Sequence[Entrant],
    shape: Shape,
    vocabulary: int,
    rounds: int,
    seconds: float,
    floor: Floor,
    progress: Progress,
    *,
    again: bool = True,
) -> Rounds:
    batch, tokens = shape
    ids = np.random.default_rng(0).integers(0, vocabulary, shape)
    mask = np.ones_like(ids)
    calls = {entrant.name: _call(entrant, ids, mask) for entrant in entrants}
    if again:
        calls[AGAIN] = _call(entrants[0], ids, mask)
    found = in_random_order(
        calls,
        rounds=rounds,
        seconds=seconds,
        between=lambda: progress.update(note=f"{batch}x{tokens}"),
    )
    times = {name: timing.rounds for name, timing in found.items()}
    return Rounds(
        batch=batch,
        tokens=tokens,
        times={e.name: timed(times[e.name], floor(e, batch, tokens)) for e in entrants},
        pairs=pairs_of(times),
        noise=noise_of(times) if again else None,
    )


def _call(entrant: Entrant, ids: Ids, mask: Ids) -> Callable[[], object]:
    return lambda: entrant.run(ids, mask)
