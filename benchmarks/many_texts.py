"""All texts in one call: the runtime's batches against batches of 32 as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_edge.batches.planning import plan, rounded
from mtl_edge.batches.prefetch import windows
from mtl_edge.benchmarks.limits.floor import operations
from mtl_edge.bundle import Bundle
from mtl_edge.classifier import WINDOW, EdgeClassifier
from mtl_edge.timing import Timing

__all__ = ["ARRIVING", "as_they_come", "planned", "rounds_of", "throughput"]

ARRIVING = 32
QUIET = 0.05  # seconds between two calls

Shape = tuple[int, int]


def rounds_of(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Milliseconds of calls that last so long that what ran before does not matter."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds + 1):  # the first one warms up
        for name in names:
            time.sleep(QUIET)
            start = time.perf_counter()
            calls[name]()
            if number:
                taken[name].append(1e3 * (time.perf_counter() - start))
        names.reverse()
    return {name: Timing(tuple(times)) for name, times in taken.items()}


def planned(classifier: EdgeClassifier, lengths: Sequence[int]) -> list[Shape]:
    """The batches `(texts, tokens)` that a classifier runs texts of these lengths in."""
    loaded = classifier._now()
    multiple = loaded.engine.multiple
    return [
        (len(batch), rounded(max(window[i] for i in batch), multiple, loaded.encoder.max_tokens))
        for window in windows(lengths, WINDOW)
        for batch in plan(window, loaded.batch_tokens, multiple)
    ]


def as_they_come(lengths: Sequence[int]) -> list[Shape]:
    """Batches of 32 in the order of arrival."""
    return [(len(batch), max(batch)) for batch in windows(lengths, ARRIVING)]


def throughput(
    bundle: Bundle, timing: Timing, lengths: Sequence[int], shapes: Sequence[Shape], limit: float
) -> dict[str, Any]:
    """What a time for all texts comes to in a second.

    Args:
        limit: int8 operations that the machine does in a second, in tera.
    """
    seconds = timing.median / 1e3
    done = operations(bundle, shapes)
    return {
        "ms": timing.to_json(),
        "texts_per_second": len(lengths) / seconds,
        "tokens_per_second": sum(lengths) / seconds,
        "padded_tokens_per_second": sum(texts * tokens for texts, tokens in shapes) / seconds,
        "tops": None if done is None else done / seconds / 1e12,
        "share_of_limit": None if done is None else done / seconds / 1e12 / limit,
    }
