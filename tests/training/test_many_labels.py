"""Tasks of hundreds of labels, and columns that hold no labels at all."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import Task
from mtl_edge.cli import main
from mtl_edge.training.baselines import MANY_LABELS, bag_of_words, mean_pooling
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.checkpoint.load import _read_heads
from mtl_edge.training.figures import draw_errors
from mtl_edge.training.heads import HeadConfig, build_head, head_config

Fails = Callable[..., str]
LABELS = 150


def written(file: Path, labels: Sequence[str], texts: Sequence[str] | None = None) -> Path:
    texts = texts or [f"text number {i} of {label}" for i, label in enumerate(labels)]
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return file


def parameters(labels: int) -> int:
    config = head_config("attention", states=7, width=384, labels=labels)
    return sum(p.numel() for p in build_head(config).parameters())


def test_a_head_of_150_labels_is_as_large_as_one_of_four() -> None:
    assert parameters(150) < 1.1 * parameters(4)
    assert parameters(1000) < 4 * parameters(4)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    """A checkpoint of a task of many labels and one of few, without baselines."""
    folder = tmp_path_factory.mktemp("many")
    many = written(folder / "many.csv", [f"label {i % LABELS}" for i in range(6 * LABELS)])
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(folder / "checkpoint")]
    command += ["--task", f"many={many}", "--task", f"topic={rows}", "--epochs", "1"]
    assert main([*command, "--no-baselines"]) == 0
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, mixed: Path) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    assert main(["export", str(mixed), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_engines_answer_tasks_of_few_and_of_many_labels_side_by_side(
    mixed: Path, bundle: Path, target: str
) -> None:
    checkpoint = load_checkpoint(mixed)
    texts = ["text number 3 of label 3", "a quiet triumph", ""]
    with EdgeClassifier.load(bundle, target=target) as classifier:
        found = classifier.logits(texts)
    assert {name: logits.shape for name, logits in found.items()} == {
        "many": (3, LABELS), "topic": (3, len(checkpoint.tasks[1].labels)),
    }  # fmt: skip
    assert (bundle / "heads.int8.bin").stat().st_size < 5 * 10**6


def test_without_baselines_they_are_left_out_everywhere(
    mixed: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "mean_pooling" not in load_checkpoint(mixed).report["many"]
    card = (bundle / "README.md").read_text().lower()
    assert "usual recipe" not in card
    assert "bag of words" not in card
    assert main(["info", str(bundle)]) == 0
    assert "and 130 more" in capsys.readouterr().out
    assert "and 130 more" in card


def test_heads_of_many_labels_can_be_replaced_alone(
    mixed: Path, bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    command = ["export", "--heads-only", str(mixed), "--into", str(bundle)]
    assert main(command) == 0
    assert EdgeClassifier.load(bundle).logits(["a"])["many"].shape == (1, LABELS)


def test_a_checkpoint_from_before_keeps_its_table(tmp_path: Path) -> None:
    config = head_config("attention", states=3, width=8, labels=40).to_json()
    config |= {"buckets": 64}
    del config["rank"], config["relative"]
    head = build_head(HeadConfig(**config))
    assert head.ngrams is not None
    assert head.ngrams.weight.shape == (64, 40)
    save_file(torch.nn.ModuleList([head]).state_dict(), tmp_path / "heads.safetensors")
    loaded = _read_heads(tmp_path / "heads.safetensors", ["t"], [config])["t"]
    assert torch.equal(loaded.ngrams.weight, head.ngrams.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("each", [1, 2])
def test_a_column_of_ids_is_refused_before_anything_is_computed(
    tiny_backbone: Path, tmp_path: Path, fails: Fails, each: int
) -> None:
    labels = [f"row-{i}" for i in range(500 if each == 1 else 6000)] * each
    file = written(tmp_path / "rows.csv", labels)
    command = ["train", "--backbone", tiny_backbone, "--task", f"t={file}", "--dev", f"t={file}"]
    message = fails(*command, "--out", tmp_path / "out")
    assert "--label-column" in message
    assert f"{len(set(labels)):,} labels in {len(labels):,} rows" in message
    assert len(message) < 400


def test_a_label_that_stands_once_is_remarked_on(
    tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.csv", ["a", "b"] * 10 + ["once"])
    command = ["train", "--backbone", str(tiny_backbone), "--task", f"t={file}", "--epochs", "1"]
    assert main([*command, "--no-baselines", "--out", str(tmp_path / "out")]) == 0
    assert "1 of 3 labels stand in train once: once" in capsys.readouterr().err


def test_baselines_of_many_labels_answer_what_words_and_means_decide() -> None:
    labels = [f"label{i % (MANY_LABELS + 10)}" for i in range(6 * (MANY_LABELS + 10))]
    texts = [f"all about {label} here" for label in labels]
    assert list(bag_of_words(texts, labels).predict(texts[:70])) == labels[:70]
    means = np.eye(MANY_LABELS + 10, dtype=np.float32)[np.arange(len(labels)) % (MANY_LABELS + 10)]
    assert list(mean_pooling(3 * means, labels, 3 * means[:70])) == labels[:70]


def test_of_many_labels_a_picture_shows_what_is_taken_for_what() -> None:
    names = tuple(f"label {i}" for i in range(1000))
    found = {
        "confused": [[i, i + 1, 9 - i % 9] for i in range(200)],
        "reported": {"split": "dev"},
        "head": {"accuracy": 0.9, "macro_f1": 0.9},
    }
    figure = draw_errors([Task("t", names, 1.0, ())], {"t": found})
    (axis,) = figure.axes
    said = [text.get_text() for text in axis.get_yticklabels()]
    assert said[-1] == "label 0 → label 1"
    assert len(said) == 40
    assert max(figure.get_size_inches()) < 20
