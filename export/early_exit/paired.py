"""How much accuracy one model may lose to another, from the rows on which they differ.

Of `rows` rows, `lost` are right in the first model alone and `won` in the second alone; the drop is
the expected share of the first less that of the second. Its hypotheses are tested by the exact
unconditional test for paired answers: the score statistic of Tango (1998, Statistics in Medicine
17:891), whose distribution is summed over all outcomes and taken at the worst share of rows that
differ, among those in a confidence interval (Berger & Boos 1994, JASA 89:1012). The p-values hold
for any number of rows. A bound that only knows the mean, as that of Hoeffding and Bentkus or a
betting one (Waudby-Smith & Ramdas 2024, arXiv:2010.09686), holds as well and needs more rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import beta

__all__ = ["least_drop", "least_rows", "p_value", "upper_bound"]

# Of a test's level: the chance that the share of rows that differ is not in its interval.
BEYOND = 0.01
SHARES = 17  # of the interval that are looked at
DEVIATIONS = 8.0  # outcomes beyond as many are not summed: some 1e-15 of all
TIE = 1e-9

Counts = npt.NDArray[np.float64]


@functools.lru_cache(maxsize=4096)  # neighbouring thresholds often lose and win the same rows
def p_value(lost: int, won: int, rows: int, drop: float, level: float = 0.05) -> float:
    """How likely so good an outcome, or a better one, is if the true drop is `drop` or more.

    Args:
        drop: a share, above -1 and below 1.
        level: that will be tested at; p is never below a hundredth of it.

    Returns:
        At most 1; a test that rejects at `p <= a` errs with probability `a` or less.
    """
    differ = lost + won
    if differ > rows or min(lost, won) < 0 or not -1 < drop < 1:
        raise ValueError(f"{lost} lost and {won} won of {rows} rows, drop {drop}")
    least = abs(drop) + TIE
    beyond = BEYOND * level
    low = float(beta.ppf(beyond / 2, differ, rows - differ + 1)) if differ else 0.0
    high = float(beta.ppf(1 - beyond / 2, differ + 1, rows - differ)) if differ < rows else 1.0
    shares = np.linspace(max(low, least), max(min(high, 1 - TIE), least), SHARES)
    observed = float(_score(np.array(lost), np.array(won), rows, drop)) + TIE
    return min(1.0, beyond + max(_chances(observed, rows, drop, shares)))


def upper_bound(lost: int, won: int, rows: int, confidence: float) -> float:
    """The least drop that the test rejects; below 0 if there is a gain.

    The true drop exceeds it with probability `1 - confidence` or less.
    """
    seen = (lost - won) / rows
    error = 1 - confidence

    def excess(drop: float) -> float:
        return p_value(lost, won, rows, drop, error) - error

    if seen >= 1 - 1e-6 or excess(1 - 1e-6) > 0:
        return 1.0
    return float(brentq(excess, max(seen, -1 + 1e-6), 1 - 1e-6, xtol=1e-6))


def least_drop(rows: int, confidence: float) -> float:
    """The least drop that as many rows can promise, were none of them answered otherwise."""
    return upper_bound(0, 0, rows, confidence)


def least_rows(drop: float, confidence: float) -> int:
    """How many rows it takes to promise `drop`, were none of them answered otherwise."""
    error = 1 - confidence
    most = 1
    while p_value(0, 0, most, drop, error) > error:
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        if p_value(0, 0, middle, drop, error) > error:
            least = middle
        else:
            most = middle
    return most


def _score(lost: Counts, won: Counts, rows: int, drop: float) -> Counts:
    """Tango's statistic: how far the drop that is seen lies above `drop`, in standard errors."""
    # Under the hypothesis the share that is won has its likeliest value at the larger root of a
    # quadratic equation, that of lost lies `drop` above it.
    a, c = 2.0 * rows, -won * drop * (1 - drop)
    b = 2 * rows * drop - 2 * lost * drop - (lost + won) * (1 - drop)
    share = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    share = np.maximum(share, max(0.0, -drop))
    variance = rows * np.maximum(2 * share + drop - drop * drop, 1e-15)
    score: Counts = (lost - won - rows * drop) / np.sqrt(variance)
    return score


def _chances(
    observed: float, rows: int, drop: float, shares: npt.NDArray[np.float64]
) -> Iterator[float]:
    """Of all outcomes with a score up to `observed`, if each of these shares of rows differs."""
    lost, won = (_likely(rows, (shares + sign * drop) / 2) for sign in (1, -1))
    counted = _score(lost[:, None], won[None, :], rows, drop) <= observed
    for differ in shares:
        parts = [
            n * math.log((differ + sign * drop) / 2) - gammaln(n + 1)
            for n, sign in ((lost, 1), (won, -1))
        ]
        same = rows - np.arange(lost[0] + won[0], lost[-1] + won[-1] + 1)
        rest = np.where(
            same >= 0, same * math.log(1 - differ) - gammaln(np.maximum(same, 0) + 1), -np.inf
        )
        # Row i, column j: what is left when as many are lost as row i says, and won as column j.
        left = sliding_window_view(rest, len(won))
        logs = parts[0][:, None] + parts[1][None, :] + left + gammaln(rows + 1)
        yield float(np.exp(logs[counted]).sum())


def _likely(rows: int, shares: npt.NDArray[np.float64]) -> Counts:
    """Counts that binomial variables of these shares take but for a negligible chance."""
    spread = DEVIATIONS * np.sqrt(rows * shares * (1 - shares)) + DEVIATIONS**2 / 2
    low = max(0, math.floor((rows * shares - spread).min()))
    high = min(rows, math.ceil((rows * shares + spread).max()))
    return np.arange(low, high + 1, dtype=np.float64)
