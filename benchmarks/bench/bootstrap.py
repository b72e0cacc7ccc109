"""Percentile bootstrap: how far a figure could have come out otherwise.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13. 1,000
resamples, 95 % intervals, seeded: the same answers give the same interval.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtl_edge.benchmarks.bench.schema import Estimate, Score

__all__ = ["median_of", "scores_of"]

RESAMPLES = 1000
LEVEL = (0.025, 0.975)
AT_ONCE = 2**22  # values that are drawn together

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


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


def scores_of(expected: Labels, answers: Mapping[str, Labels], labels: int) -> dict[str, Score]:
    """Each contender's accuracy, macro-F1 and agreement, and its difference to the first.

    Rows with the same labels and answers are alike, so that a resample is a draw from a multinomial
    over the kinds of rows: the same distribution as drawing rows, at a cost that does not grow with
    them. All contenders are scored on the same resamples: their differences are of pairs.

    Args:
        expected: positions of the right labels, `[rows]`.
        answers: those of the labels given, `[rows]`, by contender.
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
