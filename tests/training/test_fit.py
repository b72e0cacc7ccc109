"""Heads learn what can be learnt, the same way for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.baselines import bag_of_words, mean_pooling
from mtl_edge.training.calibration import (
    NEVER,
    calibration_error,
    fit_decisions,
    fit_temperature,
    fit_thresholds,
)
from mtl_edge.training.fit import fit_heads, predict
from mtl_edge.training.heads import FACTORS, LONGEST_NGRAM, HeadConfig, build_head, hashes_of
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.states import States
from tests.labelled import labelled

ROWS = 240


@pytest.fixture
def states() -> States:
    """Random states in which one token of each text carries its label."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 9, ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = generator.standard_normal((offsets[-1], 3, 16)).astype(np.float16)
    for row in range(ROWS):
        marked = offsets[row] + generator.integers(lengths[row])
        values[marked, 1, :4] += 4 if row % 2 else -4
    ids = [generator.integers(1000, 2000, n) for n in lengths]
    return States([values], [0] * ROWS, offsets[:-1], ids)


def train(
    states: States, seed: int = 0, **changes: float
) -> tuple[torch.nn.Module, dict[str, float]]:
    torch.manual_seed(seed)
    head = build_head(HeadConfig(states=3, width=16, labels=2, hidden=16))
    rows = list(range(ROWS))
    learn = labelled(rows[:200], [r % 2 for r in rows[:200]])
    choose = labelled(rows[200:], [r % 2 for r in rows[200:]])
    recipe = Recipe(epochs=8, seed=seed, **changes)  # type: ignore[arg-type]
    return head, fit_heads("task", {2: head}, states, learn, choose, recipe)[2]


def test_a_head_finds_the_token_that_matters(states: States) -> None:
    _, result = train(states)
    assert result["score"] >= 0.95


def test_a_seed_gives_the_same_head_to_the_bit(states: States) -> None:
    (first, _), (again, _), (other, _) = (train(states, seed) for seed in (0, 0, 1))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.output, other.output)  # type: ignore[union-attr]


def test_the_kept_weights_are_those_of_the_best_epoch(states: States) -> None:
    head, result = train(states)
    logits = predict(head, states, range(200, ROWS))  # type: ignore[arg-type]
    accuracy = (logits.argmax(1) == torch.tensor([r % 2 for r in range(200, ROWS)])).float().mean()
    assert float(accuracy) == pytest.approx(result["score"])


def test_a_loss_that_is_not_a_number_stops_training(states: States) -> None:
    states.of(0)[:] = np.nan
    with pytest.raises(MtlEdgeError, match="loss became nan in epoch 1; lower --learning-rate"):
        train(states)


def test_few_rows_get_more_epochs() -> None:
    assert Recipe().epochs_of(10) == 50
    assert Recipe().epochs_of(1000) == 8
    assert Recipe(epochs=2).epochs_of(10) == 2


def test_padding_does_not_reach_a_head(states: States) -> None:
    head = build_head(HeadConfig(states=3, width=16, labels=2)).eval()
    shortest, longest = int(states.lengths.argmin()), int(states.lengths.argmax())
    alone = head(*states.batch([shortest]))
    together = head(*states.batch([shortest, longest]))
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=1e-5)


def test_the_temperature_undoes_overconfidence() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((4000, 3)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = [generator.choice(3, p=p / p.sum()) for p in chances.astype(float)]
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(logits * 4, labels) == pytest.approx(4, abs=0.4)


def test_calibration_error_is_the_gap_between_sureness_and_success() -> None:
    says = np.float32([[0.8, 0.2]] * 100)
    for first, gap in ((80, 0.0), (50, 0.3)):
        right = np.array([0] * first + [1] * (100 - first))
        assert calibration_error(says, right) == pytest.approx(gap, abs=1e-6)
    each = np.stack([right == 0, right == 1], 1)  # labels by themselves: both are 0.3 off
    assert calibration_error(says, each) == pytest.approx(0.3, abs=1e-6)


def test_decisions_are_where_f1_is_large_and_not_where_a_single_row_is() -> None:
    generator = np.random.default_rng(0)
    has = generator.random((4000, 2)) < (0.3, 0.01)
    says = 1 / (1 + np.exp(-(generator.standard_normal((4000, 2)) + 2.5 * has - (1, 4))))
    thresholds = np.array(fit_decisions(np.float32(says), has))

    def f1(at: float | np.ndarray) -> np.ndarray:
        named = says >= at
        return 2 * (named & has).sum(0) / (named.sum(0) + has.sum(0))

    assert (f1(thresholds) >= 0.9 * np.max([f1(t) for t in np.arange(0.01, 1, 0.01)], 0)).all()
    assert thresholds[1] < thresholds[0] < 0.6, "a rare label needs less to be named"
    assert fit_decisions(np.float32([[0.2], [0.9]]), np.zeros((2, 1), bool)) == (0.5,)
    both = fit_decisions(np.float32([[0.4], [0.4], [0.1]]), np.array([[True], [True], [False]]))
    assert both == pytest.approx((0.4,))


def test_rare_labels_weigh_more_when_asked() -> None:
    labels = [0] * 90 + [1] * 10
    rows = labelled(range(100), labels)
    criterion = training_kind(rows.task).criterion
    assert criterion(rows.task, rows.targets, Recipe()).weight is None
    weight = criterion(rows.task, rows.targets, Recipe(class_weights=True)).weight
    assert weight is not None
    assert weight.tolist() == pytest.approx([100 / 180, 5.0])


def test_baselines_solve_what_words_decide() -> None:
    texts = [f"{word} film number {i}" for i in range(30) for word in ("good", "bad")]
    labels = ["positive", "negative"] * 30
    assert list(bag_of_words(texts, labels).predict(["a good one", "so bad"])) == [
        "positive",
        "negative",
    ]
    means = np.array([[1.0, 0], [-1.0, 0]] * 30, np.float32)
    assert list(mean_pooling(means, labels, means[:2])) == ["positive", "negative"]


def test_a_threshold_keeps_its_promise() -> None:
    """Of a label's sure answers the asked share is right, on rows that did not choose it."""
    generator = np.random.default_rng(0)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        right = generator.uniform(0.5, 1, count).astype(np.float32)
        labels = generator.integers(2, size=count)
        answers = np.where(generator.uniform(size=count) < right, labels, 1 - labels)
        probabilities = np.empty((count, 2), np.float32)
        probabilities[np.arange(count), answers] = right
        probabilities[np.arange(count), 1 - answers] = 1 - right
        return probabilities, labels

    kept, answered = [], []
    for _ in range(20):
        thresholds = fit_thresholds(*rows(1000), accuracy=0.9)
        probabilities, labels = rows(4000)
        answers = probabilities.argmax(1)
        sure = probabilities.max(1) >= np.array(thresholds)[answers]
        for label in (0, 1):
            of_label = sure & (answers == label)
            kept.append(not of_label.any() or (answers == labels)[of_label].mean() >= 0.9)
        answered.append(sure.mean())
    assert np.mean(kept) >= 0.87, "with 90% confidence, each label's"
    assert np.mean(answered) > 0.05, "a threshold that answers nothing keeps any promise"


def test_too_few_answers_promise_nothing() -> None:
    probabilities = np.float32([[0.9, 0.1]] * 5 + [[0.2, 0.8]] * 5)
    assert fit_thresholds(probabilities, [0] * 5 + [1] * 5, 0.95) == (NEVER, NEVER)


def test_ngrams_know_what_states_do_not() -> None:
    """Labels that only a bigram decides, and states that say nothing."""
    generator = np.random.default_rng(0)
    ids, labels = [], []
    for row in range(ROWS):
        first, second = (5, 6) if row % 2 else (6, 5)
        noise = generator.integers(100, 200, 6)
        ids.append([*noise[:3], first, second, *noise[3:]])
        labels.append(row % 2)
    values = np.zeros((8 * ROWS, 3, 16), np.float16)
    states = States([values], [0] * ROWS, np.arange(ROWS) * 8, ids)  # type: ignore[arg-type]
    learn, choose = labelled(range(200), labels[:200]), labelled(range(200, ROWS), labels[200:])
    found = {}
    for buckets in (0, 4096):
        torch.manual_seed(0)
        head = build_head(HeadConfig(states=3, width=16, labels=2, hidden=16, buckets=buckets))
        result = fit_heads("task", {2: head}, states, learn, choose, Recipe(epochs=20))
        found[buckets] = result[2]["score"]
    assert found[0] < 0.7
    assert found[4096] >= 0.95


def test_hashes_are_exact_in_float32() -> None:
    """OpenVINO computes integers in float32: the largest id of any vocabulary must be exact."""
    largest, buckets = 2**18 - 1, HeadConfig(1, 1, 2).buckets
    assert (buckets - 1) * FACTORS[0] + largest * FACTORS[1] + LONGEST_NGRAM < 2**24
    assert buckets & (buckets - 1) == 0, "a division by a power of two is exact"


def test_hashes_spread_ngrams_over_the_buckets() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (1000, 50), generator=generator)
    hashes, _ = hashes_of(ids, torch.ones(1000, 50), 2**19)
    expected = 2**19 * (1 - np.exp(-50_000 / 2**19))  # of 50,000 in 2 ** 19 at random
    for longer in hashes[1:]:
        assert len(longer.unique()) > 0.97 * expected
