"""The parts of the benchmark: intervals, rounds, and who is not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from mtl_edge.benchmarks.bench import bootstrap as ours
from mtl_edge.benchmarks.bench import rounds, schema
from mtl_edge.benchmarks.bench.cells import sparkline
from mtl_edge.benchmarks.bench.check import check
from mtl_edge.benchmarks.bench.effort import EFFORTS, shapes_of
from mtl_edge.benchmarks.bench.entrants import Entrant, fastest_batch
from mtl_edge.benchmarks.bench.pictures import _frontier
from mtl_edge.errors import EngineError
from tests.conftest import ROOT

Answers = npt.NDArray[np.int64]


@pytest.fixture
def answers() -> tuple[Answers, Answers, Answers]:
    """Right labels of 400 rows, and two contenders': one right in 80 %, one in 70 %."""
    rng = np.random.default_rng(3)
    right = rng.integers(0, 3, 400)
    good, fair = (
        np.where(rng.random(400) < share, right, rng.integers(0, 3, 400)) for share in (0.7, 0.55)
    )
    return right, good, fair


def test_intervals_are_those_of_scipy(answers: tuple[Answers, Answers, Answers]) -> None:
    right, good, fair = answers
    found = ours.scores_of(right, {"good": good, "fair": fair}, 3)
    for name, given in (("good", good), ("fair", fair)):
        hits = (given == right).astype(float)
        theirs = bootstrap((hits,), np.mean, n_resamples=4000, method="percentile", rng=1)
        accuracy = found[name].accuracy
        assert accuracy.value == hits.mean()
        assert accuracy.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
        assert accuracy.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)
        f1 = found[name].macro_f1
        assert f1 is not None
        assert f1.value == pytest.approx(f1_score(right, given, average="macro"))


def test_differences_are_of_pairs_and_so_narrower(
    answers: tuple[Answers, Answers, Answers],
) -> None:
    right, good, _ = answers
    almost = good.copy()
    almost[:4] = (almost[:4] + 1) % 3
    found = ours.scores_of(right, {"first": good, "almost": almost}, 3)["almost"]
    difference = found.accuracy_to_first
    assert difference is not None
    assert difference.low is not None
    assert difference.high is not None
    assert found.accuracy.low is not None
    assert found.accuracy.high is not None
    assert difference.high - difference.low < 0.03 < found.accuracy.high - found.accuracy.low
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx(0.99)


def test_labels_that_nobody_has_do_not_count_as_sklearn_has_it() -> None:
    right, given = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = ours.scores_of(right, {"a": given}, labels=5)["a"].macro_f1
    assert found is not None
    assert found.value == pytest.approx(f1_score(right, given, average="macro"))


def test_the_same_answers_give_the_same_interval(answers: tuple[Answers, Answers, Answers]) -> None:
    right, good, fair = answers
    both = [ours.scores_of(right, {"good": good, "fair": fair}, 3) for _ in range(2)]
    assert both[0] == both[1]
    assert ours.median_of([1.0, 2.0, 3.0]) == ours.median_of([1.0, 2.0, 3.0])


def test_a_median_lies_within_its_interval() -> None:
    found = ours.median_of(np.random.default_rng(0).normal(5, 1, 500))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.4


def test_rounds_come_in_orders_of_their_own() -> None:
    calls: list[str] = []
    names = "abcd"
    rounds.in_random_order(
        {name: lambda name=name: calls.append(name) for name in names},  # type: ignore[misc]
        rounds=8, seconds=60, warm_up=0,
    )  # fmt: skip
    orders = {tuple(calls[start : start + 8 : 2]) for start in range(0, 64, 8)}
    assert all(sorted(order) == list(names) for order in orders)
    assert len(orders) > 3


def test_noise_is_of_the_first_contender_to_itself() -> None:
    times = {
        "a": [1.0, 1.0, 1.0, 1.0, 1.0],
        "b": [9.0] * 5,
        rounds.AGAIN: [1.0, 1.1, 0.9, 1.3, 1.0],
    }
    noise = rounds.noise_of(times)
    assert noise.median == 1.0
    assert noise.spread == pytest.approx(0.1)
    assert [(pair.contender, pair.to) for pair in rounds.pairs_of(times)] == [("b", "a")]
    assert rounds.pairs_of(times)[0].times_as_fast.value == pytest.approx(1 / 9)


def _entrant(
    name: str,
    logits: Callable[[int], npt.NDArray[np.float32]],
    ids: Callable[[Sequence[str]], list[list[int]]] = lambda texts: [[len(t)] for t in texts],
) -> Entrant:
    def run(*_: Any) -> Any:
        raise AssertionError("nothing is timed here")

    return Entrant(
        name, "x", "fp32", 1, None, ids, run, lambda texts: {"task": logits(len(texts))}, run, run
    )


def _alternating(rows: int) -> npt.NDArray[np.float32]:
    return np.eye(2, dtype=np.float32)[np.arange(rows) % 2]


def test_a_contender_that_disagrees_is_not_timed() -> None:
    texts = ["text"] * 100

    def often_wrong(rows: int) -> npt.NDArray[np.float32]:
        logits = _alternating(rows)
        logits[:11] = 1 - logits[:11]
        return logits

    def seldom_wrong(rows: int) -> npt.NDArray[np.float32]:
        logits = _alternating(rows)
        logits[:10] = 1 - logits[:10]
        return logits

    def not_finite(rows: int) -> npt.NDArray[np.float32]:
        return np.full((rows, 2), np.nan, np.float32)

    def raising(rows: int) -> npt.NDArray[np.float32]:
        raise EngineError("it fell over")

    found = check(
        [
            _entrant("first", _alternating),
            _entrant("broken", often_wrong),
            _entrant("rounded", seldom_wrong),
            _entrant("nan", not_finite),
            _entrant("dead", raising),
            _entrant("other words", _alternating, lambda texts: [[1]] * len(texts)),
        ],
        texts,
    )
    assert [entrant.name for entrant in found.sound] == ["first", "rounded"]
    assert "agree with the first contender's on 89.0%" in found.failed["broken"]
    assert found.failed["nan"] == "its logits are not finite"
    assert found.failed["dead"] == "it fell over"
    assert "another tokenizer" in found.failed["other words"]
    assert found.checks[2].agreement == pytest.approx(0.9)
    assert found.checks[2].most_logit_difference == 1


def test_the_next_contender_leads_where_the_first_is_broken() -> None:
    def not_finite(rows: int) -> npt.NDArray[np.float32]:
        return np.full((rows, 2), np.inf, np.float32)

    found = check([_entrant("a", not_finite), _entrant("b", _alternating)], ["x", "y"])
    assert [entrant.name for entrant in found.sound] == ["b"]
    assert found.checks[1].most_logit_difference == 0
    with pytest.raises(EngineError, match="none is timed: a: its logits are not finite"):
        check([_entrant("a", not_finite)], ["x"])


def test_torch_gets_the_batches_that_are_fastest_with_it() -> None:
    import time

    def run(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
        time.sleep(0.002 if ids.size > 600 else 0.012)
        return {"t": np.zeros((len(ids), 2), np.float32)}

    assert fastest_batch(run, [[1] * 64] * 32) > 512


def test_the_frontier_is_of_those_that_nobody_beats() -> None:
    points = {"slow": (5.0, 0.9), "fast": (1.0, 0.8), "worse": (2.0, 0.8), "equal": (1.0, 0.8)}
    assert _frontier(points) == ["slow", "fast", "equal"]


def test_a_histogram_fits_into_a_line() -> None:
    assert sparkline([0, 1, 8, 4]) == " ▂█▅"
    assert sparkline([0, 0]) == "  "


def test_shapes_are_read_once_each() -> None:
    assert shapes_of("1x16, 8x32,1x16", 128) == [(1, 16), (8, 32)]
    assert [len(EFFORTS[name].shapes) for name in ("quick", "default", "full")] == [2, 4, 8]


def test_the_document_tells_every_field_of_the_json() -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    kinds = [getattr(schema, name) for name in schema.__all__]
    names = {field.name for kind in kinds if is_dataclass(kind) for field in fields(kind)}
    assert names
    assert sorted(name for name in names if f"`{name}`" not in document) == []
    assert f"`schema_version`: {schema.SCHEMA_VERSION}" in document
