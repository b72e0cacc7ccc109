"""What the runtime costs the app around it: many threads, a second bundle, busy waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from mtl_edge.benchmarks.core.measure import bulk_times
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.engines import Spin
from mtl_edge.timing import interleave, wall_ms

__all__ = ["SPINS", "THREADS", "measure"]

THREADS = 16
PAUSE = 5e-3  # seconds between two calls of an app that does other things, too
WARM_UP = 20
ROUNDS = 3
SPINS: tuple[Spin, ...] = get_args(Spin)

Load = Callable[..., EdgeClassifier]


def measure(bundle: Path, engine: str, threads: int, texts: Sequence[str]) -> dict[str, float]:
    """All costs with one engine, by name; those of `spin` where the engine lets it be chosen."""

    def load(spin: Spin = "call") -> EdgeClassifier:
        classifier = EdgeClassifier.load(bundle, engine=engine, threads=threads, spin=spin)
        for text in texts[:WARM_UP]:
            classifier.predict(text)
        return classifier

    found = _many_threads(load, texts) | _two_bundles(load, texts)
    return found | (_spins(load, texts) if engine == "onnxruntime" else {})


def _many_threads(load: Load, texts: Sequence[str]) -> dict[str, float]:
    """Many threads on one classifier against one thread, each call with a single text."""
    with load() as classifier, ThreadPoolExecutor(THREADS) as pool:
        alone = [classifier.predict(text) for text in texts]
        equal = list(pool.map(classifier.predict, texts)) == alone
        times = bulk_times(
            {
                "one": lambda: [classifier.predict(text) for text in texts],
                "many": lambda: list(pool.map(classifier.predict, texts)),
            },
            ROUNDS,
        )
    speeds = {name: 1e3 * len(texts) / float(np.median(found)) for name, found in times.items()}
    return {
        "one thread texts/s": speeds["one"],
        "many threads texts/s": speeds["many"],
        "bit equal": float(equal),
    }


def _two_bundles(load: Load, texts: Sequence[str]) -> dict[str, float]:
    """Two classifiers that answer in turn against one that answers all."""
    with load() as first, load() as second:
        both = (first, second)
        times = bulk_times(
            {
                "one": lambda: [first.predict(text) for text in texts],
                "two": lambda: [both[i % 2].predict(text) for i, text in enumerate(texts)],
            },
            ROUNDS,
        )
    return {f"{n} classifier ms": float(np.median(t)) / len(texts) for n, t in times.items()}


def _spins(load: Load, texts: Sequence[str]) -> dict[str, float]:
    """Each way of waiting: ms a text, and processor seconds of 1,000 texts with pauses.

    One classifier at a time, since threads that wait busily would take the others' cores.
    """

    def turn(spin: Spin) -> tuple[float, float, float]:
        with load(spin) as classifier:
            return _paced(classifier, texts)

    results = interleave({spin: partial(turn, spin) for spin in SPINS}, rounds=ROUNDS)
    names = ("ms", "ms with pauses", "cpu s per 1,000")
    return {
        f"spin {spin}: {name}": float(value)
        for spin, found in results.items()
        for name, value in zip(names, np.median(found, axis=0), strict=True)
    }


def _paced(classifier: EdgeClassifier, texts: Sequence[str]) -> tuple[float, float, float]:
    busy = wall_ms(lambda: [classifier.predict(text) for text in texts])
    used, answering = time.process_time(), 0.0
    for text in texts:
        answering += wall_ms(partial(classifier.predict, text))
        time.sleep(PAUSE)
    used = time.process_time() - used
    count = len(texts)
    return busy / count, answering / count, 1000 * used / count
