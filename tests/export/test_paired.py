"""A bound on lost accuracy errs no more often than it says, and wastes little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, multinomial, norm

from mtl_edge.export.early_exit.paired import least_drop, least_rows, p_value, upper_bound

ROWS = 40


def chance_of_rejecting(drop: float, tested: float, differ: float, error: float) -> float:
    """Summed over all outcomes of 40 rows, without any draw."""
    shares = [(differ + drop) / 2, (differ - drop) / 2, 1 - differ]
    outcomes = [(b, c) for b in range(ROWS + 1) for c in range(ROWS + 1 - b)]
    likely = multinomial.pmf([(b, c, ROWS - b - c) for b, c in outcomes], ROWS, shares)
    return sum(
        float(chance)
        for (lost, won), chance in zip(outcomes, likely, strict=True)
        if chance > 1e-9 and p_value(lost, won, ROWS, tested) <= error
    )


@pytest.mark.parametrize(
    ("drop", "tested", "differ"),
    [(0.1, 0.1, 0.1), (0.1, 0.1, 0.2), (0.1, 0.1, 0.5), (0.2, 0.1, 0.3), (-0.05, -0.05, 0.1)],
)
def test_a_false_promise_is_made_no_more_often_than_allowed(
    drop: float, tested: float, differ: float
) -> None:
    assert chance_of_rejecting(drop, tested, differ, 0.05) <= 0.05 + 1e-6


def test_a_true_promise_is_made_about_as_often_as_a_normal_bound_would() -> None:
    """7,000 rows of which 60 differ, as many lost as won: two and a half standard errors."""
    exact = p_value(30, 30, 7000, 0.003)
    assert exact == pytest.approx(norm.cdf(-21 / np.sqrt(60)), abs=0.003)


def test_bounds_that_only_know_the_mean_need_more_rows() -> None:
    """The figures of docs/export.md: betting (arXiv:2010.09686) and Hoeffding-Bentkus."""
    lost, won, rows, drop = 30, 30, 7000, 0.003
    bets = np.linspace(0, 1 / (1 - drop), 200, endpoint=False)[1:]
    wealth = np.exp(
        lost * np.log1p(bets * (drop - 1))
        + won * np.log1p(bets * (drop + 1))
        + (rows - lost - won) * np.log1p(bets * drop)
    )
    assert 1 / wealth.mean() == pytest.approx(0.11, abs=0.005)
    mean, least = (lost - won + rows) / (2 * rows), (1 + drop) / 2
    divergence = mean * np.log(mean / least) + (1 - mean) * np.log((1 - mean) / (1 - least))
    bentkus = np.e * binom.cdf(np.ceil(rows * mean), rows, least)
    assert min(np.exp(-rows * divergence), bentkus) == pytest.approx(0.97, abs=0.005)
    assert p_value(lost, won, rows, drop) == pytest.approx(0.005, abs=0.0005)


def test_the_bound_covers_the_true_drop() -> None:
    rng = np.random.default_rng(0)
    rows, lost, won = 200, 0.05, 0.03
    bounds: dict[tuple[int, int], float] = {}
    missed, draws = 0, 300
    for b, c, _ in rng.multinomial(rows, [lost, won, 1 - lost - won], draws):
        key = int(b), int(c)
        if key not in bounds:
            bounds[key] = upper_bound(*key, rows, 0.9)
        missed += bounds[key] < lost - won
    assert missed / draws <= 0.1 + 3 * (0.1 * 0.9 / draws) ** 0.5
    assert missed / draws >= 0.05, "a bound that never misses is not one of 90%"


def test_the_bound_is_where_the_test_turns() -> None:
    bound = upper_bound(12, 9, 1000, 0.95)
    assert p_value(12, 9, 1000, bound + 1e-4) <= 0.05 < p_value(12, 9, 1000, bound - 1e-4)
    assert upper_bound(3, 40, 600, 0.95) < 0, "a clear gain is one"
    assert upper_bound(10, 0, 10, 0.95) == 1.0


def test_more_lost_is_never_better_evidence() -> None:
    values = [p_value(lost, 5, 800, 0.02) for lost in range(0, 40, 4)]
    assert values == sorted(values)
    values = [p_value(10, won, 800, 0.02) for won in range(0, 40, 4)]
    assert values == sorted(values, reverse=True)


def test_what_it_takes_to_promise_anything_is_known() -> None:
    rows = least_rows(0.003, 0.95)
    assert rows == pytest.approx(np.log(0.05) / np.log(1 - 0.003), rel=0.01)
    assert p_value(0, 0, rows, 0.003) <= 0.05 < p_value(0, 0, rows - 1, 0.003)
    assert least_drop(rows, 0.95) == pytest.approx(0.003, abs=1e-5)


def test_counts_that_cannot_be_are_refused() -> None:
    for lost, won, rows in ((3, 3, 5), (-1, 0, 5)):
        with pytest.raises(ValueError, match="lost"):
            p_value(lost, won, rows, 0.1)
