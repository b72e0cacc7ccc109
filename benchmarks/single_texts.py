"""One text at a time: the whole answer against the bare sum of its parts, text by text.

Every contender answers the same few texts in a row, then the next contender does, so that each runs
as it does in an app and a busy moment of the machine falls on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.batches.planning import pad, rounded
from mtl_edge.benchmarks.bare import Bare
from mtl_edge.classifier import EdgeClassifier

__all__ = ["answered", "by_parts", "distribution", "in_turn", "like_length", "overhead"]

Times = npt.NDArray[np.float64]
IN_A_ROW = 32
LEAD = 3  # untimed texts before each row: the contender before has emptied the caches
QUIET = 5e-3  # seconds, in which the other contender's threads go to sleep
LEAST = 10  # times of texts of one length, for them to be compared with each other


def answered(classifier: EdgeClassifier) -> Callable[[str], float]:
    """Milliseconds that `predict` takes for a text."""

    def measured(text: str) -> float:
        start = time.perf_counter()
        classifier.predict(text)
        return 1e3 * (time.perf_counter() - start)

    return measured


def by_parts(bare: Bare) -> Callable[[str], float]:
    """Milliseconds that tokenizing a text and running its arrays take; making them is left out."""

    def measured(text: str) -> float:
        start = time.perf_counter()
        (ids,) = bare.tokens([text])
        tokenized = time.perf_counter()
        arrays = pad([ids], bare.multiple, bare.most)
        ready = time.perf_counter()
        bare.single(*arrays)
        return 1e3 * (time.perf_counter() - ready + tokenized - start)

    return measured


def in_turn(
    contenders: Mapping[str, Callable[[str], float]], texts: Sequence[str], passes: int
) -> dict[str, Times]:
    """Milliseconds `[passes, texts]` of each contender; a pass has all texts, in random order."""
    rng = np.random.default_rng(0)
    times = {name: np.zeros((passes, len(texts))) for name in contenders}
    names = list(contenders)
    for number in range(passes):
        order = rng.permutation(len(texts))
        for start in range(0, len(order), IN_A_ROW):
            row = order[start : start + IN_A_ROW]
            for name in names:
                measured = contenders[name]
                time.sleep(QUIET)
                for place in order[start - LEAD : start] if start else order[-LEAD:]:
                    measured(texts[place])
                for place in row:
                    times[name][number, place] = measured(texts[place])
            names = [*names[1:], names[0]]
    return times


def distribution(times: Times) -> dict[str, Any]:
    """Median, tails and all hundredths of milliseconds."""
    hundredths = np.quantile(times, np.linspace(0, 1, 101))
    return {
        "median": hundredths[50],
        "p90": hundredths[90],
        "p99": hundredths[99],
        "p99_to_median": hundredths[99] / hundredths[50],
        "hundredths": [round(float(value), 4) for value in hundredths],
    }


def overhead(whole: Times, parts: Times) -> dict[str, float]:
    """What the whole takes beyond its parts, in the median over all pairs of one text and pass."""
    more = whole - parts
    return {
        "us": 1e3 * float(np.median(more)),
        "percent": 100 * float(np.median(more / parts)),
        "us_p25": 1e3 * float(np.quantile(more, 0.25)),
        "us_p75": 1e3 * float(np.quantile(more, 0.75)),
    }


def like_length(times: Times, lengths: Sequence[int], multiple: int) -> float:
    """p99 to median, once every time is divided by the median of texts that are padded alike."""
    padded = np.array([rounded(length, multiple) for length in lengths])
    groups = [times[:, padded == length] for length in np.unique(padded)]
    even = [(group / np.median(group)).ravel() for group in groups if group.size >= LEAST]
    every = np.concatenate(even or [times.ravel() / np.median(times)])
    return float(np.quantile(every, 0.99) / np.median(every))
