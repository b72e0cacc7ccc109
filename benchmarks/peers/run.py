"""The order of things: environments, models, answers, and then the clock."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.peers import environments, ours
from mtl_edge.benchmarks.peers.environments import Environment, EnvironmentFailedError
from mtl_edge.benchmarks.peers.fits import Bench, Fitted, fit, tasks_of
from mtl_edge.benchmarks.peers.process import PeerFailedError
from mtl_edge.benchmarks.peers.table import ENVIRONMENTS, REFERENCE, WITHOUT, Peer
from mtl_edge.benchmarks.peers.timing import Measured, cold_starts, in_rounds
from mtl_edge.benchmarks.pinning import free_cores
from mtl_edge.errors import OptionError
from mtl_edge.timing import Timing
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.data import TaskData

__all__ = ["AGAIN", "Plan", "Ready", "measure", "prepare"]

AGAIN = " again"  # ends the name of what is measured twice, for the noise


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured and how often.

    Attributes:
        depths: of ours, each becomes a bundle.
        bundles: others of ours, by name.
        texts, singles: how many are asked in one call and one by one.
        starts: fresh processes of each way.
    """

    work: Path
    peers: Sequence[Peer]
    depths: Sequence[int]
    bundles: Mapping[str, Path]
    threads: int
    rounds: int
    texts: int
    singles: int
    starts: int


@dataclass(frozen=True, slots=True)
class Ready:
    """What can be timed, and why the rest cannot.

    Attributes:
        wanted: all that was asked for, in order.
        errors: by name.
    """

    bench: Bench
    wanted: Sequence[Peer]
    ways: Mapping[str, Fitted]
    errors: Mapping[str, str]


def prepare(
    plan: Plan, args: argparse.Namespace, tasks: Sequence[TaskData], backbone: Backbone
) -> Ready:
    """Environments, our bundles, the others' models, and what all of them answer.

    Args:
        args: the options of `add_data_arguments`, which training gets as they came.

    Raises:
        ExportError: ours could not be made.
        OptionError: nothing is left to measure.
    """
    learn, reported = tasks_of(tasks)
    bench = Bench(
        work=plan.work,
        backbone=backbone.folder,
        revision=backbone.info.sha256,
        rows=learn,
        reported=reported,
        threads=plan.threads,
        cores=_cores(plan.threads),
        max_tokens=args.max_tokens,
    )
    wanted = [*_ours(plan, args, tasks, backbone), *plan.peers]
    made, errors = _environments(wanted, plan.work)
    ways: dict[str, Fitted] = {}
    for peer in wanted:
        if peer.name in errors:
            continue
        try:
            ways[peer.name] = fit(peer, made, bench)
        except PeerFailedError as error:
            errors[peer.name] = str(error)
            print(f"{peer.name}: failed: {error}", file=sys.stderr, flush=True)
    if not ways:
        raise OptionError(
            f"nothing is left to measure: {'; '.join(f'{n}: {e}' for n, e in errors.items())}"
        )
    return Ready(bench, wanted, ways, errors)


def measure(plan: Plan, ready: Ready) -> dict[str, Any]:
    """All figures, as they are written to JSON."""
    bench, ways, errors = ready.bench, ready.ways, dict(ready.errors)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    first = next(iter(ways))
    again = ways[first]
    timed = {**ways, first + AGAIN: replace(again, peer=replace(again.peer, name=first + AGAIN))}
    found = in_rounds(timed, bench, rounds=plan.rounds, texts=plan.texts, singles=plan.singles)
    errors |= {name: m.error for name, m in found.items() if m.error is not None}
    running = {name: way for name, way in ways.items() if name not in errors}
    starts = cold_starts(running, bench, plan.starts, errors)
    running = {name: way for name, way in running.items() if name not in errors}
    count = min(plan.texts, len(bench.texts))
    reference = found[REFERENCE] if REFERENCE in running else None
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "load_before": load,
        "threads": plan.threads,
        "cores": list(bench.cores),
        "rounds": plan.rounds,
        "texts": count,
        "singles": min(plan.singles, len(bench.texts)),
        "starts": plan.starts,
        "rows": {
            task: {"train": len(bench.rows[task][0]), "reported": len(texts)}
            for task, (texts, _) in bench.reported.items()
        },
        "reference": REFERENCE if reference else None,
        "noise": _noise(found, first),
        "ways": [
            _row(way, bench, found[name], starts[name], count, reference)
            for name, way in running.items()
        ],
        "failed": [
            {
                "name": peer.name,
                "title": peer.title,
                "source": peer.source,
                "error": errors[peer.name],
            }
            for peer in ready.wanted
            if peer.name in errors
        ],
        "beaten_by": _beaten(running, bench, found),
    }


def _cores(threads: int) -> tuple[int, ...]:
    """The cores that everything is pinned to."""
    free = free_cores()
    if not free:
        return tuple(range(threads))
    if threads > len(free):
        raise OptionError(
            f"--threads is {threads}, and this process may use {len(free)} cores; give at most that"
        )
    return free[:threads]


def _ours(
    plan: Plan, args: argparse.Namespace, tasks: Sequence[TaskData], backbone: Backbone
) -> list[Peer]:
    """Our bundles, the deepest first."""
    entries: list[Peer] = []
    if plan.depths:
        depths = sorted(plan.depths, reverse=True)
        made = ours.bundles_of(depths, args, tasks, backbone, plan.work)
        for depth, (bundle, seconds) in made.items():
            entries += ours.entries(f"depth {depth}", bundle, seconds)
    for name, folder in plan.bundles.items():
        entries += ours.entries(name, folder)
    return entries


def _environments(
    wanted: Sequence[Peer], work: Path
) -> tuple[dict[str, Environment], dict[str, str]]:
    """Those that could be made, and why a way has none."""
    made: dict[str, Environment] = {}
    failed: dict[str, str] = {}
    for name in dict.fromkeys(name for peer in wanted for name in peer.environments):
        try:
            requirements = ENVIRONMENTS[name]
            if name == "ours":
                requirements = (str(environments.build_wheel(work)), *requirements)
            made[name] = environments.make(name, requirements, work, WITHOUT.get(name, ()))
        except EnvironmentFailedError as error:
            failed[name] = f"install of {name}: {error}"
    errors = {
        peer.name: failed[name] for peer in wanted for name in peer.environments if name in failed
    }
    return made, errors


def _row(
    way: Fitted,
    bench: Bench,
    found: Measured,
    start: Timing,
    count: int,
    reference: Measured | None,
) -> dict[str, Any]:
    peer, timing = way.peer, found.timing
    return {
        "name": peer.name,
        "title": peer.title,
        "ours": peer.kind == "ours",
        "source": peer.source,
        "environment": {
            "name": peer.environment,
            "bytes": way.environment.size,
            "packages": len(way.environment.packages),
            "versions": way.environment.packages,
        },
        "fit_seconds": way.fit_seconds,
        "bytes": way.size,
        "accuracy": way.accuracy(bench),
        "same_label_alone": way.alone,
        "same_label_again": found.same,
        "bulk_ms": timing.to_json(),
        "bulk_rounds_ms": found.bulk,
        "texts_per_second": 1e3 * count / timing.median,
        "to_reference": None if reference is None else timing.ratio_of(reference.timing),
        "cpu_seconds_per_1000": Timing(tuple(found.cpu)).median,
        "single_ms": {name: found.single(q) for name, q in
                      (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
        "load_seconds": found.load_seconds,
        "first_answer_ms": start.to_json(),
        "megabytes": found.memory,
    }  # fmt: skip


def _noise(found: Mapping[str, Measured], first: str) -> dict[str, Any] | None:
    """How far the same thing is from itself."""
    one, two = found[first], found[first + AGAIN]
    if one.error or two.error:
        return None
    return {"name": first, "ratio": one.timing.ratio_of(two.timing)}


def _beaten(
    ways: Mapping[str, Fitted], bench: Bench, found: Mapping[str, Measured]
) -> dict[str, dict[str, Any] | None]:
    """For each peer, the fastest of ours that is at least as accurate on every task."""
    result: dict[str, dict[str, Any] | None] = {}
    own = {name: way for name, way in ways.items() if way.peer.kind == "ours"}
    for name, way in ways.items():
        if name in own:
            continue
        wanted = way.accuracy(bench)
        as_good = [
            other
            for other, mine in own.items()
            if all(score >= wanted[task] for task, score in mine.accuracy(bench).items())
        ]
        best = min(as_good, key=lambda n: found[n].timing.median, default=None)
        result[name] = None if best is None else {
            "name": best,
            "times_as_fast": found[best].timing.ratio_of(found[name].timing),
        }  # fmt: skip
    return result
