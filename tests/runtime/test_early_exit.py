"""Which stage answers a text: the first one that is sure of it, or as far as the time goes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_edge.bundle import Task
from mtl_edge.cascade import early_exit, latency, stage
from mtl_edge.cascade.early_exit import answer, answer_one
from mtl_edge.cascade.latency import EXPIRY, LatencyEstimator
from mtl_edge.cascade.outputs import StageOutput, in_order, predictions
from mtl_edge.cascade.stage import Stage
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import EngineError

TASKS = (Task("mood", ("bad", "good")), Task("topic", ("a", "b")))


class Clock:
    """Time that passes where an engine runs, and nowhere else."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    result = Clock()
    for module in (early_exit, stage, latency):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=result.perf_counter))
    return result


class Engine:
    """Says `good` with as many percent as a text's second token; of topic, its third token."""

    multiple = 1
    tokens_per_batch = 64
    fixed_shapes = ()

    def __init__(
        self, clock: Clock | None = None, *, each: float = 0.0, token: float = 0.0
    ) -> None:
        self.clock, self.each, self.token = clock, each, token
        self.batches: list[Ids] = []

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.batches.append(input_ids)
        if self.clock is not None:
            self.clock.now += self.each + self.token * input_ids.size
        return {
            task.name: np.stack([np.zeros(len(input_ids)), _logit(input_ids[:, column])], 1).astype(
                np.float32
            )
            for column, task in enumerate(TASKS, 1)
        }

    @property
    def rows(self) -> list[int]:
        """The first tokens of all that it ran: texts are numbered there."""
        return [int(number) for batch in self.batches for number in batch[:, 0]]

    def close(self) -> None: ...


def _logit(percent: Any) -> Any:
    return np.log(percent / (100 - percent))


def staged(
    cheap: Engine, full: Engine, mood: float = 0.9, topic: float = 0.0
) -> tuple[Stage, Stage]:
    return (
        Stage(0, cheap, TASKS, {"mood": mood, "topic": topic}, 64),
        Stage(6, full, TASKS, None, 64, LatencyEstimator()),
    )


def text(number: int, mood: int, topic: int = 50, length: int = 4) -> list[int]:
    return [number, mood, topic, *[7] * (length - 3)]


def depths_of(parts: list[StageOutput], count: int) -> list[int]:
    found = {int(row): part.stage.depth for part in parts for row in part.rows}
    assert sorted(found) == list(range(count)), "each text is answered once"
    return [found[row] for row in range(count)]


def test_a_text_goes_on_unless_the_cheap_stage_is_sure_of_every_task() -> None:
    cheap, full = Engine(), Engine()
    ids = [text(0, 95, 95), text(1, 95, 60), text(2, 60, 95), text(3, 60, 60), text(4, 91, 81)]
    parts = list(answer(staged(cheap, full, mood=0.9, topic=0.8), [ids]))
    assert depths_of(parts, 5) == [0, 6, 6, 6, 0]
    assert sorted(full.rows) == [1, 2, 3]
    assert sorted(cheap.rows) == [0, 1, 2, 3, 4]


def test_alone_a_text_takes_the_stage_that_it_takes_among_others() -> None:
    ids = [text(i, 50 + i // 2, 50 + (i * 7) % 50) for i in range(99)]
    together = staged(Engine(), Engine(), mood=0.75, topic=0.7)
    expected = depths_of(list(answer(together, [ids])), len(ids))
    alone = [answer_one(together, tokens).stage.depth for tokens in ids]
    assert alone == expected
    assert set(alone) == {0, 6}


def test_a_threshold_that_a_probability_just_reaches_lets_it_leave_alone_and_in_a_batch() -> None:
    # 0.9 in float32 is less than 0.9: compared in float32, the two would be the same.
    probability = float(np.float32(0.9))
    for threshold, depth in ((probability, 0), (0.9, 6)):
        one, two = staged(Engine(), Engine(), mood=threshold)
        stage = Stage(0, one.engine, one.tasks, one.exit_thresholds, 64)
        exact = {"mood": np.full((2, 2), probability, np.float32),
                 "topic": np.ones((2, 2), np.float32)}  # fmt: skip
        assert stage.exits(exact) == (depth == 0)
        assert (stage.margins(exact) >= 0).tolist() == [depth == 0] * 2
        assert two.exits(exact)


def test_thresholds_of_0_leave_all_with_the_cheap_stage_and_above_1_none() -> None:
    ids = [text(i, 50 + i) for i in range(45)]
    for threshold, expected in ((0.0, 0), (2.0, 6)):
        cheap, full = Engine(), Engine()
        parts = list(answer(staged(cheap, full, mood=threshold, topic=threshold), [ids]))
        assert depths_of(parts, 45) == [expected] * 45
        assert len(full.rows) == (45 if expected else 0)


def test_only_the_tasks_that_decide_send_a_text_on() -> None:
    ids = [text(0, 95, 51), text(1, 51, 95)]
    by_mood = (Stage(0, Engine(), TASKS, {"mood": 0.9}, 64), Stage(6, Engine(), TASKS, None, 64))
    assert depths_of(list(answer(by_mood, [ids])), 2) == [0, 6]


def test_answers_come_in_the_order_of_the_texts_whatever_stage_and_window_they_took() -> None:
    rng = random.Random(0)
    ids = [
        text(i, rng.randint(50, 99), rng.randint(50, 99), rng.randint(3, 40)) for i in range(301)
    ]
    windows = [ids[start : start + 100] for start in range(0, 301, 100)]
    parts = list(answer(staged(Engine(), Engine(), mood=0.7, topic=0.6), windows))
    probabilities = in_order(parts, TASKS, lambda part: part.probabilities)
    np.testing.assert_allclose(probabilities["mood"][:, 1], [t[1] / 100 for t in ids], atol=1e-6)
    np.testing.assert_allclose(probabilities["topic"][:, 1], [t[2] / 100 for t in ids], atol=1e-6)
    answers = predictions(parts)
    assert [p["mood"].probability for p in answers] == pytest.approx([t[1] / 100 for t in ids])
    assert [p.depth for p in answers] == depths_of(parts, 301)
    assert {p.depth for p in answers} == {0, 6}


def test_texts_that_go_on_are_batched_anew_by_length() -> None:
    full = Engine()
    ids = [text(i, 99 if i % 2 else 51, 50, 3 + i % 16) for i in range(128)]
    list(answer(staged(Engine(), full), [ids]))
    assert len(full.rows) == 64
    assert all(batch.size <= 64 for batch in full.batches)
    lengths = [batch.shape[1] for batch in full.batches]
    assert lengths == sorted(lengths, reverse=True)


def test_a_text_may_go_through_more_than_two_stages() -> None:
    middle = Stage(2, Engine(), TASKS, {"mood": 0.7}, 64, LatencyEstimator())
    cheap, full = (Stage(0, Engine(), TASKS, {"mood": 0.9}, 64),
                   Stage(6, Engine(), TASKS, None, 64, LatencyEstimator()))  # fmt: skip
    ids = [text(i, percent) for i, percent in enumerate((95, 80, 60, 91, 71, 69))]
    assert depths_of(list(answer((cheap, middle, full), [ids])), 6) == [0, 2, 6, 0, 2, 6]
    assert [answer_one((cheap, middle, full), t).stage.depth for t in ids] == [0, 2, 6, 0, 2, 6]


def test_the_least_sure_go_on_first_until_the_time_is_used_up(clock: Clock) -> None:
    cheap, full = Engine(clock, token=1e-6), Engine(clock, token=0.001)
    both = staged(cheap, full, mood=1.5)
    rng = random.Random(1)
    ids = [text(i, 50 + i // 8) for i in rng.sample(range(392), 392)]
    ids = [[i, *tokens[1:]] for i, tokens in enumerate(ids)]
    both[1].latency.add(64, 0.064)  # type: ignore[union-attr]
    parts = list(answer(both, [ids], clock.now + 1.0))
    depths = depths_of(parts, len(ids))
    went = [tokens[1] for tokens, depth in zip(ids, depths, strict=True) if depth == 6]
    stayed = [tokens[1] for tokens, depth in zip(ids, depths, strict=True) if depth == 0]
    assert 100 < len(went) < 260
    assert max(went) <= min(stayed)
    assert clock.now <= 101.0


def test_texts_of_all_windows_compete_for_the_time(clock: Clock) -> None:
    full = Engine(clock, token=0.001)
    both = staged(Engine(), full, mood=0.9)
    both[1].latency.add(4, 0.004)  # type: ignore[union-attr]
    windows = [[text(0, 70), text(1, 80)], [text(2, 55), text(3, 60)]]
    # Time for two of four, and the two that need it most are in the second window.
    parts = list(answer(both, windows, clock.now + 0.0121))
    assert depths_of(parts, 4) == [0, 0, 6, 6]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_time_the_cheap_answers_stay_and_none_is_lost(clock: Clock, seconds: float) -> None:
    full = Engine(clock)
    both = staged(Engine(clock, token=0.001), full, mood=0.9)
    ids = [text(i, 60) for i in range(40)]
    assert depths_of(list(answer(both, [ids], clock.now + seconds)), 40) == [0] * 40
    assert answer_one(both, ids[0], clock.now + seconds).stage.depth == 0
    assert full.batches == []
    assert depths_of(list(answer(both, [ids], None)), 40) == [6] * 40


def test_a_stage_of_which_nothing_is_known_begins_with_one_text(clock: Clock) -> None:
    full = Engine(clock, each=0.010, token=0.001)
    ids = [text(i, 60) for i in range(40)]
    both = staged(Engine(clock), full)
    depths = depths_of(list(answer(both, [ids], clock.now + 0.030)), 40)
    assert len(full.batches[0]) == 1
    assert 1 <= depths.count(6) < 20


def test_one_slow_batch_does_not_keep_a_stage_out_of_all_later_calls(clock: Clock) -> None:
    full = Engine(clock, token=0.001)
    both = staged(Engine(), full)
    ids = [text(i, 60) for i in range(40)]

    def went() -> int:
        return depths_of(list(answer(both, [ids], clock.now + 0.1)), 40).count(6)

    both[1].latency.add(4, 60.0)  # type: ignore[union-attr]
    assert went() == 0
    assert answer_one(both, ids[0], clock.now + 0.1).stage.depth == 0
    clock.now += 1.1 * EXPIRY
    assert went() > 10, "the first one says that they are quick now"
    assert len(full.batches[0]) == 1
    both[1].latency.add(4, 60.0)  # type: ignore[union-attr]
    clock.now += 1.1 * EXPIRY
    assert [answer_one(both, ids[0], clock.now + 0.1).stage.depth for _ in range(2)] == [6, 6]


def test_a_failing_second_stage_is_an_error_not_a_cheap_answer() -> None:
    class Broken(Engine):
        def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
            raise EngineError("the second stage failed")

    both = staged(Engine(), Broken())
    with pytest.raises(EngineError, match="second stage"):
        list(answer(both, [[text(0, 99), text(1, 60)]]))
    with pytest.raises(EngineError, match="second stage"):
        answer_one(both, text(1, 60))
    assert answer_one(both, text(0, 99)).stage.depth == 0


def test_a_latency_is_estimated_from_the_batches_that_ran_and_follows_them() -> None:
    estimator = LatencyEstimator()
    assert estimator.seconds(100) is None
    estimator.add(100, 0.5)
    assert estimator.seconds(100) == pytest.approx(0.5)
    assert estimator.seconds(200) == pytest.approx(1.0)
    assert estimator.seconds(10) == pytest.approx(0.5), (
        "of one size, a smaller one may cost as much"
    )
    for tokens in (100, 400, 200, 300) * 10:
        estimator.add(tokens, 0.1 + 0.001 * tokens)
    assert estimator.seconds(250) == pytest.approx(0.35, rel=0.05)
    assert estimator.seconds(1000) == pytest.approx(1.1, rel=0.05)
    for tokens in (100, 400, 200, 300) * 20:  # the machine is half as fast now
        estimator.add(tokens, 0.2 + 0.002 * tokens)
    assert estimator.seconds(250) == pytest.approx(0.7, rel=0.01)
    estimator.clear()
    assert estimator.seconds(1) is None


def test_an_estimate_expires_when_nothing_has_run_for_long(clock: Clock) -> None:
    one = LatencyEstimator()
    for _ in range(3):
        one.add(100, 0.5)
        clock.now += 0.9 * EXPIRY
        assert one.seconds(100) == pytest.approx(0.5)
    clock.now += 0.2 * EXPIRY
    assert one.seconds(100) is None
    clock.now += 2 * EXPIRY
    one.add(100, 2 * EXPIRY)
    assert one.seconds(100) == pytest.approx(2 * EXPIRY), "what is too old does not count again"
    clock.now += 2 * EXPIRY
    one.add(100, 2 * EXPIRY)
    one.add(300, 2 * EXPIRY)
    assert one.seconds(200) == pytest.approx(2 * EXPIRY), "batches that take long follow each other"


def test_a_latency_is_never_estimated_below_zero() -> None:
    rng = random.Random(0)
    for _ in range(200):
        estimator = LatencyEstimator()
        for _ in range(rng.randint(1, 6)):
            estimator.add(rng.randint(1, 800), rng.random())
        seconds = [estimator.seconds(tokens) for tokens in (1, 10, 100, 1000)]
        assert all(s is not None and s >= 0 for s in seconds)
        assert seconds == sorted(seconds, key=lambda s: s or 0.0)
