"""Real texts through the whole runtime: one at a time, and all in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from mtl_edge.benchmarks.bench.effort import Effort
from mtl_edge.benchmarks.bench.entrants import Entrant
from mtl_edge.benchmarks.bench.rounds import AGAIN, noise_of, pairs_of, timed
from mtl_edge.benchmarks.bench.schema import Bulk, Histogram, Single, Speed, Stream
from mtl_edge.benchmarks.many_texts import rounds_of
from mtl_edge.benchmarks.single_texts import IN_A_ROW, LEAD, Times, in_turn
from mtl_edge.training.progress import Progress

__all__ = ["Texts", "measure"]

BINS = 24


@dataclass(frozen=True, slots=True)
class Texts:
    """
    Attributes:
        source: names of files.
        texts: to measure with.
        of: how many there were.
    """

    source: list[str]
    texts: list[str]
    of: int


def measure(entrants: Sequence[Entrant], stream: Texts, effort: Effort) -> Stream:
    """All times of the stream; the first contender takes part twice."""
    texts = stream.texts
    lengths = [len(ids) for ids in entrants[0].ids(texts)]
    taking = {**{entrant.name: entrant for entrant in entrants}, AGAIN: entrants[0]}
    times = _one_at_a_time(taking, texts, effort.passes)
    flat = {name: found.ravel() for name, found in times.items()}
    return Stream(
        source=stream.source,
        texts=len(texts),
        of=stream.of,
        tokens=sum(lengths),
        median_tokens=round(median(lengths)),
        most_tokens=max(lengths),
        passes=effort.passes,
        single={entrant.name: _single(flat[entrant.name]) for entrant in entrants},
        histogram=_histogram({entrant.name: flat[entrant.name] for entrant in entrants}),
        pairs=pairs_of(flat),
        noise=noise_of(flat),
        bulk=_bulk(taking, texts, sum(lengths), effort.bulk_rounds),
    )


def _one_at_a_time(
    taking: Mapping[str, Entrant], texts: Sequence[str], passes: int
) -> dict[str, Times]:
    """Milliseconds `[passes, texts]` of each."""
    rows = -(-len(texts) // IN_A_ROW)
    total = len(taking) * (passes * (len(texts) + LEAD * rows) + LEAD)
    with Progress("texts one at a time", total=total, unit="texts") as p:

        def watched(answer: Callable[[str], object]) -> Callable[[str], float]:
            def measured(text: str) -> float:
                start = time.perf_counter()
                answer(text)
                taken = 1e3 * (time.perf_counter() - start)
                p.update()
                return taken

            return measured

        calls = {name: watched(entrant.answer) for name, entrant in taking.items()}
        for call in calls.values():
            for text in texts[:LEAD]:
                call(text)
        return in_turn(calls, texts, passes)


def _single(times: Times) -> Single:
    hundredths = [round(float(ms), 4) for ms in np.quantile(times, np.linspace(0, 1, 101))]
    return Single(
        p50=hundredths[50],
        p90=hundredths[90],
        p99=hundredths[99],
        mean=float(times.mean()),
        hundredths=hundredths,
    )


def _histogram(times: Mapping[str, Times]) -> Histogram:
    """Bins of equal width up to the slowest contender's p99."""
    most = max(float(np.quantile(found, 0.99)) for found in times.values())
    edges = np.linspace(0, most, BINS + 1)
    return Histogram(
        [round(float(edge), 4) for edge in edges],
        {
            name: np.histogram(np.minimum(found, most), edges)[0].tolist()
            for name, found in times.items()
        },
    )


def _bulk(taking: Mapping[str, Entrant], texts: Sequence[str], tokens: int, rounds: int) -> Bulk:
    with Progress("texts in one call", total=len(taking) * (rounds + 1), unit="calls") as progress:

        def call(entrant: Entrant) -> Callable[[], None]:
            def whole() -> None:
                entrant.answer_all(texts)
                progress.update()

            return whole

        found = rounds_of({name: call(entrant) for name, entrant in taking.items()}, rounds)
    times = {name: timing.rounds for name, timing in found.items()}
    sizes = [e.batch_tokens for e in taking.values() if e.batch_tokens is not None]
    return Bulk(
        speeds={
            name: Speed(
                timed(found), 1e3 * len(texts) / np.median(found), 1e3 * tokens / np.median(found)
            )
            for name, found in times.items()
            if name != AGAIN
        },
        pairs=pairs_of(times),
        noise=noise_of(times),
        torch_batch_tokens=sizes[0] if sizes else None,
    )
