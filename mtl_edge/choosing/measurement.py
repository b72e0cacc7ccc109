"""How fast engines run a bundle's graphs on this machine: measured once, kept in the user's cache.

    CACHE/engines/KEY.json   {"of": what was measured, and on what, "measurement": every round}

KEY is a digest of `of`, so what was measured elsewhere, with other files, versions, threads or on
another device has another name. A record is written under another name, then renamed: a reader sees
a whole one or none. One that is damaged is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.choosing.machine import cache_folder
from mtl_edge.engines import Engine
from mtl_edge.errors import EngineError
from mtl_edge.timing import Timing, time_calls, wall_ms

__all__ = ["NOT_STARTED", "SHAPES", "Measurement", "keep", "listed", "measure_engines", "place_of",
           "read"]  # fmt: skip

# What an engine that does not start raises; the others come from an installation that is damaged.
NOT_STARTED = (EngineError, ImportError, OSError)

# Texts in a call, tokens in a text and the shape's share of the score, from the cheapest on: apps
# on small CPUs mostly classify single short texts. Lengths of real texts are seldom multiples of
# what an engine pads to, so these are none.
SHAPES = {"1x12": (1, 12, 0.3), "1x26": (1, 26, 0.5), "8x26": (8, 26, 0.2)}
SECONDS, ROUNDS = 0.5, 15
# Shapes are left out, the dearest first, until so many calls of all take no longer: a warm one and
# the three rounds of two that there are in any case.
MOST_SECONDS, LEAST_CALLS = 0.8, 7

MOST_RECORDS = 100  # each is of a few kilobytes
HOUR = 60 * 60

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Milliseconds of a call, by target and by shape.

    Attributes:
        timings: by target, then by the shape's name; all with the same rounds.
        failed: by target, what the engine said that could not start or run.
        taken: when, in UTC, ISO 8601.
        seconds: that it took, starting the engines included.
    """

    timings: Mapping[str, Mapping[str, Timing]]
    failed: Mapping[str, str]
    taken: str
    seconds: float

    def scores(self) -> dict[str, Timing]:
        """By target and round, the weighted geometric mean of all shapes' milliseconds.

        So that a shape counts by its weight, not by how long it takes.
        """
        scores = {}
        for target, shapes in self.timings.items():
            logs = np.log([timing.rounds for timing in shapes.values()])
            means = np.average(logs, axis=0, weights=[SHAPES[shape][2] for shape in shapes])
            scores[target] = Timing(tuple(np.exp(means).tolist()))
        return scores


def measure_engines(
    starts: Mapping[str, Callable[[], Engine]], *, vocabulary: int, max_tokens: int
) -> tuple[Measurement, dict[str, Engine]]:
    """Start engines and time those that run, in interleaved rounds; they go on running.

    Args:
        starts: what starts each, by target.
        vocabulary: token ids are below it.
        max_tokens: that the graphs take; longer shapes are cut to it.

    Raises:
        EngineError: none starts.
    """
    began = time.perf_counter()
    running: dict[str, Engine] = {}
    failed: dict[str, str] = {}
    calls = partial(_calls, vocabulary=vocabulary, max_tokens=max_tokens)
    try:
        for target, start in starts.items():
            try:
                running[target] = start()
                for call in calls(running[target]).values():
                    call()  # an engine may start, allocate and only then fail
            except NOT_STARTED as error:
                failed[target] = str(error)
                if target in running:
                    running.pop(target).close()
        if not running:
            raise EngineError(f"no engine starts: {listed(failed)}")
        timings = _timed({target: calls(engine) for target, engine in running.items()})
    except BaseException:
        for engine in running.values():
            engine.close()
        raise
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    return Measurement(timings, failed, taken, time.perf_counter() - began), running


def listed(failed: Mapping[str, str]) -> str:
    """What failed and why, for a message; what failed alike is told once."""
    alike: dict[str, list[str]] = {}
    for target, why in failed.items():
        alike.setdefault(why, []).append(target)
    return "; ".join(f"{', '.join(targets)}: {why}" for why, targets in alike.items())


def _calls(engine: Engine, vocabulary: int, max_tokens: int) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for shape, (batch, tokens, _) in SHAPES.items():
        ids = np.random.default_rng(0).integers(0, vocabulary, (batch, min(tokens, max_tokens)))
        calls[shape] = partial(engine.run, ids, np.ones_like(ids))
    return calls


def _timed(calls: Mapping[str, Mapping[str, Call]]) -> dict[str, dict[str, Timing]]:
    """By target and shape, in about half a second."""
    seconds = {shape: sum(wall_ms(own[shape]) for own in calls.values()) / 1e3 for shape in SHAPES}
    while len(seconds) > 1 and LEAST_CALLS * sum(seconds.values()) > MOST_SECONDS:
        seconds.popitem()
    flat = {f"{shape} {target}": own[shape] for shape in seconds for target, own in calls.items()}
    times = time_calls(flat, rounds=ROUNDS, seconds=SECONDS, warm_up=1)
    return {target: {shape: times[f"{shape} {target}"] for shape in seconds} for target in calls}


def place_of(of: Mapping[str, Any]) -> Path | None:
    """Where the record of `of`, which JSON can hold, is or would be; None: there is no cache."""
    folder = cache_folder()
    key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]
    return folder / "engines" / f"{key}.json" if folder else None


def read(of: Mapping[str, Any]) -> Measurement | None:
    """What was measured of `of`; None if nothing was, or its record cannot be read."""
    if (place := place_of(of)) is None:
        return None
    try:
        data = json.loads(place.read_bytes())
        kept = data["measurement"]
        timings = {target: {shape: Timing(tuple(map(float, timing["rounds"])))
                            for shape, timing in shapes.items()}
                   for target, shapes in kept["timings"].items()}  # fmt: skip
        found = Measurement(timings, kept["failed"], kept["taken"], float(kept["seconds"]))
        datetime.fromisoformat(found.taken)
        rounds = np.array([t.rounds for shapes in timings.values() for t in shapes.values()])
        alike = len({frozenset(shapes) for shapes in timings.values()}) == 1
        valid = alike and rounds.size and np.isfinite(rounds).all() and (rounds > 0).all()
        valid = valid and bool(found.scores())
        of_these = data["of"] == of and {*timings, *found.failed} == {*of["candidates"]}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
            RecursionError):  # fmt: skip
        return None  # it will be measured again, and the record written anew
    return found if valid and of_these else None


def keep(of: Mapping[str, Any], measurement: Measurement) -> str | None:
    """Write a record; where that is not possible, why."""
    if (place := place_of(of)) is None:
        return "there is no home folder to keep it in; MTL_EDGE_CACHE would name another"
    data = {"of": of, "measurement": asdict(measurement)}
    partial_file = place.with_name(f".{place.name}.{secrets.token_hex(8)}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial_file, place)
        _tidy(place.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial_file.unlink(missing_ok=True)
        why = error.strerror or error
        return f"it cannot be kept in {place.parent}: {why}; MTL_EDGE_CACHE would name another"
    return None


def _tidy(folder: Path) -> None:
    """Remove the oldest records over the limit, and what killed processes left half written."""
    ages: list[tuple[float, Path]] = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process tidies up too
            age = file.stat().st_mtime
            if file.suffix == ".json":
                ages.append((age, file))
            elif file.suffix == ".partial" and time.time() - age > HOUR:
                file.unlink()
    for _, record in sorted(ages)[:-MOST_RECORDS]:
        record.unlink(missing_ok=True)
