"""Everything timed in alternating rounds: one process at work at a time, the others asleep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_edge.benchmarks.peers.fits import Bench, Fitted
from mtl_edge.benchmarks.peers.process import PeerFailedError, Process
from mtl_edge.timing import Timing
from mtl_edge.training.data import spread
from mtl_edge.training.progress import Progress

__all__ = ["Measured", "cold_starts", "in_rounds"]

AT_LEAST = 0.25  # seconds of calls with many texts in a round; the cheap ones make several
WARMING = 2  # single texts that a round begins with and does not count
QUIET = 0.05  # seconds after a pass, in which the last one's threads go to sleep


@dataclass(slots=True)
class Measured:
    """Figures of one way; a value for each round.

    Attributes:
        bulk: milliseconds of a call with many texts, others each time.
        cpu: processor seconds of 1,000 texts in bulk.
        singles: milliseconds of each single text, others in each round.
        same: the lowest share over the tasks of texts that get the label they got when fitted.
    """

    bulk: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    singles: list[list[float]] = field(default_factory=list)
    load_seconds: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)
    same: float = 0.0
    error: str | None = None

    @property
    def timing(self) -> Timing:
        return Timing(tuple(self.bulk))

    def single(self, quantile: float) -> float:
        """Over all single texts of all rounds."""
        return float(np.quantile(np.concatenate(self.singles), quantile))


def in_rounds(
    ways: Mapping[str, Fitted], bench: Bench, *, rounds: int, texts: int, singles: int
) -> dict[str, Measured]:
    """Time each way once a round, in an order that moves on by some places each round.

    Args:
        texts: how many in a call.
        singles: how many one by one.

    No text is asked twice of a way, as long as there are enough. A way that fails keeps its error
    and is left out from then on.
    """
    chosen = spread(range(len(bench.texts)), texts)
    bulk = bench.file([bench.texts[i] for i in chosen])
    mixed, few = _apart(bench.mixed, rounds, len(chosen), singles)
    many = bench.file(mixed)
    alone = [bench.file(texts) for texts in few]
    most = max(1, len(mixed) // len(chosen) // rounds)
    found = {name: Measured() for name in ways}
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        with Progress("loading", total=len(ways), unit="ways") as progress:
            for name, way in ways.items():
                process = bench.start(way.peer, way.environment, way.folder, "timing")
                processes[name] = stack.enter_context(process)
                loaded = _tried(found[name], lambda p=process: p.ask("load"))  # type: ignore[misc]
                if loaded is not None:
                    found[name].load_seconds = loaded["seconds"]
                progress.update(note=name)
        names = list(ways)
        stride = max(1, len(names) // rounds)
        with Progress("timing", total=rounds * len(names), unit="passes") as progress:
            for number in range(rounds):
                shift = number * stride % len(names)
                for name in names[shift:] + names[:shift]:
                    if found[name].error is None:
                        _tried(
                            found[name],
                            lambda n=name, one=alone[number]: _pass(  # type: ignore[misc]
                                found[n], processes[n], many, one, len(chosen), most
                            ),
                        )
                    progress.update(note=name)
        for name, way in ways.items():
            if found[name].error is None:
                _tried(
                    found[name],
                    lambda n=name, w=way: _end(found[n], processes[n], bulk, w, chosen),  # type: ignore[misc]
                )
    return found


def _apart(
    texts: Sequence[str], rounds: int, size: int, singles: int
) -> tuple[list[str], list[list[str]]]:
    """Texts for calls with `size` of them, and for each round some others to ask one by one.

    Where there are too few for both, calls have as many as they need to differ once, and single
    texts are asked again.
    """
    each = singles + WARMING
    wanted = min(rounds * each, max(each, len(texts) - rounds * size))
    few = list(texts[:wanted])
    of_round = [[few[(i * each + k) % len(few)] for k in range(each)] for i in range(rounds)]
    rest = list(texts[wanted:])
    return (rest if len(rest) >= size else list(texts)), of_round


def _tried(measured: Measured, call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return call()
    except PeerFailedError as error:
        measured.error = str(error)
        print(error, file=sys.stderr, flush=True)
        return None


def _pass(
    measured: Measured, process: Process, mixed: str, few: str, count: int, most: int
) -> dict[str, Any]:
    time.sleep(QUIET)
    taken = process.ask("time_bulk", texts=mixed, size=count, at_least=AT_LEAST, most=most)
    time.sleep(QUIET)
    alone = process.ask("time_singles", texts=few)
    measured.bulk.append(1e3 * taken["seconds"])
    measured.cpu.append(1000 * taken["cpu"] / count)
    measured.singles.append([1e3 * seconds for seconds in alone["seconds"]])
    return taken


def _end(
    measured: Measured, process: Process, bulk: str, way: Fitted, chosen: Sequence[int]
) -> dict[str, Any]:
    """Whether it still says what it said, and its memory."""
    labels: dict[str, list[str]] = process.ask("answer", texts=bulk)["labels"]
    measured.same = min(
        float(np.mean([way.labels[task][i] == said for i, said in zip(chosen, found, strict=True)]))
        for task, found in labels.items()
    )
    measured.memory = process.ask("memory")
    return labels


def cold_starts(
    ways: Mapping[str, Fitted], bench: Bench, starts: int, errors: dict[str, str]
) -> dict[str, Timing]:
    """Milliseconds from the start of a process to its first answer, in alternating rounds.

    A way that fails is left out, and `errors` says why.
    """
    text = bench.file(bench.texts[:1])
    found: dict[str, list[float]] = {name: [] for name in ways}
    with Progress("cold starts", total=starts * len(ways), unit="starts") as progress:
        for _ in range(starts):
            for name, way in ways.items():
                if name not in errors:
                    try:
                        found[name].append(_cold_start(way, bench, text))
                    except PeerFailedError as error:
                        errors[name] = str(error)
                progress.update(note=name)
    return {name: Timing(tuple(times)) for name, times in found.items() if name not in errors}


def _cold_start(way: Fitted, bench: Bench, text: str) -> float:
    begun = time.perf_counter()
    with bench.start(way.peer, way.environment, way.folder, "start") as process:
        process.ask("load")
        process.ask("answer", texts=text)
        return 1e3 * (time.perf_counter() - begun)
