"""The runtime's figures: what it adds to the engine, how fast it starts, what it takes.

    python -m mtl_edge.benchmarks.runtime BUNDLE [--texts FILE ...] [--out benchmarks/results]

For each engine that the bundle has graphs for and that is installed: single texts against the bare
sum of their parts, cold start and memory in fresh processes, throughput against batches as they
come, and what it costs the app around. Writes `runtime.json`, `runtime.md` and `runtime.png`. A few
minutes on two cores; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from mtl_edge import engines
from mtl_edge.benchmarks import cold_start, guest, many_texts, runtime_report, single_texts
from mtl_edge.benchmarks.bare import BARE
from mtl_edge.benchmarks.demo_tasks import DATA
from mtl_edge.benchmarks.limits.rates import matrix_rates
from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.shown import shown
from mtl_edge.bundle import Bundle, Graph, open_bundle
from mtl_edge.choosing import choose_graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.reading import add_read_arguments, texts_in
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.training.drawing import drawn

__all__ = ["measure"]

WITHOUT = "without fixed shapes"
AUTO = "auto"
MOST_FOR_GUESTS = 200  # texts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--texts",
        type=Path,
        action="append",
        help="CSV, TSV, JSONL, Parquet or lines; may be given again; default: the demo's",
    )
    add_read_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--passes", type=int, default=2, help="over all texts, one at a time")
    parser.add_argument("--rounds", type=int, default=4, help="of all texts in one call")
    parser.add_argument("--processes", type=int, default=9, help="fresh ones, for each start")
    args = parser.parse_args(arguments)
    try:
        figures = {"command": shown("runtime", arguments), **_measured(args)}
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "runtime.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    table = runtime_report.markdown(figures)
    (args.out / "runtime.md").write_text(table, encoding="utf-8")
    drawn(args.out / "runtime.png", runtime_report.draw, figures)
    print(table)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    texts = texts_in(args.texts or [DATA / "dev.csv", DATA / "train.csv"], args)
    for option in ("passes", "rounds", "processes"):
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} is {getattr(args, option)}, expected 1 or more")
    return measure(
        open_bundle(args.bundle),
        texts,
        threads=args.threads,
        passes=args.passes,
        rounds=args.rounds,
        processes=args.processes,
    )


def measure(
    bundle: Bundle,
    texts: Sequence[str],
    *,
    threads: int,
    passes: int,
    rounds: int,
    processes: int,
) -> dict[str, Any]:
    """All figures, by kind and then by engine.

    Raises:
        EngineError, OptionError: no engine here can run the bundle's graphs.
    """
    graphs = _graphs(bundle)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    ways = {name: cold_start.Start(name) for name in graphs}
    if "openvino" in graphs:
        ways[WITHOUT] = cold_start.Start("openvino", fixed_tokens=0)
    with _told("memory"):
        memory = cold_start.memory(bundle.path, ways, texts)
    with _told("cold start"):
        ways[AUTO] = cold_start.Start(AUTO)
        starts = cold_start.starts(bundle.path, ways, processes)
    with _told("the machine's limit"):
        limit = matrix_rates(threads)["int8"]
    with _told("single texts, and all at once"):
        speed = _in_process(bundle, graphs, texts, threads, passes, rounds, limit)
    with _told("what it costs an app"):
        some = random.Random(0).sample(texts, min(len(texts), MOST_FOR_GUESTS))
        guests = {name: guest.measure(bundle.path, name, threads, some) for name in graphs}
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "threads": threads,
        "load_before": load,
        "int8_tops": limit,
        "bundle": {
            "megabytes": sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6,
            "graphs": {
                name: {"target": graph.target, "megabytes": bundle.size_of(graph) / 1e6}
                for name, graph in graphs.items()
            },
        },
        **speed,
        "cold_start": starts,
        "memory": memory,
        "guest": guests,
    }


@contextmanager
def _told(part: str) -> Iterator[None]:
    """Say how long a part took, so that whoever waits knows where it is."""
    start = time.perf_counter()
    yield
    print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _graphs(bundle: Bundle) -> dict[str, Graph]:
    """The graph that runs in each engine."""
    held = {graph.engine for graph in bundle.manifest.graphs}
    usable = [name for name in BARE if name in held and engines.available(name)]
    if not usable:
        raise OptionError(
            f"the bundle has graphs for {', '.join(sorted(held))}; expected one for an installed "
            f"engine of {', '.join(BARE)}"
        )
    return {name: choose_graph(bundle.manifest, engine=name) for name in usable}


def _in_process(
    bundle: Bundle,
    graphs: Mapping[str, Graph],
    texts: Sequence[str],
    threads: int,
    passes: int,
    rounds: int,
    limit: float,
) -> dict[str, Any]:
    """Single texts and all at once, by the runtime and by the engine itself."""
    singles: dict[str, Callable[[str], float]] = {}
    bulk: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        loaded: dict[str, EdgeClassifier] = {}
        for name, graph in graphs.items():
            bare = BARE[name](bundle, graph, threads)
            loaded[name] = stack.enter_context(
                EdgeClassifier.load(
                    bundle.path, engine=name, target=graph.target, threads=threads, verify="size"
                )
            )
            singles[name] = single_texts.answered(loaded[name])
            singles[f"{name}, bare"] = single_texts.by_parts(bare)
            bulk[name] = lambda c=loaded[name]: c.predict_proba(texts)  # type: ignore[misc]
            bulk[f"{name}, bare"] = lambda b=bare: b.all(list(texts), many_texts.ARRIVING)  # type: ignore[misc]
        lengths = [len(ids) for ids in bare.tokens(list(texts))]
        if "openvino" in graphs:
            singles[WITHOUT] = single_texts.answered(
                stack.enter_context(
                    EdgeClassifier.load(
                        bundle.path, engine="openvino", threads=threads, fixed_tokens=0,
                        verify="size",
                    )
                )
            )  # fmt: skip
        times = single_texts.in_turn(singles, texts, passes)
        totals = many_texts.rounds_of(bulk, rounds)
        multiples = {name: loaded[name]._running().engine.multiple for name in graphs}
        shapes = {name: many_texts.planned(loaded[name], lengths) for name in graphs}
    come = many_texts.as_they_come(lengths)
    single = {
        name: {
            **single_texts.distribution(taken),
            "p99_to_median_of_like_length": single_texts.like_length(
                taken, lengths, multiples["openvino" if name == WITHOUT else name.split(",")[0]]
            ),
        }
        for name, taken in times.items()
    }
    for name in graphs:
        single[name]["overhead"] = single_texts.overhead(times[name], times[f"{name}, bare"])
    many = {
        name: many_texts.throughput(bundle, timing, lengths, shapes.get(name, come), limit)
        for name, timing in totals.items()
    }
    for name in graphs:
        many[name]["times_as_fast"] = totals[name].ratio_of(totals[f"{name}, bare"])
    return {
        "texts": {
            "count": len(texts),
            "tokens": sum(lengths),
            "median_tokens": sorted(lengths)[len(lengths) // 2],
            "most_tokens": max(lengths),
        },
        "single": single,
        "many": many,
    }


if __name__ == "__main__":
    take_any_text()
    main()
