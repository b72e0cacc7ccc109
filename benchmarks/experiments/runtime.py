"""The runtime's figures: what it adds to the engine, how fast it starts, what it takes.

For each engine that the bundle has graphs for and that is installed: single texts against the bare
sum of their parts, cold start and memory in fresh processes, throughput against batches as they
come, and what it costs the app around. A few minutes on two cores; leave the machine alone
meanwhile.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mtl_edge import engines
from mtl_edge.batches.planning import pad, plan, rounded
from mtl_edge.batches.prefetch import windows
from mtl_edge.benchmarks.core.command import (
    model_of,
    new_record,
    require_positive,
    run_module,
)
from mtl_edge.benchmarks.core.machine import describe
from mtl_edge.benchmarks.core.measure import (
    ALL,
    ONE,
    Shape,
    Times,
    bulk_times,
    rounds_of,
    text_times,
)
from mtl_edge.benchmarks.core.record import Record, SystemInfo
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.demo import DATA
from mtl_edge.benchmarks.experiments import app_costs, cold_start
from mtl_edge.benchmarks.experiments.bare import BARE, Bare
from mtl_edge.benchmarks.experiments.runtime_report import UNFIXED, report_of
from mtl_edge.benchmarks.roofline.passes import operations
from mtl_edge.benchmarks.roofline.rates import matrix_rates
from mtl_edge.bundle import Bundle, Graph, open_bundle
from mtl_edge.cascade.session import WINDOW
from mtl_edge.choosing import choose_graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.reading import add_read_arguments, texts_in
from mtl_edge.errors import OptionError
from mtl_edge.timing import wall_ms

__all__ = ["Repetitions", "main", "measure"]

BARELY = ", bare"  # ends the name of an engine that is called by itself
AUTO = "auto"
MOST_FOR_COSTS = 200  # texts
ARRIVING = 32  # texts in a batch, as they come
LEAST = 10  # times of texts of one length, for them to be compared with each other

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Repetitions:
    """Passes over all texts one at a time, rounds of all in one call, processes of each start."""

    passes: int = 2
    rounds: int = 4
    processes: int = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--texts",
        type=Path,
        action="append",
        help="CSV, TSV, JSONL, Parquet or lines; may be given again; default: the demo's",
    )
    add_read_arguments(parser)
    effort = Repetitions()
    parser.add_argument("--passes", type=int, default=effort.passes, help="over single texts")
    parser.add_argument("--rounds", type=int, default=effort.rounds, help="of all in one call")
    parser.add_argument("--processes", type=int, default=effort.processes, help="for each start")


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.runtime", __doc__, add_arguments, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    texts = texts_in(args.texts or [DATA / "dev.csv", DATA / "train.csv"], args)
    require_positive(args, "passes", "rounds", "processes")
    effort = Repetitions(args.passes, args.rounds, args.processes)
    return report_of(measure(open_bundle(args.bundle), texts, args.threads, effort, command))


def measure(
    bundle: Bundle, texts: Sequence[str], threads: int, effort: Repetitions, command: str
) -> Record:
    """All figures.

    Raises:
        EngineError, OptionError: no engine here can run the bundle's graphs.
    """
    started, machine = time.monotonic(), describe()
    graphs = _graphs(bundle)
    ways: dict[str, cold_start.Start] = {name: (name, threads, None) for name in graphs}
    if "openvino" in graphs:
        ways[UNFIXED] = ("openvino", threads, 0)
    figures = cold_start.memory(bundle.path, ways, texts)
    starts, parts = cold_start.starts(
        bundle.path, {**ways, AUTO: (AUTO, threads, None)}, effort.processes
    )
    limit = matrix_rates(threads)["int8"]
    with ExitStack() as stack:
        session = _Session(bundle, graphs, threads, stack)
        lengths = [len(ids) for ids in session.bare_tokens(list(texts))]
        single = text_times(session.single(), texts, effort.passes, measures=True)
        bulk = bulk_times(session.bulk(texts), effort.rounds)
        figures |= parts | _overheads(session, single, lengths)
        figures |= _throughputs(session, bulk, lengths, limit)
    some = random.Random(0).sample(list(texts), min(len(texts), MOST_FOR_COSTS))
    for name in graphs:
        for cost, value in app_costs.measure(bundle.path, name, threads, some).items():
            figures.setdefault(f"app: {cost}", {})[name] = value
    names = list(dict.fromkeys([*single, *starts.times]))
    references = [f"{name}{BARELY}" for name in graphs]
    whole = sum(file.stat().st_size for file in bundle.path.iterdir())
    return new_record(
        "runtime", command, threads, started, machine=machine,
        model=model_of(bundle),
        inputs={
            "texts": len(texts), "tokens": sum(lengths), "median_tokens": int(np.median(lengths)),
            "most_tokens": max(lengths), "bundle_bytes": whole,
        },
        systems=[_info(name, graphs, bundle) for name in names],
        rounds=[
            rounds_of(ONE, {n: t.ravel() for n, t in single.items()}, texts=1,
                      references=references),
            rounds_of(ALL, bulk, texts=len(texts), references=references),
            starts,
        ],
        figures=figures,
        limits={"int8_tops": limit},
    )  # fmt: skip


def _info(name: str, graphs: Mapping[str, Graph], bundle: Bundle) -> SystemInfo:
    engine = name.partition(",")[0]
    if engine not in graphs:
        return SystemInfo(name, engine, "", 0)
    graph = graphs[engine]
    return SystemInfo(name, engine, graph.precision, bundle.size_of(graph), title=graph.target)


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


class _Session:
    """Each engine in the runtime and by itself, loaded side by side."""

    def __init__(
        self, bundle: Bundle, graphs: Mapping[str, Graph], threads: int, stack: ExitStack
    ) -> None:
        def load(engine: str, **options: int) -> EdgeClassifier:
            return stack.enter_context(
                EdgeClassifier.load(
                    bundle.path, engine=engine, target=graphs[engine].target, threads=threads,
                    verify="size", **options,  # type: ignore[arg-type]
                )
            )  # fmt: skip

        self.bundle = bundle
        self.bare: dict[str, Bare] = {}
        self.runtime: dict[str, EdgeClassifier] = {}
        for name, graph in graphs.items():
            self.bare[name] = BARE[name](bundle, graph, threads)
            self.runtime[name] = load(name)
        self._unfixed = load("openvino", fixed_tokens=0) if "openvino" in graphs else None
        self.bare_tokens = next(iter(self.bare.values())).tokens

    def multiple(self, name: str) -> int:
        """Of tokens, that the engine pads to."""
        engine = "openvino" if name == UNFIXED else name.partition(",")[0]
        return self.runtime[engine]._running().engine.multiple

    def single(self) -> dict[str, Callable[[str], float]]:
        """Milliseconds of a text, in the runtime and by parts."""
        found: dict[str, Callable[[str], float]] = {}
        for name, classifier in self.runtime.items():
            found[name] = _answered(classifier)
            found[f"{name}{BARELY}"] = _by_parts(self.bare[name])
        return found | ({} if self._unfixed is None else {UNFIXED: _answered(self._unfixed)})

    def bulk(self, texts: Sequence[str]) -> dict[str, Callable[[], object]]:
        found: dict[str, Callable[[], object]] = {}
        for name, classifier in self.runtime.items():
            found[name] = partial(classifier.predict_proba, texts)
            found[f"{name}{BARELY}"] = partial(self.bare[name].all, list(texts), ARRIVING)
        return found

    def shapes(self, name: str, lengths: Sequence[int]) -> list[Shape]:
        """The batches `(texts, tokens)` that texts of these lengths are run in."""
        if name.endswith(BARELY):
            return [(len(batch), max(batch)) for batch in windows(lengths, ARRIVING)]
        loaded = self.runtime[name]._running()
        multiple, most = loaded.engine.multiple, loaded.encoder.max_tokens
        return [
            (len(batch), rounded(max(window[i] for i in batch), multiple, most))
            for window in windows(lengths, WINDOW)
            for batch in plan(window, loaded.batch_tokens, multiple)
        ]


def _answered(classifier: EdgeClassifier) -> Callable[[str], float]:
    return lambda text: wall_ms(partial(classifier.predict, text))


def _by_parts(bare: Bare) -> Callable[[str], float]:
    """Tokenizing a text and running its arrays; making them is left out."""

    def measured(text: str) -> float:
        ids: list[list[int]] = []
        tokenizing = wall_ms(lambda: ids.extend(bare.tokens([text])))
        arrays = pad(ids, bare.multiple, bare.most)
        return tokenizing + wall_ms(lambda: bare.single(*arrays))

    return measured


def _overheads(session: _Session, single: Mapping[str, Times], lengths: Sequence[int]) -> Figures:
    figures: Figures = {"tail of like length": {}}
    for name, times in single.items():
        figures["tail of like length"][name] = like_length(times, lengths, session.multiple(name))
    for name in session.runtime:
        for kind, value in overhead(single[name], single[f"{name}{BARELY}"]).items():
            figures.setdefault(f"overhead {kind}", {})[name] = value
    return figures


def overhead(whole: Times, parts: Times) -> dict[str, float]:
    """What the whole takes beyond its parts, in the median over all pairs of one text and pass."""
    more = whole - parts
    return {
        "us": 1e3 * float(np.median(more)),
        "percent": 100 * float(np.median(more / parts)),
        "us p25": 1e3 * float(np.quantile(more, 0.25)),
        "us p75": 1e3 * float(np.quantile(more, 0.75)),
    }


def like_length(times: Times, lengths: Sequence[int], multiple: int) -> float:
    """p99 to median, once every time is divided by the median of texts that are padded alike."""
    padded = np.array([rounded(length, multiple) for length in lengths])
    groups = [times[:, padded == length] for length in np.unique(padded)]
    even = [(group / np.median(group)).ravel() for group in groups if group.size >= LEAST]
    every = np.concatenate(even or [times.ravel() / np.median(times)])
    return float(np.quantile(every, 0.99) / np.median(every))


def _throughputs(
    session: _Session, bulk: Mapping[str, Times], lengths: Sequence[int], limit: float
) -> Figures:
    """What a time for all texts comes to in a second.

    Args:
        limit: int8 operations that the machine does in a second, in tera.
    """
    figures: Figures = {}
    for name, times in bulk.items():
        seconds, shapes = float(np.median(times)) / 1e3, session.shapes(name, lengths)
        found = {"padded tokens/s": sum(texts * tokens for texts, tokens in shapes) / seconds}
        if (done := operations(session.bundle, shapes)) is not None:
            found |= {"TOPS": done / seconds / 1e12,
                      "share of the limit": done / seconds / 1e12 / limit}  # fmt: skip
        for kind, value in found.items():
            figures.setdefault(kind, {})[name] = value
    return figures


if __name__ == "__main__":
    main()
