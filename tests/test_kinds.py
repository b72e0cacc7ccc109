"""Several labels a text, scores and soft labels, from rows to an app's answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.cli import main
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint

WORDS = {"room": "travel", "meal": "food", "phone": "gadgets"}
Fails = Callable[..., str]


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Texts whose words say their tags, how many stars, and whether they are good."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        chosen = [word for word in WORDS if generator.random() < 0.5]
        good = int(generator.integers(0, 6))
        filler = [f"thing{generator.integers(0, 50)}" for _ in range(3)]
        words = [*chosen, *["good"] * good, *["bad"] * (5 - good), *filler]
        generator.shuffle(words)
        share = good / 5
        rows.append(
            {
                "text": " ".join(words),
                "tags": [WORDS[word] for word in chosen],
                "stars": 1 + 0.75 * good,
                "mood": "up" if good > 2 else "down",
                "p_up": share,
                "p_down": 1 - share,
            }
        )
    return rows


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for name, count, seed in (("train", 400, 0), ("dev", 200, 1)):
        lines = "".join(json.dumps(row) + "\n" for row in rows_of(count, seed))
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def options(data: Path, *names: str) -> list[str]:
    labels = [part for name in names for part in ("--label", f"{name}={name}")]
    kinds = [part for name in names if name == "stars" for part in ("--kind", "stars=score")]
    files = ["--data", str(data / "train.jsonl"), "--dev-data", str(data / "dev.jsonl")]
    return [*files, *labels, *kinds]


@pytest.fixture(scope="session")
def three(data: Path, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a task of each kind."""
    out = tmp_path_factory.mktemp("three") / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "25"]
    assert main([*command, *options(data, "tags", "stars", "mood")]) == 0
    return out


@pytest.fixture(scope="session")
def bundle(three: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("three") / "bundle"
    command = ["export", str(three), "--out", str(out), "--refit", str(data / "train.jsonl")]
    assert main(command) == 0
    return out


def test_each_kind_learns_and_reports_its_own_figures(three: Path) -> None:
    checkpoint = load_checkpoint(three)
    assert [task.kind for task in checkpoint.tasks] == ["multi", "score", "single"]
    tags, stars, mood = (checkpoint.report[name]["head"] for name in ("tags", "stars", "mood"))
    assert tags["macro_f1"] > 0.95
    assert tags["micro_f1"] > 0.95
    assert tags["accuracy"] > 0.9
    assert stars["r2"] > 0.8
    assert stars["rmse"] < 0.6
    assert stars["spearman"] > 0.9
    assert mood["accuracy"] > 0.9
    for name in ("tags", "stars", "mood"):
        report = checkpoint.report[name]
        for baseline in ("mean_pooling", "bag_of_words"):
            assert report[baseline].keys() == report["head"].keys()
    assert set(checkpoint.report["tags"]["by_label"]) == {"food", "gadgets", "travel"}


def test_labels_of_several_have_thresholds_and_scores_a_range_and_a_spread(three: Path) -> None:
    tags, stars, mood = load_checkpoint(three).tasks
    assert len(tags.thresholds) == 3
    assert all(0 < value < 1 for value in tags.thresholds)
    assert stars.scale is not None
    assert stars.labels == ()
    assert (stars.scale.low, stars.scale.high) == (1, 4.75)
    assert 0 < stars.scale.spread < 0.6
    assert mood.thresholds == ()


@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_an_app_gets_labels_numbers_and_none(bundle: Path, target: str) -> None:
    with EdgeClassifier.load(bundle, target=target) as classifier:
        nothing, two = classifier.predict(
            ["bad bad bad bad bad thing1", "room meal good good good"]
        )
        assert nothing["tags"].labels == ()
        assert set(two["tags"].labels) == {"travel", "food"}
        assert two["tags"].label in two["tags"].labels
        assert two["mood"].labels == (two["mood"].label,)
        assert nothing["stars"].score is not None
        assert two["stars"].score is not None
        assert 1 <= nothing["stars"].score < two["stars"].score <= 4.75
        assert two["stars"].spread == classifier.manifest.tasks[1].scale.spread  # type: ignore[union-attr]
        found = classifier.predict_proba(["room"] * 3)
        assert {name: values.shape for name, values in found.items()} == {
            "tags": (3, 3), "stars": (3, 1), "mood": (3, 2),
        }  # fmt: skip
        assert classifier.classes_["stars"].tolist() == []
    with EdgeClassifier.load(bundle, target=target, tasks=["stars"]) as classifier:
        assert list(classifier.predict("room")) == ["stars"]


def test_graphs_are_compared_in_the_way_of_each_kind(bundle: Path) -> None:
    evaluation = json.loads((bundle / "manifest.json").read_text())["evaluation"]
    for target in ("onnx-int8", "openvino-int8"):
        tags, stars = (evaluation[name]["graphs"][target] for name in ("tags", "stars"))
        assert tags["lowest_agreement"] <= tags["agreement"] <= 1
        assert abs(tags["macro_f1"] - evaluation["tags"]["fp32"]["macro_f1"]) < 0.05
        assert stars["agreement"] > 0.9
        assert 0 <= stars["paired_p"] <= 1
    card = (bundle / "README.md").read_text()
    assert "any number of labels" in card
    assert "a score" in card
    assert "macro-F1" in card


def test_predictions_are_printed_and_written_in_the_way_of_each_kind(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), "room meal good good good good good"]) == 0
    assert " ± " in capsys.readouterr().out
    assert main(["predict", str(bundle), "--json", "room", "bad bad bad"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["tags"]["labels"] == ["travel"]
    assert second["tags"]["labels"] == []
    assert set(second["stars"]) == {"score", "spread", "depth"}
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{ending}"
        command = ["predict", str(bundle), "--file", str(data / "dev.jsonl"), "--out", str(out)]
        assert main([*command, "--prefix", "our_", "--probabilities"]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert isinstance(json.loads(row["our_tags"]), list)
    assert float(row["our_stars"]) >= 1
    assert float(row["our_tags_probability_food"]) >= 0
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert line["our_tags"] == json.loads(row["our_tags"])
    # What a bundle answered teaches another: several labels, a number, probabilities.
    again = tmp_path / "again"
    command = ["train", "--backbone", str(load_checkpoint_folder(bundle)), "--out", str(again)]
    files = ["--data", str(tmp_path / "out.csv"), "--label", "tags=our_tags"]
    learned = ["--label", "stars=our_stars", "--kind", "tags=multi", "--kind", "stars=score"]
    soft = ["--label-columns", "mood=our_mood_probability_*", "--label", "mood=mood"]
    assert main([*command, *files, *learned, *soft, "--epochs", "1", "--no-baselines"]) == 0


def load_checkpoint_folder(bundle: Path) -> Path:
    return next(bundle.parent.parent.glob("backbone*/tiny"))


def test_a_bundle_of_all_kinds_is_described_and_measured(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    assert main(["info", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "several of food" in out
    assert "a score from 1 to 4.75" in out
    command = ["bench", str(bundle), "--quick", "--json", str(tmp_path / "record.json")]
    own = ["--data", f"tags={data / 'dev.jsonl'}", "--label-column", "tags=tags"]
    assert main([*command, *own]) == 0
    scores = json.loads((tmp_path / "record.json").read_text())["scores"]
    (tags,) = (one for one in scores if one["task"] == "tags")
    assert all(0.8 < model["macro_f1"]["value"] <= 1 for model in tags["models"].values())
    said = fails("bench", bundle, "--data", f"stars={data / 'dev.jsonl'}")
    assert "which a score has not" in said


def test_new_heads_of_every_kind_replace_the_old(
    three: Path, bundle: Path, data: Path, tmp_path: Path
) -> None:
    extended = tmp_path / "extended"
    command = ["train", "--extend", str(three), "--out", str(extended), "--epochs", "2"]
    assert main([*command, *options(data, "tags", "stars")]) == 0
    update = tmp_path / "update"
    import shutil

    shutil.copytree(bundle, update)
    assert main(["export", str(extended), "--heads-only", "--into", str(update)]) == 0
    with EdgeClassifier.load(update) as classifier:
        assert [task.kind for task in classifier.tasks] == ["single", "multi", "score"]


def test_several_labels_may_leave_early_and_scores_may_not(
    data: Path, tiny_backbone: Path, tmp_path: Path, fails: Fails
) -> None:
    command = ["train", "--backbone", str(tiny_backbone), "--epochs", "12", "--exit-folds", "2"]
    out = tmp_path / "checkpoint"
    exits = [*command, "--out", str(out), "--exits", "0"]
    said = fails(*exits, *options(data, "tags", "stars"))
    assert "'stars' nothing says how sure it is" in said
    assert main([*exits, *options(data, "tags")]) == 0
    staged = tmp_path / "bundle"
    promise = ["--exits", "0", "--exit-drop", "5", "--targets", "onnx-int8"]
    assert main(["export", str(out), "--out", str(staged), *promise]) == 0
    with EdgeClassifier.load(staged) as classifier:
        found = classifier.predict([row["text"] for row in rows_of(50, 5)])
        alone = [classifier.predict(row["text"]) for row in rows_of(50, 5)]
    assert {prediction.depth for prediction in found} <= {0, 2}
    assert [p["tags"].labels for p in found] == [p["tags"].labels for p in alone]
    rows = ["--check-exits", f"tags={data / 'dev.jsonl'}", "--label-column", "tags=tags"]
    assert main(["export", str(staged), *rows]) in (0, 1)


def test_options_that_mean_nothing_for_a_kind_are_refused(
    data: Path, tiny_backbone: Path, three: Path, tmp_path: Path, fails: Fails
) -> None:
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "out")]
    said = fails(*command, *options(data, "tags"), "--abstain", "0.9")
    assert "task 'tags' is of kind multi" in said
    said = fails(*command, *options(data, "stars"), "--class-weights")
    assert "'stars' is a score" in said
    said = fails(*command, *options(data, "mood"), "--kind", "mood=several")
    assert "there are single, multi, score" in said
    said = fails(*command, *options(data, "mood"), "--kind", "other=multi")
    assert "no such task" in said
    said = fails("train", "--extend", three, "--out", tmp_path / "out", "--data",
                 data / "train.jsonl", "--label", "stars=mood")  # fmt: skip
    assert "of kind single" in said
    assert "score in the checkpoint" in said


def trained(data: Path, backbone: Path, out: Path, *more: str) -> Checkpoint:
    command = ["train", "--backbone", str(backbone), "--out", str(out), "--epochs", "15"]
    assert main([*command, "--no-baselines", *options(data, "mood"), *more]) == 0
    return load_checkpoint(out)


def test_probabilities_in_place_of_labels_teach_a_task(
    data: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    soft = trained(data, tiny_backbone, tmp_path / "soft", "--label-columns", "mood=p_*")
    assert soft.report["mood"]["head"]["accuracy"] > 0.9
    assert soft.tasks[0].labels == ("down", "up")


@pytest.mark.parametrize("scenario", ["full", "lora"])
def test_the_backbone_learns_from_every_kind(
    scenario: str, data: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--no-baselines"]
    more = ["--scenario", scenario, "--epochs", "6", "--class-weights"]
    assert main([*command, *more, *options(data, "tags", "mood")]) == 0
    assert load_checkpoint(out).report["tags"]["head"]["macro_f1"] > 0.6
