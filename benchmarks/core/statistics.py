"""What times and answers say: ratios of rounds, noise, and percentile-bootstrap intervals.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13. 1,000
resamples, 95 % intervals, seeded: the same answers give the same interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mtl_edge.benchmarks.core.record import Estimate, Noise, Pair, Score, Timed

__all__ = [
    "AGAIN",
    "median_of",
    "noise_of",
    "pairs_of",
    "ratio",
    "scores_of",
    "scores_of_sets",
    "timed",
]

AGAIN = "the first, again"  # the name of the first system's second turn in each round
MOST_VALUES = 200  # that a record keeps one by one

RESAMPLES = 1000
LEVEL = (0.025, 0.975)
AT_ONCE = 2**22  # values that are drawn together

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def median_of(values: npt.ArrayLike) -> Estimate:
    """The median of independent values, and its interval."""
    found = np.asarray(values, float).ravel()
    rng = np.random.default_rng(0)
    each = max(1, AT_ONCE // len(found))
    medians = np.concatenate(
        [
            np.median(rng.choice(found, (min(each, RESAMPLES - done), len(found))), axis=1)
            for done in range(0, RESAMPLES, each)
        ]
    )
    return _estimate(float(np.median(found)), medians)


def ratio(one: npt.ArrayLike, other: npt.ArrayLike) -> Estimate:
    """How many times longer `other` took, round by round: the median and its interval."""
    return median_of(np.asarray(other) / np.asarray(one))


def pairs_of(
    times: Mapping[str, npt.ArrayLike], references: Sequence[str] | None = None
) -> list[Pair]:
    """How many times as fast systems are, by the ratios of each round, or of each text.

    Args:
        references: what each is compared to; by default every system before it.
    """
    names = [name for name in times if name != AGAIN]
    wanted = (
        combinations(names, 2)
        if references is None
        else [(to, name) for name in names for to in references if to != name and to in times]
    )
    return [Pair(name, to, ratio(times[name], times[to])) for to, name in wanted]


def noise_of(times: Mapping[str, npt.ArrayLike]) -> Noise:
    """What the first system's two turns say: their ratio's median and quartiles."""
    first = next(iter(times))
    low, middle, high = np.quantile(
        np.asarray(times[AGAIN]) / np.asarray(times[first]), [0.25, 0.5, 0.75]
    )
    return Noise(float(middle), float(low), float(high), float(max(abs(low - 1), abs(high - 1))))


def timed(values: npt.ArrayLike, roofline_ms: float | None = None) -> Timed:
    """Median and tails of times, and the share of the roofline that they reach."""
    found = np.asarray(values, float).ravel()
    p10, median, p90, p99 = (float(q) for q in np.quantile(found, [0.1, 0.5, 0.9, 0.99]))
    kept = found if len(found) <= MOST_VALUES else np.quantile(found, np.linspace(0, 1, 101))
    return Timed(
        median=median,
        p10=p10,
        p90=p90,
        p99=p99,
        count=len(found),
        values=[round(float(value), 4) for value in kept],
        share_of_roofline=None if roofline_ms is None else roofline_ms / median,
    )


def scores_of(expected: Labels, answers: Mapping[str, Labels], labels: int) -> dict[str, Score]:
    """Each system's accuracy, macro-F1 and agreement, and its difference to the first.

    Rows with the same labels and answers are alike, so that a resample is a draw from a multinomial
    over the kinds of rows: the same distribution as drawing rows, at a cost that does not grow with
    them. All systems are scored on the same resamples: their differences are of pairs.

    Args:
        expected: positions of the right labels, `[rows]`.
        answers: those of the labels given, `[rows]`, by system.
        labels: how many there are.
    """
    table = np.stack([expected, *answers.values()])
    kinds, counts = np.unique(table, axis=1, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(expected), counts / counts.sum(), RESAMPLES)
    weights = np.vstack([counts, drawn]).astype(float)  # the first row is what was seen
    right, first = kinds[0], kinds[1]
    accuracy = {
        n: _share(weights, kind == right) for n, kind in zip(answers, kinds[1:], strict=True)
    }
    f1 = {
        n: _macro_f1(weights, right, kind, labels)
        for n, kind in zip(answers, kinds[1:], strict=True)
    }
    leader = next(iter(answers))
    return {
        name: Score(
            accuracy=_of(accuracy[name]),
            macro_f1=_of(f1[name]),
            agreement=_of(_share(weights, kind == first)),
            accuracy_to_first=_of(accuracy[name] - accuracy[leader]),
            macro_f1_to_first=_of(f1[name] - f1[leader]),
        )
        for name, kind in zip(answers, kinds[1:], strict=True)
    }


def scores_of_sets(right: Mask, answers: Mapping[str, Mask]) -> dict[str, Score]:
    """The same where a text has any number of labels: accuracy is of all labels of a text.

    Args:
        right: which labels each text has, `[rows, labels]`.
        answers: which were given, by system.
    """
    rows = len(right)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
    weights = np.vstack([np.ones(rows, int), drawn]).astype(float)
    leader = next(iter(answers))
    accuracy = {name: _share(weights, (own == right).all(1)) for name, own in answers.items()}
    f1 = {name: _macro_f1_of_sets(weights, right, own) for name, own in answers.items()}
    return {
        name: Score(
            accuracy=_of(accuracy[name]),
            macro_f1=_of(f1[name]),
            agreement=_of(_share(weights, (own == answers[leader]).all(1))),
            accuracy_to_first=_of(accuracy[name] - accuracy[leader]),
            macro_f1_to_first=_of(f1[name] - f1[leader]),
        )
        for name, own in answers.items()
    }


def _macro_f1_of_sets(weights: Values, right: Mask, answers: Mask) -> Values:
    """The mean over labels, by resample; 0 for a label that is neither there nor given."""
    both = weights @ (right & answers).astype(float)
    either = weights @ (right.astype(float) + answers)
    f1: Values = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0).mean(1)
    return f1


def _share(weights: Values, chosen: npt.NDArray[np.bool_]) -> Values:
    """Share of the rows that are of the kinds chosen, by resample."""
    share: Values = weights[:, chosen].sum(1) / weights.sum(1)
    return share


def _macro_f1(weights: Values, right: Labels, answer: Labels, labels: int) -> Values:
    """The mean over labels that were expected or given, by resample."""
    both, either = np.zeros((2, labels, len(weights)))
    for label in range(labels):
        both[label] = weights[:, (right == label) & (answer == label)].sum(1)
        either[label] = weights[:, right == label].sum(1) + weights[:, answer == label].sum(1)
    f1 = np.divide(2 * both, either, out=np.full_like(both, np.nan), where=either > 0)
    return np.asarray(np.nanmean(f1, axis=0))


def _of(values: Values) -> Estimate:
    return _estimate(float(values[0]), values[1:])


def _estimate(value: float, resampled: Values) -> Estimate:
    low, high = np.quantile(resampled, LEVEL)
    return Estimate(value, float(low), float(high))
