"""How fast engines run a bundle's graphs on this machine: a short measurement."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from mtl_edge.engines import Engine
from mtl_edge.errors import EngineError
from mtl_edge.timing import Timing, alternate

__all__ = ["NOT_STARTED", "SHAPES", "Measurement", "listed", "measure"]

# What an engine that does not start raises; the others come from an installation that is damaged.
NOT_STARTED = (EngineError, ImportError, OSError)


class CallShape(NamedTuple):
    """Texts in a call, tokens in a text, and what share of the score they have."""

    batch: int
    tokens: int
    weight: float

    @property
    def name(self) -> str:
        return f"{self.batch}x{self.tokens}"


# From the cheapest on. Apps on small CPUs mostly classify single short texts. Lengths of real texts
# are seldom multiples of what an engine pads to, so these are none.
SHAPES = (CallShape(1, 12, 0.3), CallShape(1, 26, 0.5), CallShape(8, 26, 0.2))
WEIGHTS = {shape.name: shape.weight for shape in SHAPES}
SECONDS, ROUNDS = 0.5, 15
# Shapes are left out, the dearest first, until so many calls of each take no longer: a warm one and
# the three rounds of two that there are in any case.
MOST_SECONDS, LEAST_CALLS = 0.8, 7

Timings = Mapping[str, Mapping[str, Timing]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Milliseconds of a call, by what was measured and by shape.

    Attributes:
        timings: by name, then by the shape's name; all with the same rounds.
        failed: by name, what the engine said that could not start or run.
        taken: when, in UTC, ISO 8601.
        seconds: that it took, starting the engines included.
    """

    timings: Timings
    failed: Mapping[str, str]
    taken: str
    seconds: float

    def scores(self) -> dict[str, Timing]:
        """Round by round, the weighted geometric mean of all shapes' milliseconds.

        So that a shape counts by its weight, not by how long it takes.
        """
        return {name: _score(shapes) for name, shapes in self.timings.items()}

    def to_json(self) -> dict[str, Any]:
        """Every round, for the record."""
        timings = {name: {shape: [round(ms, 4) for ms in timing.rounds]
                          for shape, timing in shapes.items()}
                   for name, shapes in self.timings.items()}  # fmt: skip
        return asdict(self) | {"timings": timings, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, data: Any) -> Measurement:
        """What `to_json` gave.

        Raises:
            ValueError: it is not that, or its figures cannot have been measured.
        """
        try:
            timings = {
                str(name): {str(s): Timing(tuple(map(float, ms))) for s, ms in shapes.items()}
                for name, shapes in data["timings"].items()
            }
            failed = {str(name): str(why) for name, why in data["failed"].items()}
            result = cls(timings, failed, str(data["taken"]), float(data["seconds"]))
            datetime.fromisoformat(result.taken)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no measurement: {error!r}") from None
        first = set(next(iter(timings.values()), {}))
        rounds = [timing.rounds for shapes in timings.values() for timing in shapes.values()]
        if (
            not first
            or first - {*WEIGHTS}
            or any({*shapes} != first for shapes in timings.values())
        ):
            raise ValueError(f"no measurement: expected the same shapes of all, of {[*WEIGHTS]}")
        if len({len(each) for each in rounds}) > 1 or not rounds[0]:
            raise ValueError("no measurement: expected the same number of rounds of all")
        if not all(math.isfinite(ms) and ms > 0 for each in rounds for ms in each):
            raise ValueError("no measurement: expected times above zero")
        return result


def measure(
    starts: Mapping[str, Callable[[], Engine]], *, vocabulary: int, max_tokens: int
) -> tuple[Measurement, dict[str, Engine]]:
    """Start engines and time those that run, in alternating rounds; they go on running.

    Args:
        starts: what starts each, by name.
        vocabulary: token ids are below it.
        max_tokens: that the graphs take; longer shapes are cut to it.

    Raises:
        EngineError: none starts.
    """
    began = time.perf_counter()
    running: dict[str, Engine] = {}
    failed: dict[str, str] = {}
    call = functools.partial(_call, vocabulary=vocabulary, max_tokens=max_tokens)
    try:
        for name, start in starts.items():
            try:
                running[name] = start()
                for shape in SHAPES:  # an engine may start, allocate and only then fail
                    call(running[name], shape)()
            except NOT_STARTED as error:
                failed[name] = str(error)
                if name in running:
                    running.pop(name).close()
        if not running:
            raise EngineError(f"no engine starts: {listed(failed)}")
        timings = _timed({shape.name: {name: call(engine, shape) for name, engine in running.items()}
                          for shape in SHAPES})  # fmt: skip
    except BaseException:
        for engine in running.values():
            engine.close()
        raise
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    return Measurement(timings, failed, taken, time.perf_counter() - began), running


def listed(failed: Mapping[str, str]) -> str:
    """What failed, each with why, for a message."""
    return "; ".join(f"{name}: {why}" for name, why in failed.items())


def _call(
    engine: Engine, shape: CallShape, vocabulary: int, max_tokens: int
) -> Callable[[], object]:
    size = (shape.batch, min(shape.tokens, max_tokens))
    ids = np.random.default_rng(0).integers(0, vocabulary, size)
    return functools.partial(engine.run, ids, np.ones_like(ids))


def _timed(calls: Mapping[str, Mapping[str, Callable[[], object]]]) -> Timings:
    """By name, then by shape, what was given by shape, then by name. It takes about half a second."""
    seconds = {shape: _seconds(of_shape.values()) for shape, of_shape in calls.items()}
    while len(seconds) > 1 and LEAST_CALLS * sum(seconds.values()) > MOST_SECONDS:
        seconds.popitem()
    flat = {f"{shape} {name}": call for shape in seconds for name, call in calls[shape].items()}
    times = alternate(flat, rounds=ROUNDS, seconds=SECONDS, warm_up=1)
    names = next(iter(calls.values()))
    return {name: {shape: times[f"{shape} {name}"] for shape in seconds} for name in names}


def _seconds(calls: Iterable[Callable[[], object]]) -> float:
    """What one call of each takes."""
    began = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - began


def _score(shapes: Mapping[str, Timing]) -> Timing:
    weights = [WEIGHTS[name] for name in shapes]
    logs = np.log([timing.rounds for timing in shapes.values()])
    return Timing(tuple(np.exp(np.average(logs, axis=0, weights=weights)).tolist()))
