"""What the runtime costs the app that it is a guest in: threads, busy waiting, a second bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mtl_edge.benchmarks.many_texts import rounds_of
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.engines import Spin

__all__ = ["measure"]

THREADS = 16
PAUSE = 5e-3  # seconds between two calls of an app that does other things, too
WARM_UP = 20
ROUNDS = 3

Load = Callable[..., EdgeClassifier]


def measure(bundle: Path, engine: str, threads: int, texts: Sequence[str]) -> dict[str, Any]:
    """All of a guest's costs with one engine; `spin` where the engine lets it be chosen."""

    def load(spin: Spin = "call") -> EdgeClassifier:
        classifier = EdgeClassifier.load(bundle, engine=engine, threads=threads, spin=spin)
        for text in texts[:WARM_UP]:
            classifier.predict(text)
        return classifier

    return {
        "threads": _shared(load, texts),
        "two_bundles": _two(load, texts),
        "spin": _spin(load, texts) if engine == "onnxruntime" else None,
    }


def _shared(load: Load, texts: Sequence[str]) -> dict[str, Any]:
    """Many threads on one classifier against one thread, each call with a single text."""
    with load() as classifier, ThreadPoolExecutor(THREADS) as pool:
        alone = [classifier.predict(text) for text in texts]
        equal = list(pool.map(classifier.predict, texts)) == alone
        times = rounds_of(
            {
                "one": lambda: [classifier.predict(text) for text in texts],
                "many": lambda: list(pool.map(classifier.predict, texts)),
            },
            ROUNDS,
        )
    one, many = (1e3 * len(texts) / times[name].median for name in ("one", "many"))
    return {
        "threads": THREADS,
        "texts_per_second_of_one": one,
        "texts_per_second_of_many": many,
        "times": times["many"].ratio_of(times["one"])[0],
        "bit_equal": equal,
    }


def _two(load: Load, texts: Sequence[str]) -> dict[str, float]:
    """Two classifiers that answer in turn against one that answers all."""
    with load() as first, load() as second:
        both = (first, second)
        times = rounds_of(
            {
                "one": lambda: [first.predict(text) for text in texts],
                "two": lambda: [both[i % 2].predict(text) for i, text in enumerate(texts)],
            },
            ROUNDS,
        )
    return {
        "ms_of_one": times["one"].median / len(texts),
        "ms_of_two": times["two"].median / len(texts),
        "times": times["one"].ratio_of(times["two"])[0],
    }


def _spin(load: Load, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each way of waiting: milliseconds a text, and processor seconds of 1,000 texts with pauses.

    One classifier at a time, since threads that wait busily would take the others' cores.
    """
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in get_args(Spin)}
    for _ in range(ROUNDS):
        for way, results in found.items():
            with load(way) as classifier:
                results.append(_paced(classifier, texts))
    return {
        way: dict(zip(("ms", "ms_with_pauses", "cpu_seconds_per_1000"),
                      map(float, np.median(results, axis=0)), strict=True))
        for way, results in found.items()
    }  # fmt: skip


def _paced(classifier: EdgeClassifier, texts: Sequence[str]) -> tuple[float, float, float]:
    start = time.perf_counter()
    for text in texts:
        classifier.predict(text)
    busy = time.perf_counter() - start
    used, answering = time.process_time(), 0.0
    for text in texts:
        start = time.perf_counter()
        classifier.predict(text)
        answering += time.perf_counter() - start
        time.sleep(PAUSE)
    used = time.process_time() - used
    count = len(texts)
    return 1e3 * busy / count, 1e3 * answering / count, 1000 * used / count
