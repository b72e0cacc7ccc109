"""What a table is, and how its cells are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_edge.benchmarks.bench.schema import Estimate, Pair, Report, Rounds, Score, Scores

__all__ = [
    "Table",
    "by_shape",
    "interval",
    "pair_of",
    "percent",
    "ratio",
    "sparkline",
    "title_of",
    "to_first",
]

SHARE = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Table:
    """
    Attributes:
        note: what a reader has to know to read it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def title_of(report: Report, scores: Scores) -> str:
    """The task, and the file where the task has several."""
    several = sum(other.task == scores.task for other in report.scores) > 1
    return f"{scores.task} {scores.file}" if several else scores.task


def by_shape(report: Report) -> dict[str, Rounds]:
    return {f"{rounds.batch}x{rounds.tokens}": rounds for rounds in report.shapes}


def pair_of(pairs: Sequence[Pair], name: str, to: str) -> Pair:
    return next(pair for pair in pairs if (pair.contender, pair.to) == (name, to))


def to_first(pairs: Sequence[Pair], name: str) -> str:
    """Times as fast as the first contender, which is the first that any is compared to."""
    if not pairs or name == pairs[0].to:
        return "1.0x"
    return f"{pair_of(pairs, name, pairs[0].to).times_as_fast.value:.1f}x"


def ratio(pair: Pair) -> str:
    found = pair.times_as_fast
    return f"{found.value:.2f}x ({found.low:.2f}-{found.high:.2f})"


def percent(score: Score | None) -> str:
    """Accuracy, ± half of its interval."""
    if score is None:
        return ""
    found = score.accuracy
    if found.low is None or found.high is None:
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} ± {50 * (found.high - found.low):.1f}"


def interval(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    text = f"{100 * found.value:{sign}.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"


def sparkline(counts: Sequence[int]) -> str:
    """A histogram in a line of text."""
    most = max(*counts, 1)
    return "".join(
        " " if not count else SHARE[min(len(SHARE) - 1, len(SHARE) * count // most)]
        for count in counts
    )
