"""The parts of the benchmark: intervals, rounds, and who is not timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from mtl_edge.benchmarks.bench.measure import EFFORTS
from mtl_edge.benchmarks.core import record as schema
from mtl_edge.benchmarks.core import statistics
from mtl_edge.benchmarks.core.check import check
from mtl_edge.benchmarks.core.measure import shapes_of, text_times
from mtl_edge.benchmarks.core.panels import Point, pareto
from mtl_edge.benchmarks.core.system import System, fastest_batch
from mtl_edge.benchmarks.core.tables import sparkline
from mtl_edge.errors import EngineError
from tests.conftest import ROOT

Answers = npt.NDArray[np.int64]


@pytest.fixture
def answers() -> tuple[Answers, Answers, Answers]:
    """Right labels of 400 rows, and two systems': one right in 80 %, one in 70 %."""
    rng = np.random.default_rng(3)
    right = rng.integers(0, 3, 400)
    good, fair = (
        np.where(rng.random(400) < share, right, rng.integers(0, 3, 400)) for share in (0.7, 0.55)
    )
    return right, good, fair


def test_intervals_are_those_of_scipy(answers: tuple[Answers, Answers, Answers]) -> None:
    right, good, fair = answers
    found = statistics.scores_of(right, {"good": good, "fair": fair}, 3)
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
    found = statistics.scores_of(right, {"first": good, "almost": almost}, 3)["almost"]
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
    found = statistics.scores_of(right, {"a": given}, labels=5)["a"].macro_f1
    assert found is not None
    assert found.value == pytest.approx(f1_score(right, given, average="macro"))


def test_the_same_answers_give_the_same_interval(answers: tuple[Answers, Answers, Answers]) -> None:
    right, good, fair = answers
    both = [statistics.scores_of(right, {"good": good, "fair": fair}, 3) for _ in range(2)]
    assert both[0] == both[1]
    assert statistics.median_of([1.0, 2.0, 3.0]) == statistics.median_of([1.0, 2.0, 3.0])


def test_a_median_lies_within_its_interval() -> None:
    found = statistics.median_of(np.random.default_rng(0).normal(5, 1, 500))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.4


def test_single_texts_are_asked_in_rows_that_take_turns() -> None:
    asked: list[tuple[str, str]] = []
    texts = [str(number) for number in range(70)]

    def answer(name: str) -> Callable[[str], object]:
        return lambda text: asked.append((name, text))

    times = text_times({name: answer(name) for name in "ab"}, texts, passes=2)
    assert {found.shape for found in times.values()} == {(2, 70)}
    assert min(found.min() for found in times.values()) > 0
    for name in "ab":
        own = [text for who, text in asked if who == name]
        assert set(own) == set(texts)
        assert len(own) == 2 * 70 + 2 * 3 * 3 + 3, "untimed texts before each row, and at the start"
    changes = sum(one[0] != other[0] for one, other in itertools.pairwise(asked))
    assert changes < 20, "each answers many texts in a row, as in an app"


def test_many_times_are_kept_as_quantiles() -> None:
    few, many = (statistics.timed(np.arange(1.0, count + 1)) for count in (200, 1000))
    assert (few.count, len(few.values)) == (200, 200)
    assert (many.count, len(many.values)) == (1000, 101)
    assert many.values[50] == many.median == 500.5
    assert (many.values[0], many.values[-1]) == (1, 1000)
    assert statistics.timed([2.0, 4.0], 1.5).share_of_roofline == 0.5


def test_noise_is_of_the_first_system_to_itself() -> None:
    times = {
        "a": [1.0, 1.0, 1.0, 1.0, 1.0],
        "b": [9.0] * 5,
        statistics.AGAIN: [1.0, 1.1, 0.9, 1.3, 1.0],
    }
    noise = statistics.noise_of(times)
    assert noise.median == 1.0
    assert noise.spread == pytest.approx(0.1)
    assert [(pair.system, pair.to) for pair in statistics.pairs_of(times)] == [("b", "a")]
    assert statistics.pairs_of(times)[0].times_as_fast.value == pytest.approx(1 / 9)
    assert statistics.pairs_of(times, ["b"])[0].times_as_fast.value == 9
    assert statistics.pairs_of(times, []) == []


def _system(
    name: str,
    logits: Callable[[int], npt.NDArray[np.float32]],
    ids: Callable[[Sequence[str]], list[list[int]]] = lambda texts: [[len(t)] for t in texts],
) -> System:
    def run(*_: Any) -> Any:
        raise AssertionError("nothing is timed here")

    return System(
        name, "x", "fp32", 1, run, ids=ids, logits=lambda texts: {"task": logits(len(texts))}
    )


def _alternating(rows: int) -> npt.NDArray[np.float32]:
    return np.eye(2, dtype=np.float32)[np.arange(rows) % 2]


def test_a_system_that_disagrees_is_not_timed() -> None:
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
            _system("first", _alternating),
            _system("broken", often_wrong),
            _system("rounded", seldom_wrong),
            _system("nan", not_finite),
            _system("dead", raising),
            _system("other words", _alternating, lambda texts: [[1]] * len(texts)),
        ],
        texts,
    )
    assert [system.name for system in found.sound] == ["first", "rounded"]
    assert "agree with the first system's on 89.0%" in found.failed["broken"]
    assert found.failed["nan"] == "its logits are not finite"
    assert found.failed["dead"] == "it fell over"
    assert "another tokenizer" in found.failed["other words"]
    assert found.checks[2].agreement == pytest.approx(0.9)
    assert found.checks[2].largest_difference == 1


def test_the_next_system_leads_where_the_first_is_broken() -> None:
    def not_finite(rows: int) -> npt.NDArray[np.float32]:
        return np.full((rows, 2), np.inf, np.float32)

    found = check([_system("a", not_finite), _system("b", _alternating)], ["x", "y"])
    assert [system.name for system in found.sound] == ["b"]
    assert found.checks[1].largest_difference == 0
    with pytest.raises(EngineError, match="none is timed: a: its logits are not finite"):
        check([_system("a", not_finite)], ["x"])


def test_torch_gets_the_batches_that_are_fastest_with_it() -> None:
    import time

    def run(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
        time.sleep(0.002 if ids.size > 600 else 0.012)
        return {"t": np.zeros((len(ids), 2), np.float32)}

    assert fastest_batch(run, [[1] * 64] * 32) > 512


def test_the_frontier_is_of_those_that_nobody_beats() -> None:
    known = {"slow": (5.0, 0.9), "fast": (1.0, 0.8), "worse": (2.0, 0.8), "equal": (1.0, 0.8)}
    points = [Point(name, *figures) for name, figures in known.items()]
    assert [point.name for point in pareto(points)] == ["slow", "fast", "equal"]
    speeds = [Point(p.name, 1 / p.x, p.accuracy) for p in points]
    assert [p.name for p in pareto(speeds, less_is_faster=False)] == ["slow", "fast", "equal"]


def test_a_histogram_fits_into_a_line() -> None:
    assert sparkline([0, 1, 8, 4]) == " ▂█▅"
    assert sparkline([0, 0]) == "  "


def test_shapes_are_read_once_each() -> None:
    assert shapes_of("--shapes", "1x16, 8x32,1x16", 128) == [(1, 16), (8, 32)]
    assert [len(EFFORTS[name].shapes) for name in ("quick", "default", "full")] == [2, 4, 8]


def test_the_document_tells_every_field_of_the_json() -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    kinds = [getattr(schema, name) for name in schema.__all__]
    names = {field.name for kind in kinds if is_dataclass(kind) for field in fields(kind)}
    assert names
    assert sorted(name for name in names if f"`{name}`" not in document) == []
    assert f"`schema_version`: {schema.SCHEMA_VERSION}" in document
