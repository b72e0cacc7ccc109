"""What systems are timed on: token arrays of a shape, texts one at a time, and all in one call."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.benchmarks.core.record import Rounds
from mtl_edge.benchmarks.core.statistics import AGAIN, noise_of, pairs_of, timed
from mtl_edge.benchmarks.core.system import System
from mtl_edge.engines import Ids
from mtl_edge.errors import OptionError
from mtl_edge.timing import SETTLE, interleave, time_calls, wall_ms
from mtl_edge.training.progress import Progress

__all__ = ["ALL", "ONE", "LeastMs", "Shape", "arrays", "at_shape", "at_shapes", "bulk_times",
           "in_one_call", "one_at_a_time", "rounds_of", "shapes_of", "text_times"]  # fmt: skip

Shape = tuple[int, int]  # texts, tokens
Times = npt.NDArray[np.float64]
LeastMs = Callable[[System, int, int], float | None]  # least ms for texts x tokens, if known

ONE, ALL = "one at a time", "in one call"  # names of rounds on texts
SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})")
IN_A_ROW = 32  # texts that a system answers in a turn, so that it runs as it does in an app
LEAD = 3  # untimed texts before those: the system before has emptied the caches
QUIET = 0.05  # seconds between two calls with all texts


def shapes_of(option: str, text: str, most_tokens: int | None = None) -> list[Shape]:
    """`1x16,32x128` as shapes, each once.

    Args:
        option: what they were given by, for the error.

    Raises:
        OptionError: one is no shape, or longer than the graphs take.
    """
    found = []
    for part in text.split(","):
        match = SHAPE.fullmatch(part.strip())
        if match is None:
            raise OptionError(
                f"{option} {part!r}: expected BATCHxTOKENS, as in 1x16,32x128; each up to 9999"
            )
        shape = int(match[1]), int(match[2])
        if most_tokens is not None and shape[1] > most_tokens:
            raise OptionError(f"{option} {part}: the bundle takes at most {most_tokens} tokens")
        found.append(shape)
    return list(dict.fromkeys(found))


def arrays(shape: Shape, vocabulary: int) -> tuple[Ids, Ids]:
    """Random ids and a mask of ones, `[texts, tokens]` each; the same ones each time."""
    ids = np.random.default_rng(0).integers(0, vocabulary, shape)
    return ids, np.ones_like(ids)


def at_shape(
    systems: Sequence[System],
    shape: Shape,
    vocabulary: int,
    *,
    rounds: int,
    seconds: float,
    name: str | None = None,
    twice: bool = True,
    references: Sequence[str] | None = None,
    least_ms: LeastMs | None = None,
    between: Callable[[], object] | None = None,
    **options: Any,
) -> Rounds:
    """The systems' own calls on token arrays of one shape.

    Args:
        twice: the first takes part as if it were two, for the noise.
        references: see `pairs_of`.
        options: of `time_calls`.
    """
    texts, tokens = shape
    ids, mask = arrays(shape, vocabulary)
    calls: dict[str, Callable[[], object]] = {s.name: partial(s.run, ids, mask) for s in systems}
    if twice:
        calls[AGAIN] = calls[systems[0].name]
    found = time_calls(calls, rounds=rounds, seconds=seconds, between=between, **options)
    least = {s.name: least_ms(s, texts, tokens) for s in systems} if least_ms else {}
    return rounds_of(
        name or f"{texts}x{tokens}",
        {n: timing.rounds for n, timing in found.items()},
        texts=texts,
        tokens=tokens,
        references=references,
        least_ms=least,
    )


def at_shapes(
    title: str,
    systems: Sequence[System],
    shapes: Sequence[Shape],
    vocabulary: int,
    *,
    rounds: int,
    **options: Any,
) -> list[Rounds]:
    """`at_shape` for each of some, with progress."""
    with Progress(title, total=len(shapes) * rounds, unit="rounds") as progress:
        return [
            at_shape(
                systems, shape, vocabulary, rounds=rounds,
                between=partial(progress.update, note=f"{shape[0]}x{shape[1]}"), **options,
            )
            for shape in shapes
        ]  # fmt: skip


def rounds_of(
    name: str,
    times: Mapping[str, npt.ArrayLike],
    *,
    texts: int,
    tokens: int | None = None,
    references: Sequence[str] | None = None,
    least_ms: Mapping[str, float | None] | None = None,
) -> Rounds:
    """Times by system, for the record; those of `AGAIN` become the noise."""
    return Rounds(
        name=name,
        texts=texts,
        tokens=tokens,
        times={n: timed(found, (least_ms or {}).get(n)) for n, found in times.items()
               if n != AGAIN},
        pairs=pairs_of(times, references),
        noise=noise_of(times) if AGAIN in times else None,
    )  # fmt: skip


def text_times(
    answers: Mapping[str, Callable[[str], Any]],
    texts: Sequence[str],
    passes: int,
    *,
    measures: bool = False,
) -> dict[str, Times]:
    """Milliseconds `[passes, texts]` that each takes for single texts.

    Systems take turns, each of 32 texts in a row, so that they run as they do in an app. A pass has
    all texts, in random order.

    Args:
        measures: the functions return their milliseconds themselves.
    """
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(texts)) for _ in range(passes)]
    rows = [(number, order, start) for number, order in enumerate(orders)
            for start in range(0, len(order), IN_A_ROW)]  # fmt: skip
    times = {name: np.zeros((passes, len(texts))) for name in answers}
    total = len(answers) * passes * len(texts)
    with Progress("texts one at a time", total=total, unit="texts") as progress:

        def turns(name: str) -> Iterator[None]:
            answer = answers[name]
            measured = answer if measures else lambda text: wall_ms(partial(answer, text))
            for number, order, start in rows:
                time.sleep(SETTLE)
                for place in order[start - LEAD : start] if start else order[-LEAD:]:
                    answer(texts[place])
                row = order[start : start + IN_A_ROW]
                for place in row:
                    times[name][number, place] = measured(texts[place])
                progress.update(len(row), name)
                yield

        for answer in answers.values():
            for text in texts[:LEAD]:
                answer(text)
        own = {name: turns(name) for name in answers}
        interleave({name: partial(next, turn) for name, turn in own.items()}, rounds=len(rows))
    return times


def one_at_a_time(systems: Sequence[System], texts: Sequence[str], passes: int) -> Rounds:
    """Single texts through the whole runtime; the first system takes part twice."""
    answers = {system.name: system.answer for system in systems} | {AGAIN: systems[0].answer}
    times = text_times(answers, texts, passes)
    return rounds_of(ONE, {name: found.ravel() for name, found in times.items()}, texts=1)


def bulk_times(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Milliseconds of calls that last so long that what ran before does not matter."""
    total = len(calls) * (rounds + 1)
    with Progress("texts in one call", total=total, unit="calls") as progress:
        found = time_calls(
            calls, rounds=rounds, seconds=float("inf"), warm_up=1, lead=0, settle=QUIET,
            between=partial(progress.update, len(calls)),
        )  # fmt: skip
    return {name: np.asarray(timing.rounds) for name, timing in found.items()}


def in_one_call(systems: Sequence[System], texts: Sequence[str], rounds: int) -> Rounds:
    """All texts through the whole runtime; the first system takes part twice."""
    calls = {s.name: partial(s.answer_all, texts) for s in systems}
    calls[AGAIN] = calls[systems[0].name]
    return rounds_of(ALL, bulk_times(calls, rounds), texts=len(texts))
