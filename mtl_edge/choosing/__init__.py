"""Which of a bundle's graphs runs: each graph names its engine.

`auto` counts every graph whose engine is installed and meant for the device. If there are several,
they are timed once on this machine, in a second or two, and the measurement is kept in the user's
cache: later loads read it and start one engine only. Nothing is ever downloaded.

The figures at export would do without that second, but they come from another processor, often of
another kind, and how engines compare depends on it. `MTL_EDGE_MEASURE=0` goes by them all the same:
nothing is timed, read or kept, for processes that live for a few texts or where every machine has
to choose alike.

All graphs of a bundle have passed the accuracy gate at export, so that speed decides among them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Graph, Manifest
from mtl_edge.choosing import machine, measurement
from mtl_edge.choosing.measurement import NOT_STARTED, Measurement, listed, measure_engines
from mtl_edge.choosing.ranking import AUTO, compared, exported, ranked, runnable
from mtl_edge.engines import Engine, Setup
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import EngineError, OptionError
from mtl_edge.timing import Timing
from mtl_edge.version import __version__

__all__ = [
    "AUTO",
    "Choice",
    "Measure",
    "bundle_engine",
    "choose",
    "choose_graph",
    "measuring",
    "start_chosen",
]

MEASURE = "MTL_EDGE_MEASURE"
Measure = Literal["once", "read", "never", "anew"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs, and why.

    Attributes:
        order: the graphs that can run, the one to run first.
        reason: for people, without a full stop.
        started: the engine if it runs already, as after a measurement; whoever asked closes it.
        measurement: on this machine; None: the choice was made without.
        record: where the measurement is kept, or would be if there were one.
        not_kept: why the measurement could not be kept, if it could not.
    """

    order: tuple[Graph, ...]
    reason: str
    started: Engine | None = None
    measurement: Measurement | None = None
    record: Path | None = None
    not_kept: str | None = None

    @property
    def graph(self) -> Graph:
        """The one to run."""
        return self.order[0]


def choose_graph(manifest: Manifest, *, engine: str = AUTO, target: str | None = None) -> Graph:
    """The graph that the figures at export speak for; nothing is measured or read.

    Raises:
        EngineError, MissingPackageError, OptionError: see `ranking.runnable`.
    """
    graphs = runnable(manifest, engine=engine, target=target)
    return ranked(graphs, exported(graphs))[0]


def choose(
    bundle: Bundle,
    *,
    engine: str = AUTO,
    target: str | None = None,
    setup: Setup = Setup(),
    measure: Measure | None = None,
) -> Choice:
    """Decide what runs; measure if that takes it.

    Args:
        engine: `auto`, or the one to choose within.
        target: the graph; None: any.
        setup: that will be used; tokens and precision come from the bundle.
        measure: `once`, the default: by the record, and where there is none, by a measurement that
            becomes it. `read`: by the record or else the figures at export; `never`: by those, and
            the default with $MTL_EDGE_MEASURE=0; `anew`: by a new measurement.

    Raises:
        EngineError: the engine is unknown, or none could start for the measurement.
        MissingPackageError: no engine for any of the graphs is installed.
        OptionError: the bundle has no such graph, a measurement found `threads` out of range, or
            $MTL_EDGE_MEASURE is neither 0 nor 1.
    """
    mode = measure or ("once" if measuring() else "never")
    graphs = runnable(bundle.manifest, engine=engine, target=target, device=setup.device)
    if len(graphs) == 1:
        only = f"{graphs[0].target} is the only one of what was asked for that can run here"
        return Choice(tuple(graphs), only)
    figures = exported(graphs, setup.device)
    if mode == "never":
        return _choice(graphs, figures, "by the figures at export: measuring is off")
    of = _identity(bundle, graphs, setup)
    record, running, not_kept = measurement.place_of(of), dict[str, Engine](), None
    taken = None if mode == "anew" else measurement.read(of)
    if taken is None and mode == "read":
        why = "by the figures at export: nothing was measured on this machine yet"
        return replace(_choice(graphs, figures, why), record=record)
    if taken is None:
        starts = {graph.target: partial(bundle_engine, bundle, graph, setup) for graph in graphs}
        words, tokens = bundle.manifest.backbone.vocabulary, bundle.manifest.max_tokens
        taken, running = measure_engines(starts, vocabulary=words, max_tokens=tokens)
        not_kept = measurement.keep(of, taken)
    choice = _choice(graphs, taken.scores(), f"measured here at {taken.taken}")
    started = running.pop(choice.graph.target, None)
    for other in running.values():
        other.close()
    return replace(choice, started=started, measurement=taken, record=record, not_kept=not_kept)


def start_chosen(
    bundle: Bundle, *, engine: str = AUTO, target: str | None = None, setup: Setup = Setup(),
    measure: Measure | None = None,
) -> tuple[Choice, Engine]:  # fmt: skip
    """Decide what runs, and start it unless the measurement has; arguments as of `choose`.

    If it does not start, the others are tried, and the choice's reason says so.

    Raises:
        EngineError, OptionError: see `choose`; or no engine starts.
    """
    choice = choose(bundle, engine=engine, target=target, setup=setup, measure=measure)
    if choice.started is not None:
        return choice, choice.started
    failed: dict[str, str] = {}
    for place, graph in enumerate(choice.order):
        try:
            started = bundle_engine(bundle, graph, setup)
        except NOT_STARTED as error:
            if len(choice.order) == 1:
                raise
            failed[graph.target] = str(error)
            continue
        reason = f"what was chosen did not start ({listed(failed)})" if failed else choice.reason
        return replace(choice, order=choice.order[place:], reason=reason, started=started), started
    raise EngineError(f"no engine starts: {listed(failed)}")


def bundle_engine(bundle: Bundle, graph: Graph, setup: Setup = Setup()) -> Engine:
    """Start its engine on one of a bundle's graphs: see `engines.start`."""
    whole = replace(setup, max_tokens=bundle.manifest.max_tokens, precision=graph.precision)
    return engines.start(graph.engine, bundle.files_of(graph), whole)


def measuring() -> bool:
    """Whether `auto` measures.

    Raises:
        OptionError: $MTL_EDGE_MEASURE is neither 0 nor 1.
    """
    value = os.environ.get(MEASURE) or "1"
    if value not in ("0", "1"):
        raise OptionError(f"{MEASURE} is {value!r}; expected 0 (never measure) or 1 (the default)")
    return value == "1"


def _identity(bundle: Bundle, graphs: Sequence[Graph], setup: Setup) -> Mapping[str, Any]:
    """All that a measurement is of: another machine, file, version or setting, another record."""
    digests = {entry.path: entry.sha256 for entry in bundle.manifest.files}
    return {
        "mtl_edge": __version__,
        "machine": machine.describe(),
        "threads": setup.threads or default_threads(),
        "device": setup.device,
        "spin": setup.spin,
        "fixed tokens": setup.fixed_tokens,
        "candidates": {
            g.target: {
                "engine": f"{g.engine} {machine.version_of(engines.ENGINES[g.engine].package)}",
                "files": [digests[name] for name in g.all_files],
            }
            for g in graphs
        },
    }


def _choice(graphs: Sequence[Graph], scores: Mapping[str, Timing], why: str) -> Choice:
    order = ranked(graphs, scores)
    return Choice(order, f"{compared(order, scores)}, {why}")
