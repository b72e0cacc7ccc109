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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Graph, Manifest
from mtl_edge.choosing import machine, records
from mtl_edge.choosing.candidates import AUTO, Candidate, candidates, exported, ranked
from mtl_edge.choosing.measurement import Measurement, measure, now, try_out
from mtl_edge.engines import Engine, Setup
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import EngineError, OptionError
from mtl_edge.timing import Timing
from mtl_edge.version import __version__

__all__ = [
    "Choice",
    "Measure",
    "bundle_engine",
    "choose",
    "choose_graph",
    "identity",
    "measuring",
    "start_chosen",
]

MEASURE = "MTL_EDGE_MEASURE"
Measure = Literal["once", "read", "never", "anew"]

# What an engine that does not start raises; the others come from an installation that is damaged.
NOT_STARTED = (EngineError, ImportError, OSError)


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs, and why.

    Attributes:
        graph: to run.
        engine: to run it in.
        reason: for people, without a full stop.
        started: the engine if it runs already, as after a measurement; whoever asked closes it.
        others: what else could run, in this order.
        measurement: on this machine; none: the choice was made without.
        record: where the measurement is kept, or would be if there were one.
        not_kept: why the measurement could not be kept, if it could not.
    """

    graph: Graph
    engine: str
    reason: str
    started: Engine | None = None
    others: tuple[Candidate, ...] = ()
    measurement: Measurement | None = None
    record: Path | None = None
    not_kept: str | None = None


def choose_graph(manifest: Manifest, *, engine: str = AUTO, target: str | None = None) -> Graph:
    """The graph that the figures at export speak for; nothing is measured or read.

    Raises:
        EngineError, MissingPackageError, OptionError: see `candidates`.
    """
    found = candidates(manifest, engine=engine, target=target)
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
        target: the graph; none: any.
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
    found = candidates(bundle.manifest, engine=engine, target=target, device=setup.device)
    if len(found) == 1:
        only = found[0]
        reason = f"{only.name} is the only one of what was asked for that can run here"
        return Choice(only.graph, only.engine, reason)
    if mode == "never":
        return _by_export(found, "measuring is off")
    of = identity(bundle, found, setup)
    record = records.place_of(of)
    kept = None if mode == "anew" else _read(of, found)
    if kept is not None:
        return replace(_by_measurement(found, kept), record=record)
    if mode == "read":
        why = "nothing was measured on this machine yet"
        return replace(_by_export(found, why), record=record)
    taken, running = _measure(bundle, found, setup)
    choice = _by_measurement(found, taken)
    winner = Candidate(choice.graph, choice.engine).name
    for name, other in running.items():
        if name != winner:
            other.close()
    not_kept = records.keep(of, taken)
    return replace(choice, started=running[winner], record=record, not_kept=not_kept)


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
    for candidate in (Candidate(choice.graph, choice.engine), *choice.others):
        try:
            started = bundle_engine(bundle, candidate.graph, setup, candidate.engine)
        except NOT_STARTED as error:
            if not choice.others:
                raise
            failed[candidate.name] = str(error)
            continue
        if failed:
            choice = replace(
                choice,
                graph=candidate.graph,
                engine=candidate.engine,
                reason=f"what was chosen did not start ({_listed(failed)})",
            )
        return replace(choice, started=started), started
    raise EngineError(f"no engine starts: {_listed(failed)}")


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


def identity(bundle: Bundle, found: Sequence[Candidate], setup: Setup) -> dict[str, Any]:
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
            c.name: {
                "engine": f"{c.engine} {machine.version_of(engines.ENGINES[c.engine].package)}",
                "files": [digests[name] for name in c.graph.all_files],
            }
            for c in found
        },
    }


def _read(of: Mapping[str, Any], found: Sequence[Candidate]) -> Measurement | None:
    """The record, if it speaks of just these candidates."""
    kept = records.read(of)
    if kept is None or {*kept.timings, *kept.failed} != {c.name for c in found}:
        return None
    return kept


def _measure(
    bundle: Bundle, found: Sequence[Candidate], setup: Setup
) -> tuple[Measurement, dict[str, Engine]]:
    """Start all candidates and time those that run.

    Raises:
        EngineError: none does.
    """
    began = time.perf_counter()
    vocabulary, tokens = bundle.manifest.backbone.vocabulary, bundle.manifest.max_tokens
    running: dict[str, Engine] = {}
    failed: dict[str, str] = {}
    try:
        for c in found:
            try:
                running[c.name] = bundle_engine(bundle, c.graph, setup, c.engine)
                try_out(running[c.name], vocabulary=vocabulary, max_tokens=tokens)
            except NOT_STARTED as error:
                failed[c.name] = str(error)
                if c.name in running:
                    running.pop(c.name).close()
        if not running:
            raise EngineError(f"no engine starts: {_listed(failed)}")
        timings = measure(running, vocabulary=vocabulary, max_tokens=tokens)
    except BaseException:
        for engine in running.values():
            engine.close()
        raise
    return Measurement(timings, failed, now(), time.perf_counter() - began), running


def _by_export(found: Sequence[Candidate], why: str) -> Choice:
    scores = exported(found)
    best, *others = ranked(found, scores)
    return Choice(
        best.graph,
        best.engine,
        f"{_compared(best, others, scores)}, by the figures at export: {why}",
        others=tuple(others),
    )


def _by_measurement(found: Sequence[Candidate], taken: Measurement) -> Choice:
    scores = taken.scores()
    best, *others = ranked(found, scores)
    return Choice(
        best.graph,
        best.engine,
        f"{_compared(best, others, scores)}, measured here at {taken.taken}",
        others=tuple(others),
        measurement=taken,
    )


def _compared(best: Candidate, others: Sequence[Candidate], scores: Mapping[str, Timing]) -> str:
    """The best beside the fastest of the others."""
    rivals = [c for c in others if c.name in scores]
    if best.name not in scores:
        return f"{best.name} comes first and nothing is known of how fast any is"
    if not rivals:
        return f"{best.name} is the only one with a figure"
    rival = rivals[0]
    times = scores[best.name].ratio_of(scores[rival.name])[0]
    if times >= 1:
        return f"{best.name} is {times:.2f} times as fast as {rival.name}"
    kind = "a wider graph is to be by 1.10" if rival.bits > best.bits else "too close to tell"
    return f"{rival.name} is {1 / times:.2f} times as fast as {best.name}, {kind}"


def _listed(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in failed.items())
