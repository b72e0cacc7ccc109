"""Tasks that share what learns: how often each comes, and how much it counts."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from mtl_edge.cli import main
from mtl_edge.training.batches import MIXES, mixed
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.weighting import UncertaintyWeighting, Weighting
from tests.labelled import labelled

TRAIN = {
    "small": labelled(range(100), [0] * 100),
    "large": labelled(range(100, 1000), [0] * 900),
}
LENGTHS = [10] * 1000


def shares(mix: str, temperature: float = 1.0) -> dict[str, float]:
    drawn = mixed(TRAIN, LENGTHS, 10, mix, temperature, seed=0)
    count = Counter(task for task, _ in islice(drawn, 4000))
    return {task: count[task] / 4000 for task in TRAIN}


@pytest.mark.parametrize(
    ("mix", "temperature", "small"),
    [
        ("proportional", 1.0, 0.1),
        ("temperature", 1.0, 0.1),
        ("temperature", 2.0, 0.25),  # 10 : 30
        ("temperature", float("inf"), 0.5),
        ("uniform", 1.0, 0.5),
        ("round-robin", 1.0, 0.5),
    ],
)
def test_each_mix_gives_the_small_task_its_share(
    mix: str, temperature: float, small: float
) -> None:
    assert shares(mix, temperature)["small"] == pytest.approx(small, abs=0.03)


def test_round_robin_takes_turns() -> None:
    turns = [task for task, _ in islice(mixed(TRAIN, LENGTHS, 10, "round-robin", 1.0, 0), 6)]
    assert turns == ["small", "large"] * 3


@pytest.mark.parametrize("mix", MIXES)
def test_every_row_comes_once_an_epoch(mix: str) -> None:
    seen: Counter[int] = Counter()
    for task, batch in mixed(TRAIN, LENGTHS, 10, mix, 2.0, seed=1):
        if task == "small":
            seen.update(batch)
        if sum(seen.values()) == 300:
            break
    assert set(seen.values()) == {3}
    assert len(seen) == 100


def test_a_mix_repeats_for_its_seed() -> None:
    first, again, other = (
        list(islice(mixed(TRAIN, LENGTHS, 10, "proportional", 1.0, seed), 50)) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_fixed_weights_multiply_the_loss() -> None:
    weighting = Weighting(["a", "b"], {"b": 3.0})
    assert float(weighting("a", torch.tensor(2.0))) == 2.0
    assert float(weighting("b", torch.tensor(2.0))) == 6.0


def test_uncertainty_weighs_a_task_by_what_its_loss_comes_to() -> None:
    """At the minimum, exp(-s) * loss + s / 2 has exp(s) = 2 * loss."""
    weighting = UncertaintyWeighting(["easy", "hard"], {})
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        total = weighting("easy", torch.tensor(0.1)) + weighting("hard", torch.tensor(2.0))
        torch.autograd.backward([total])
        optimizer.step()
    variances = weighting.log_variance.exp().tolist()
    assert variances == pytest.approx([0.2, 4.0], rel=0.02)


def test_mix_and_weighting_are_in_the_record(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}", "--scenario", "full"]
    command += ["--mix", "round-robin", "--weighting", "uncertainty", "--task-weight", "topic=2"]
    assert main([*command, "--epochs", "1"]) == 0
    recipe = load_checkpoint(tmp_path / "c").run["recipe"]
    assert recipe["mix"] == "round-robin"
    assert recipe["weighting"] == "uncertainty"
    assert recipe["task_weights"] == {"topic": 2.0}


def test_random_streams_do_not_share_state() -> None:
    before = random.getstate()
    list(islice(mixed(TRAIN, LENGTHS, 10, "uniform", 1.0, 0), 5))
    assert random.getstate() == before
