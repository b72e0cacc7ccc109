"""Everything timed in interleaved rounds: one process at work at a time, the others asleep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from mtl_edge.benchmarks.peers.fitting import Fitted, Workload
from mtl_edge.benchmarks.peers.process import PeerFailedError, Process
from mtl_edge.timing import interleave
from mtl_edge.training.data import spread
from mtl_edge.training.progress import Progress

__all__ = ["PeerTimes", "Repeats", "cold_starts", "in_rounds"]

T = TypeVar("T")

AT_LEAST = 0.25  # seconds of calls with many texts in a round; the cheap ones make several
WARM_UP = 2  # single texts that a round begins with and does not count
QUIET = 0.05  # seconds after a pass, in which the last one's threads go to sleep


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often, and how much.

    Attributes:
        texts, singles: how many are asked in one call and one by one.
        starts: fresh processes of each peer.
    """

    rounds: int
    texts: int
    singles: int
    starts: int


@dataclass(slots=True)
class PeerTimes:
    """Figures of one peer; a value for each round.

    Attributes:
        bulk: milliseconds of a call with many texts, others each time.
        cpu: processor seconds of 1,000 texts in bulk.
        singles: milliseconds of each single text, others in each round.
        same: the lowest share over the tasks of texts that get the label they got when fitted.
        error: why it is left out; None: it is not.
    """

    bulk: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    singles: list[float] = field(default_factory=list)
    load_seconds: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)
    same: float = 0.0
    error: str | None = None

    def attempt(self, call: Callable[[], T]) -> T | None:
        """What a call gives; of one that fails the error is kept, and no other is made."""
        if self.error is not None:
            return None
        try:
            return call()
        except PeerFailedError as error:
            self.error = str(error)
            print(error, file=sys.stderr, flush=True)
            return None


def in_rounds(
    peers: Mapping[str, Fitted], workload: Workload, repeats: Repeats
) -> dict[str, PeerTimes]:
    """Time each peer once a round. One that fails keeps its error and is left out from then on.

    No text is asked twice of a peer, as long as there are enough.
    """
    chosen = spread(range(len(workload.texts)), repeats.texts)
    mixed, few = _apart(workload.mixed, repeats.rounds, len(chosen), repeats.singles)
    many, alone = workload.file(mixed), [workload.file(texts) for texts in few]
    most = max(1, len(mixed) // len(chosen) // repeats.rounds)
    found = {name: PeerTimes() for name in peers}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_started(peer, workload, "timing"))
                     for name, peer in peers.items()}  # fmt: skip
        with Progress("loading", total=len(peers), unit="peers") as progress:
            for name, process in processes.items():
                loaded = found[name].attempt(partial(process.ask, "load"))
                found[name].load_seconds = loaded["seconds"] if loaded else 0.0
                progress.update(note=name)
        with Progress("timing", total=repeats.rounds * len(peers), unit="passes") as progress:

            def turns(name: str) -> Iterator[None]:
                for texts in alone:
                    found[name].attempt(
                        partial(_pass, found[name], processes[name], many, texts, len(chosen), most)
                    )
                    progress.update(note=name)
                    yield

            own = {name: turns(name) for name in peers}
            interleave({n: partial(next, turn) for n, turn in own.items()}, rounds=repeats.rounds)
        bulk = workload.file([workload.texts[i] for i in chosen])
        for name, peer in peers.items():
            found[name].attempt(partial(_end, found[name], processes[name], bulk, peer, chosen))
    return found


def _started(peer: Fitted, workload: Workload, log: str) -> Process:
    return workload.start(peer.peer, peer.environment, peer.folder, log)


def _apart(
    texts: Sequence[str], rounds: int, size: int, singles: int
) -> tuple[list[str], list[list[str]]]:
    """Texts for calls with `size` of them, and for each round some others to ask one by one.

    Where there are too few for both, calls have as many as they need to differ once, and single
    texts are asked again.
    """
    each = singles + WARM_UP
    wanted = min(rounds * each, max(each, len(texts) - rounds * size))
    few = list(texts[:wanted])
    of_round = [[few[(i * each + k) % len(few)] for k in range(each)] for i in range(rounds)]
    rest = list(texts[wanted:])
    return (rest if len(rest) >= size else list(texts)), of_round


def _pass(
    measured: PeerTimes, process: Process, mixed: str, few: str, count: int, most: int
) -> None:
    time.sleep(QUIET)
    taken = process.ask("time_bulk", texts=mixed, size=count, at_least=AT_LEAST, most=most)
    time.sleep(QUIET)
    alone = process.ask("time_singles", texts=few)
    measured.bulk.append(1e3 * taken["seconds"])
    measured.cpu.append(1000 * taken["cpu"] / count)
    measured.singles += [1e3 * seconds for seconds in alone["seconds"]]


def _end(
    measured: PeerTimes, process: Process, bulk: str, peer: Fitted, chosen: Sequence[int]
) -> None:
    """Whether it still says what it said, and its memory."""
    labels: dict[str, list[str]] = process.ask("answer", texts=bulk)["labels"]
    measured.same = min(
        float(np.mean([peer.labels[task][i] == s for i, s in zip(chosen, found, strict=True)]))
        for task, found in labels.items()
    )
    measured.memory = process.ask("memory")


def cold_starts(
    peers: Mapping[str, Fitted], workload: Workload, starts: int, found: Mapping[str, PeerTimes]
) -> dict[str, list[float]]:
    """Milliseconds from the start of a process to its first answer, in interleaved rounds.

    A peer that fails is left out, and its `PeerTimes` says why.
    """
    text = workload.file(workload.texts[:1])
    with Progress("cold starts", total=starts, unit="rounds") as progress:
        turns = {
            name: partial(found[name].attempt, partial(_cold_start, peer, workload, text))
            for name, peer in peers.items()
        }
        taken = interleave(turns, rounds=starts, between=progress.update)
    return {
        name: [ms for ms in own if ms is not None]
        for name, own in taken.items()
        if found[name].error is None
    }


def _cold_start(peer: Fitted, workload: Workload, text: str) -> float:
    begun = time.perf_counter()
    with _started(peer, workload, "start") as process:
        process.ask("load")
        process.ask("answer", texts=text)
        return 1e3 * (time.perf_counter() - begun)
