"""Which of a bundle's graphs runs, and in which engine.

`auto` counts every graph that an installed engine can open. If there are several, they are timed
once on this machine, in a second or two, and the measurement is kept in the user's cache (see
`mtl_edge.choosing.records`): later loads read it and start one engine only. Nothing is ever
downloaded.

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
from mtl_edge.choosing import machine, records
from mtl_edge.choosing.measurement import NOT_STARTED, Measurement, listed, measure
from mtl_edge.choosing.ranking import AUTO, Pairing, exported, pairings, ranked
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
        order: what can run, the one to run first.
        reason: for people, without a full stop.
        started: the engine if it runs already, as after a measurement; whoever asked closes it.
        measurement: on this machine; None: the choice was made without.
        record: where the measurement is kept, or would be if there were one.
        not_kept: why the measurement could not be kept, if it could not.
    """

    order: tuple[Pairing, ...]
    reason: str
    started: Engine | None = None
    measurement: Measurement | None = None
    record: Path | None = None
    not_kept: str | None = None

    @property
    def graph(self) -> Graph:
        """To run."""
        return self.order[0].graph

    @property
    def engine(self) -> str:
        """To run it in."""
        return self.order[0].engine


def choose_graph(manifest: Manifest, *, engine: str = AUTO, target: str | None = None) -> Graph:
    """The graph that the figures at export speak for; nothing is measured or read.

    Raises:
        EngineError, MissingPackageError, OptionError: see `pairings`.
    """
    found = pairings(manifest, engine=engine, target=target)
    return ranked(found, exported(found))[0].graph


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
        measure: `once`, which is the default: by the record, and where there is none, by a
            measurement that becomes it. `read`: by the record or else the figures at export;
            `never`: by those; `anew`: by a new measurement. $MTL_EDGE_MEASURE=0 makes `never` the
            default.

    Raises:
        EngineError: the engine is unknown, or none could start for the measurement.
        MissingPackageError: no engine for any of the graphs is installed.
        OptionError: the bundle has no such graph, a measurement found `threads` out of range, or
            $MTL_EDGE_MEASURE is neither 0 nor 1.
    """
    mode = measure or ("once" if measuring() else "never")
    found = pairings(bundle.manifest, engine=engine, target=target, device=setup.device)
    if len(found) == 1:
        return Choice(tuple(found), _only(found[0], setup))
    if mode == "never":
        return _by_export(found, setup, "measuring is off")
    of = _identity(bundle, found, setup)
    record = records.place_of(of)
    kept = None if mode == "anew" else records.read(of)
    if kept is not None:
        return replace(_by_measurement(found, kept), record=record)
    if mode == "read":
        why = "nothing was measured on this machine yet"
        return replace(_by_export(found, setup, why), record=record)
    taken, running = _measured(bundle, found, setup)
    choice = _by_measurement(found, taken)
    started = running.pop(choice.order[0].name)
    for other in running.values():
        other.close()
    return replace(choice, started=started, record=record, not_kept=records.keep(of, taken))


def start_chosen(
    bundle: Bundle,
    *,
    engine: str = AUTO,
    target: str | None = None,
    setup: Setup = Setup(),
    measure: Measure | None = None,
) -> tuple[Choice, Engine]:
    """Decide what runs, and start it unless the measurement has; arguments as of `choose`.

    If it does not start, the others are tried, and the choice's reason says so.

    Raises:
        EngineError, OptionError: see `choose`; or no engine starts.
    """
    choice = choose(bundle, engine=engine, target=target, setup=setup, measure=measure)
    if choice.started is not None:
        return choice, choice.started
    failed: dict[str, str] = {}
    for place, pairing in enumerate(choice.order):
        try:
            started = bundle_engine(bundle, pairing.graph, setup, pairing.engine)
        except NOT_STARTED as error:
            if len(choice.order) == 1:
                raise
            failed[pairing.name] = str(error)
            continue
        reason = f"what was chosen did not start ({listed(failed)})" if failed else choice.reason
        return replace(choice, order=choice.order[place:], reason=reason, started=started), started
    raise EngineError(f"no engine starts: {listed(failed)}")


def bundle_engine(
    bundle: Bundle, graph: Graph, setup: Setup = Setup(), engine: str | None = None
) -> Engine:
    """Start an engine, the graph's own unless told, on a bundle's graph: see `engines.start`."""
    whole = replace(setup, max_tokens=bundle.manifest.max_tokens, precision=graph.precision)
    return engines.start(engine or graph.engine, bundle.files_of(graph), whole)


def measuring() -> bool:
    """Whether `auto` measures.

    Raises:
        OptionError: $MTL_EDGE_MEASURE is neither 0 nor 1.
    """
    value = os.environ.get(MEASURE) or "1"
    if value not in ("0", "1"):
        raise OptionError(f"{MEASURE} is {value!r}; expected 0 (never measure) or 1 (the default)")
    return value == "1"


def _identity(bundle: Bundle, found: Sequence[Pairing], setup: Setup) -> dict[str, Any]:
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
            p.name: {
                "engine": f"{p.engine} {machine.version_of(engines.ENGINES[p.engine].package)}",
                "files": [digests[name] for name in p.graph.all_files],
            }
            for p in found
        },
    }


def _measured(
    bundle: Bundle, found: Sequence[Pairing], setup: Setup
) -> tuple[Measurement, dict[str, Engine]]:
    starts = {p.name: partial(bundle_engine, bundle, p.graph, setup, p.engine) for p in found}
    manifest = bundle.manifest
    return measure(starts, vocabulary=manifest.backbone.vocabulary, max_tokens=manifest.max_tokens)


def _by_export(found: Sequence[Pairing], setup: Setup, why: str) -> Choice:
    scores = exported(found, setup.device)
    order = ranked(found, scores)
    return Choice(order, f"{_compared(order, scores)}, by the figures at export: {why}")


def _by_measurement(found: Sequence[Pairing], taken: Measurement) -> Choice:
    scores = taken.scores()
    order = ranked(found, scores)
    reason = f"{_compared(order, scores)}, measured here at {taken.taken}"
    return Choice(order, reason, measurement=taken)


def _only(pairing: Pairing, setup: Setup) -> str:
    reason = f"{pairing.name} is the only one of what was asked for that can run here"
    if engines.is_cuda(setup.device) and pairing.graph.precision == "int8":
        reason += "; part of int8 runs on the CPU: a bundle with onnx-fp16 is faster there"
    return reason


def _compared(order: Sequence[Pairing], scores: Mapping[str, Timing]) -> str:
    """The best beside the fastest of the others."""
    best, *others = order
    if best.name not in scores:
        return f"{best.name} comes first and nothing is known of how fast any is"
    rival = next((p for p in others if p.name in scores), None)
    if rival is None:
        return f"{best.name} is the only one with a figure"
    times = scores[best.name].ratio_of(scores[rival.name])[0]
    if times >= 1:
        return f"{best.name} is {times:.2f} times as fast as {rival.name}"
    kind = "a wider graph is to be by 1.10" if rival.bits > best.bits else "too close to tell"
    return f"{rival.name} is {1 / times:.2f} times as fast as {best.name}, {kind}"
