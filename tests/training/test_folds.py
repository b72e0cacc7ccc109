"""Answers out of fold: of heads that have not seen the rows, kept whole in the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_edge.cli import main
from mtl_edge.errors import CheckpointError
from mtl_edge.training import folds as folds_module
from mtl_edge.training.batches import Labelled
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.folds import OutOfFold, out_of_fold, require_texts
from mtl_edge.training.recipe import Recipe
from tests.labelled import labelled

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    out = tmp_path_factory.mktemp("staged") / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "1"]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    assert main([*command, "--exits", "0", "--exit-folds", "2"]) == 0
    return out


@pytest.mark.parametrize("count", [50, 7])
def test_every_row_is_asked_of_heads_that_were_not_taught_it(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    taught: list[set[int]] = []
    asked: list[int] = []

    def fit_heads(name: str, heads: object, states: object, train: Labelled, *rest: object,
                  **options: object) -> None:  # fmt: skip
        (choosing, _) = rest
        assert isinstance(choosing, Labelled)
        assert train.rows
        assert choosing.rows
        assert not set(train.rows) & set(choosing.rows)
        taught.append({*train.rows, *choosing.rows})

    class Logits:
        def __init__(self, rows: list[int]) -> None:
            self.rows = rows

        def numpy(self) -> np.ndarray:
            return np.float32([[row, -row] for row in self.rows])

    def predict(head: object, states: object, rows: list[int]) -> Logits:
        assert not taught[-1] & set(rows), "asked what it was taught"
        asked.extend(rows)
        return Logits(rows)

    monkeypatch.setattr(folds_module, "fit_heads", fit_heads)
    monkeypatch.setattr(folds_module, "predict", predict)
    texts = [*range(count), 3, 3, 5]  # a text may occur more than once
    rows = labelled(texts, [text % 2 for text in texts])
    found = out_of_fold("t", lambda: {0: object()}, object(), rows, 5, Recipe())  # type: ignore[dict-item,arg-type,return-value]
    assert sorted(asked) == sorted(texts)
    assert len(taught) == 5
    require_texts("t", list(map(str, texts)), 5)
    assert found.right.tolist() == rows.targets.tolist()
    assert found.logits[0][:, 0].tolist() == texts, "answers stand in the rows' order"


def test_a_checkpoint_keeps_answers_of_each_depth(staged: Path) -> None:
    loaded = load_checkpoint(staged)
    assert loaded.depth == 2
    assert list(loaded.shallower) == [0]
    assert list(loaded.out_of_fold) == ["sentiment", "topic"]
    for name, labels in (("sentiment", 2), ("topic", 4)):
        found = loaded.out_of_fold[name]
        assert {depth: v.shape for depth, v in found.logits.items()} == {
            0: (100, labels),
            2: (100, labels),
        }
        assert all(np.isfinite(v).all() for v in found.logits.values())
        assert set(found.right.tolist()) == set(range(labels))
    assert json.loads((staged / "checkpoint.json").read_text())["run"]["exit_folds"] == 2


def test_a_shallower_model_keeps_what_it_can_be_fitted_on(staged: Path) -> None:
    assert list(load_checkpoint(staged).at(0).out_of_fold["topic"].logits) == [0]
    found = OutOfFold(np.zeros(1, np.int64), {d: np.zeros((1, 2), np.float32) for d in (0, 4)})
    assert found.at(2) is None


def test_altered_answers_are_refused(staged: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    data = bytearray((copy / "folds.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "folds.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"folds\.safetensors is not the file"):
        load_checkpoint(copy)


def test_stages_that_cannot_be_are_refused(
    tiny_backbone: Path, rows: Path, staged: Path, tmp_path: Path, fails: Fails
) -> None:
    command = ["train", "--out", tmp_path / "c", "--task", f"topic={rows}"]
    command += ["--backbone", tiny_backbone]
    assert "fewer layers than the model's 2" in fails(*command, "--exits", "2")
    assert "expected numbers of layers" in fails(*command, "--exits", "some")
    assert "expected 2 to 50" in fails(*command, "--exits", "0", "--exit-folds", "1")
    assert "needs a frozen backbone" in fails(*command, "--exits", "0", "--scenario", "full")
    extended = ["train", "--out", tmp_path / "c", "--task", f"topic={rows}", "--extend", staged]
    assert "may have seen them" in fails(*extended, "--exits", "0")
    (tmp_path / "few.csv").write_text(
        "text,label\n" + "".join(f"text {i % 6},{'ab'[i % 6 == 0]}\n" for i in range(60))
    )
    few = ["train", "--out", tmp_path / "c", "--backbone", tiny_backbone, "--exits", "0"]
    message = fails(*few, "--task", f"t={tmp_path}/few.csv")
    assert "--exit-folds 5 needs 7 or more texts that differ, and task 't' has 6" in message
    assert not (tmp_path / "c").exists()
