"""The order of things: environments, models, answers, and then the clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl_edge.benchmarks.core.command import new_record
from mtl_edge.benchmarks.core.machine import describe, free_cores
from mtl_edge.benchmarks.core.measure import ALL, ONE, rounds_of
from mtl_edge.benchmarks.core.record import Estimate, Record, Score, Scores, SystemInfo
from mtl_edge.benchmarks.core.statistics import AGAIN
from mtl_edge.benchmarks.peers import environments
from mtl_edge.benchmarks.peers.environments import Environment, EnvironmentFailedError
from mtl_edge.benchmarks.peers.fitting import Fitted, Workload, fit
from mtl_edge.benchmarks.peers.process import PeerFailedError
from mtl_edge.benchmarks.peers.rounds import PeerTimes, Repeats, cold_starts, in_rounds
from mtl_edge.benchmarks.peers.table import ENVIRONMENTS, REFERENCE, WITHOUT, Peer
from mtl_edge.errors import OptionError

__all__ = ["FIRST_ANSWER", "Ready", "cores_for", "measure", "prepare"]

FIRST_ANSWER = "first answer"  # the name of the rounds from the start of a process


@dataclass(frozen=True, slots=True)
class Ready:
    """What can be timed, and why the rest cannot.

    Attributes:
        wanted: all that was asked for, in order.
        errors: by name.
    """

    workload: Workload
    wanted: Sequence[Peer]
    peers: Mapping[str, Fitted]
    errors: Mapping[str, str]


def prepare(workload: Workload, wanted: Sequence[Peer]) -> Ready:
    """Environments, models, and what all of them answer.

    Raises:
        OptionError: nothing is left to measure.
    """
    made, errors = _environments(wanted, workload.work)
    peers: dict[str, Fitted] = {}
    for peer in wanted:
        if peer.name in errors:
            continue
        try:
            peers[peer.name] = fit(peer, made, workload)
        except PeerFailedError as error:
            errors[peer.name] = str(error)
            print(f"{peer.name}: failed: {error}", file=sys.stderr, flush=True)
    if not peers:
        raise OptionError(
            f"nothing is left to measure: {'; '.join(f'{n}: {e}' for n, e in errors.items())}"
        )
    return Ready(workload, wanted, peers, errors)


def measure(ready: Ready, repeats: Repeats, command: str) -> Record:
    """All figures."""
    started, machine, workload = time.monotonic(), describe(), ready.workload
    first = ready.peers[next(iter(ready.peers))]
    again = replace(first, peer=replace(first.peer, name=AGAIN))
    found = in_rounds({**ready.peers, AGAIN: again}, workload, repeats)
    running = {name: peer for name, peer in ready.peers.items() if found[name].error is None}
    starts = cold_starts(running, workload, repeats.starts, found)
    running = {name: running[name] for name in starts}
    failed = {n: own.error for n, own in found.items() if own.error} | dict(ready.errors)
    if not running:
        raise OptionError(f"every peer failed: {'; '.join(f'{n}: {e}' for n, e in failed.items())}")
    paired = first.peer.name in running and found[AGAIN].error is None
    timed = [*running, *([AGAIN] if paired else [])]
    references = [REFERENCE] if REFERENCE in running else []
    count = min(repeats.texts, len(workload.texts))
    rounds = [
        rounds_of(ALL, {n: found[n].bulk for n in timed}, texts=count, references=references),
        rounds_of(ONE, {n: found[n].singles for n in running}, texts=1, references=()),
        rounds_of(FIRST_ANSWER, starts, texts=1, references=()),
    ]
    return new_record(
        "peers", command, workload.threads, started,
        machine=machine,
        inputs={
            "cores": list(workload.cores),
            "rounds": repeats.rounds,
            "texts": count,
            "singles": min(repeats.singles, len(workload.texts)),
            "starts": repeats.starts,
            "training_rows": {task: len(texts) for task, (texts, _) in workload.rows.items()},
            "own": [name for name, peer in running.items() if peer.peer.own],
            "versions": {p.peer.environment: p.environment.packages for p in running.values()},
        },
        systems=[
            SystemInfo(
                peer.name, peer.environment, "",
                running[peer.name].size if peer.name in running else 0,
                failed.get(peer.name), peer.title, peer.source,
            )
            for peer in ready.wanted
        ],
        rounds=rounds,
        figures=_figures(running, found),
        scores=_scores(running, workload),
    )  # fmt: skip


def _figures(
    peers: Mapping[str, Fitted], found: Mapping[str, PeerTimes]
) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for name, peer in peers.items():
        own, environment = found[name], peer.environment
        values = {
            "CPU s per 1,000": float(np.median(own.cpu)),
            "load s": own.load_seconds,
            "same label again": own.same,
            "same label alone": peer.alone,
            "packages": len(environment.packages),
            "MB installed": environment.size / 1e6,
            **({} if peer.fit_seconds is None else {"fit s": peer.fit_seconds}),
            **{f"MB {which}": value for which, value in own.memory.items()},
        }
        for quantity, value in values.items():
            figures.setdefault(quantity, {})[name] = value
    return figures


def _scores(peers: Mapping[str, Fitted], workload: Workload) -> list[Scores]:
    accuracy = {name: peer.accuracy(workload) for name, peer in peers.items()}
    return [
        Scores(
            task, "", "", len(texts), "now",
            {name: Score(Estimate(own[task])) for name, own in accuracy.items()},
        )
        for task, (texts, _) in workload.reported.items()
    ]  # fmt: skip


def cores_for(threads: int) -> tuple[int, ...]:
    """The cores that everything is pinned to.

    Raises:
        OptionError: there are fewer.
    """
    free = free_cores()
    if not free:
        return tuple(range(threads))
    if threads > len(free):
        raise OptionError(
            f"--threads is {threads}, and this process may use {len(free)} cores; give at most that"
        )
    return free[:threads]


def _environments(
    wanted: Sequence[Peer], work: Path
) -> tuple[dict[str, Environment], dict[str, str]]:
    """Those that could be made, and why a peer has none."""
    made: dict[str, Environment] = {}
    failed: dict[str, str] = {}
    for name in dict.fromkeys(name for peer in wanted for name in peer.environments):
        try:
            requirements = ENVIRONMENTS[name]
            if name == "mtl-edge":
                requirements = (str(environments.build_wheel(work)), *requirements)
            made[name] = environments.make(name, requirements, work, WITHOUT.get(name, ()))
        except EnvironmentFailedError as error:
            failed[name] = f"install of {name}: {error}"
    errors = {
        peer.name: failed[name] for peer in wanted for name in peer.environments if name in failed
    }
    return made, errors
