"""A bundle's graphs against the floor under them, timed beside products that do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mtl_edge.benchmarks.contenders import Contender, from_bundle
from mtl_edge.benchmarks.limits.floor import FEED_FORWARD, Floor, floor_ms
from mtl_edge.benchmarks.limits.products import PRODUCTS, Call, operations
from mtl_edge.benchmarks.limits.rates import Limits, Rate
from mtl_edge.benchmarks.limits.weights import Weights, weights_of
from mtl_edge.bundle import Bundle, Graph
from mtl_edge.engines import Ids
from mtl_edge.errors import EngineError, OptionError
from mtl_edge.timing import Timing, alternate

__all__ = ["ROUNDS", "SHAPES", "against_the_floor"]

SHAPES = ((1, 16), (1, 32), (1, 128), (8, 32), (32, 32))
ROUNDS, SECONDS = 30, 12.0  # of a shape


def against_the_floor(
    bundle: Bundle,
    limits: Limits,
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    rounds: int = ROUNDS,
    between: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """By shape and graph: the floor, the time, and what share of the time the floor is.

    Every shape's graphs are timed in alternating rounds, and beside them the fastest products of
    their precision that `limits` found: a machine that is busy is so for all.

    Args:
        between: called before each round, as for progress.

    Raises:
        EngineError: no engine for the bundle's graphs is installed.
        OptionError: the bundle's config.json does not tell the encoder's sizes.
    """
    graphs = {graph.target: graph for graph in bundle.manifest.graphs}
    contenders = from_bundle(bundle, limits.threads)
    if not contenders:
        engines = ", ".join(sorted({graph.engine for graph in graphs.values()}))
        raise EngineError(f"no engine for this bundle is installed; it needs {engines}")
    read = {c.name: weights_of(bundle, graphs[c.name]) for c in contenders}
    products = {c.name: limits.fastest(graphs[c.name].precision) for c in contenders}
    beside = {_title(rate): _call(rate, limits.threads) for rate in products.values()}
    rng = np.random.default_rng(0)
    result = {}
    for batch, tokens in shapes:
        ids = rng.integers(0, bundle.manifest.backbone.vocabulary, (batch, tokens))
        floors = {
            c.name: _floor(bundle, graphs[c.name], (batch, tokens), limits, read[c.name])
            for c in contenders
        }
        agreement = _agreement(contenders, ids)
        calls = {**beside, **_passes(contenders, ids)}
        times = alternate(calls, rounds=rounds, seconds=SECONDS, between=between)
        result[f"{batch}x{tokens}"] = {
            name: {
                "agreement": agreement[name],
                **_figures(floor, times[name], products[name], times[_title(products[name])]),
            }
            for name, floor in floors.items()
        }
    return result


def _title(rate: Rate) -> str:
    return f"{rate.precision} products"  # no graph's name: those have no blank


def _call(rate: Rate, threads: int) -> Call:
    call = PRODUCTS[rate.precision][rate.by](rate.shape, threads)
    if call is None:
        raise EngineError(f"{rate.by} had {rate.precision} products a moment ago, and has none now")
    return call


def _passes(contenders: Sequence[Contender], ids: Ids) -> dict[str, Call]:
    mask = np.ones_like(ids)
    return {c.name: partial(c.run, ids, mask) for c in contenders}


def _floor(
    bundle: Bundle, graph: Graph, shape: tuple[int, int], limits: Limits, weights: Weights
) -> Floor:
    floor = floor_ms(bundle, graph, *shape, limits, weights)
    if floor is None:
        raise OptionError(
            f"{bundle.file('config.json')} does not tell the width of the encoder's feed-forward "
            f"layers, expected one of {', '.join(FEED_FORWARD)}; give a bundle of an encoder like "
            "BERT or DistilBERT"
        )
    return floor


def _figures(floor: Floor, time: Timing, rate: Rate, products: Timing) -> dict[str, Any]:
    work = floor.operations / operations(rate.shape)
    middle, low, high = products.ratio_of(time)
    best = min(time.rounds)
    return {
        "floor": floor.to_json(),
        "ms": {**time.to_json(), "best": best},
        "tops": floor.operations / time.median / 1e9,
        "reached": floor.ms / time.median,
        "reached_at_best": floor.ms / best,
        "to_products_beside": [work / middle, work / high, work / low],
    }


def _agreement(contenders: Sequence[Contender], ids: Ids) -> dict[str, float]:
    """The share of labels that each has in common with the first, the lowest over the tasks."""
    mask = np.ones_like(ids)
    logits = {c.name: c.run(ids, mask) for c in contenders}
    first = logits[contenders[0].name]
    return {
        name: min(float((found[task].argmax(1) == first[task].argmax(1)).mean()) for task in first)
        for name, found in logits.items()
    }
