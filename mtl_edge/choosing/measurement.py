"""How fast engines run a bundle's graphs on this machine: a short measurement."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mtl_edge.engines import Engine
from mtl_edge.timing import Timing, time_calls

__all__ = ["SHAPES", "Measurement", "Shape", "measure", "now", "try_out"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Texts in a call, tokens in a text, and what share of the score they have."""

    batch: int
    tokens: int
    weight: float

    @property
    def name(self) -> str:
        return f"{self.batch}x{self.tokens}"


# From the cheapest on. Apps on small CPUs mostly classify single short texts. Lengths of real texts
# are seldom multiples of what an engine pads to, so these are none.
SHAPES = (Shape(1, 12, 0.3), Shape(1, 26, 0.5), Shape(8, 26, 0.2))
SECONDS_FOR_SHAPES = 0.8  # three rounds of DistilBERT in two engines, on two server cores
SECONDS = 0.5
ROUNDS = 15
LEAST_ROUNDS = 3  # what `time_calls` takes in any case


@dataclass(frozen=True, slots=True)
class Measurement:
    """Milliseconds of a call, by what was measured and by shape.

    Attributes:
        timings: by name, then by the shape's name; all with the same rounds.
        failed: by name, what the engine said that could not start or run.
        taken: when, in UTC, ISO 8601.
        seconds: that it took, starting the engines included.
    """

    timings: Mapping[str, Mapping[str, Timing]]
    failed: Mapping[str, str] = field(default_factory=dict)
    taken: str = ""
    seconds: float = 0.0

    def scores(self) -> dict[str, Timing]:
        """Round by round, the weighted geometric mean of all shapes' milliseconds.

        So that a shape counts by its weight, not by how long it takes.
        """
        return {name: _score(shapes) for name, shapes in self.timings.items()}

    def to_json(self) -> dict[str, Any]:
        """Every round, for the record."""
        return {
            "taken": self.taken,
            "seconds": round(self.seconds, 3),
            "timings": {
                name: {shape: [round(ms, 4) for ms in t.rounds] for shape, t in shapes.items()}
                for name, shapes in self.timings.items()
            },
            "failed": dict(self.failed),
        }

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
        _check(result)
        return result


def try_out(engine: Engine, *, vocabulary: int, max_tokens: int) -> None:
    """Run every shape once: an engine may start, allocate and only then fail.

    Raises:
        EngineError: it cannot run one.
    """
    for shape in SHAPES:
        _call(engine, shape, vocabulary, max_tokens)()


def measure(
    engines: Mapping[str, Engine],
    *,
    vocabulary: int,
    max_tokens: int,
) -> dict[str, dict[str, Timing]]:
    """Time one or more engines that were tried out, in alternating rounds: by name and shape.

    It takes about half a second, on a slow machine the least that tells something: shapes of which
    three rounds would take too long are left out, but for the first.

    Args:
        vocabulary: token ids are below it.
        max_tokens: that the graphs take; longer shapes are cut to it.

    Raises:
        EngineError: an engine cannot run a shape.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    left = SECONDS_FOR_SHAPES
    for shape in SHAPES:
        added = {
            (name, shape.name): _call(engine, shape, vocabulary, max_tokens)
            for name, engine in engines.items()
        }
        cost = _seconds(list(added.values())) * (1 + 2 * LEAST_ROUNDS)
        if calls and cost > left:
            break
        left -= cost
        calls |= added
    keyed = {f"{shape} {name}": call for (name, shape), call in calls.items()}
    times = time_calls(keyed, rounds=ROUNDS, seconds=SECONDS, warm_up=1)
    result: dict[str, dict[str, Timing]] = {name: {} for name in engines}
    for name, shape_name in calls:
        result[name][shape_name] = times[f"{shape_name} {name}"]
    return result


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _call(engine: Engine, shape: Shape, vocabulary: int, max_tokens: int) -> Callable[[], object]:
    size = (shape.batch, min(shape.tokens, max_tokens))
    ids = np.random.default_rng(0).integers(0, vocabulary, size)
    return functools.partial(engine.run, ids, np.ones_like(ids))


def _seconds(calls: Sequence[Callable[[], object]]) -> float:
    """What one call of each takes."""
    started = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - started


def _score(shapes: Mapping[str, Timing]) -> Timing:
    weights = {shape.name: shape.weight for shape in SHAPES}
    total = sum(weights[name] for name in shapes)
    logs = sum(weights[name] * np.log(timing.rounds) for name, timing in shapes.items())
    return Timing(tuple(np.exp(logs / total).tolist()))


def _check(measurement: Measurement) -> None:
    """
    Raises:
        ValueError: there is nothing in it, or what is in it does not belong together.
    """
    sets = list(measurement.timings.values())
    known = {shape.name for shape in SHAPES}
    if not sets or not sets[0] or any(set(shapes) != set(sets[0]) for shapes in sets):
        raise ValueError("no measurement: expected the same shapes of all graphs")
    if not set(sets[0]) <= known:
        raise ValueError(f"no measurement: expected shapes of {sorted(known)}")
    rounds = [timing.rounds for shapes in sets for timing in shapes.values()]
    if len({len(times) for times in rounds}) != 1 or not rounds[0]:
        raise ValueError("no measurement: expected the same number of rounds of all")
    if not all(math.isfinite(ms) and ms > 0 for times in rounds for ms in times):
        raise ValueError("no measurement: expected times above zero")
