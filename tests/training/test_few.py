"""A handful of examples, and linear heads: solved, and what their figures say."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mtl_edge.bundle import Scale
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli import main
from mtl_edge.errors import MtlEdgeError
from mtl_edge.io.labelled import Rows
from mtl_edge.training.batches import Labelled
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.few import folds_of, has_few, takes_all_rows
from mtl_edge.training.fit import fit_heads, predict
from mtl_edge.training.heads import HeadConfig, build_head
from mtl_edge.training.kinds import blank_task, training_kind
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.solve import Features, linear_model
from mtl_edge.training.states import States

Fails = Callable[..., str]
PLAIN = Recipe(label_smoothing=0.0)
ROWS, WIDTH, LABELS = 300, 16, 5


@pytest.fixture
def states() -> States:
    """Random states whose mean leans to the row's label, but not always."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 9, ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = generator.standard_normal((starts[-1], 3, WIDTH)).astype(np.float16)
    for row in range(ROWS):
        values[starts[row] : starts[row + 1], :, row % LABELS] += 0.7
    ids = [generator.integers(1000, 2000, n) for n in lengths]
    return States([values], [0] * ROWS, starts[:-1], ids)


def rows_of(places: Sequence[int]) -> Labelled:
    task = blank_task("task", [f"label {i}" for i in range(LABELS)])
    return Labelled(task, places, np.array([place % LABELS for place in places]))


def head_of(kind: str) -> torch.nn.Module:
    return build_head(HeadConfig(states=3, width=WIDTH, labels=LABELS, kind=kind))


def test_a_solved_head_answers_as_scikit_learn_s_logistic_regression(states: States) -> None:
    means, labels = states.means(range(200), 2), np.arange(200) % LABELS
    task = rows_of([]).task
    criterion = training_kind(task).criterion(task, labels, PLAIN)
    features = Features(torch.from_numpy(means))
    own = linear_model(features, torch.from_numpy(labels), LABELS, criterion, 10 * features.scale)
    theirs = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(means, labels)
    logits = own(torch.from_numpy(means)).softmax(1).numpy()
    np.testing.assert_allclose(logits, theirs.predict_proba(means), atol=2e-3)


def test_each_label_and_scores_are_solved_as_scikit_learn_would(states: States) -> None:
    means = states.means(range(200), 2)
    features = Features(torch.from_numpy(means))
    several = blank_task("task", ["a", "b"], "multi")
    targets = np.stack([means[:, 0] > 0.5, means[:, 1] + means[:, 2] > 1], 1).astype(np.float32)
    criterion = training_kind(several).criterion(several, targets, PLAIN)
    model = linear_model(features, torch.from_numpy(targets), 2, criterion, features.scale)
    chances = model(torch.from_numpy(means)).sigmoid().numpy()
    for label in (0, 1):
        own = LogisticRegression(tol=1e-8, max_iter=5000).fit(means, targets[:, label])
        np.testing.assert_allclose(chances[:, label], own.predict_proba(means)[:, 1], atol=2e-3)

    score = blank_task("task", (), "score", Scale(0.0, 1.0, -3.0, 3.0))
    numbers = (means @ np.arange(WIDTH, dtype=np.float32) / 10).astype(np.float32)
    criterion = training_kind(score).criterion(score, numbers, PLAIN)
    model = linear_model(features, torch.from_numpy(numbers), 1, criterion, features.scale)
    ridge = Ridge(alpha=0.5).fit(means, numbers)  # half: the penalty is halved, squares are not
    found = model(torch.from_numpy(means))[:, 0].numpy()
    np.testing.assert_allclose(found, ridge.predict(means), atol=2e-2)


@pytest.mark.parametrize("kind", ["linear", "normalized"])
def test_a_linear_head_is_not_below_logistic_regression_on_the_same_states(
    states: States, kind: str
) -> None:
    training, validation = list(range(150)), list(range(150, 200))
    head = head_of(kind)
    fit_heads("task", {2: head}, states, rows_of(training), rows_of(validation), Recipe())  # type: ignore[dict-item]
    asked, right = list(range(200, ROWS)), np.arange(200, ROWS) % LABELS
    own = (predict(head, states, asked).argmax(1).numpy() == right).mean()  # type: ignore[arg-type]
    best = max(
        LogisticRegression(C=strength, max_iter=1000)
        .fit(states.means(training, 2), np.array(training) % LABELS)
        .score(states.means(asked, 2), right)
        for strength in (0.01, 0.1, 1.0)
    )
    assert own >= best - 2 * np.sqrt(best * (1 - best) / len(asked))


def test_a_solved_head_does_not_depend_on_the_seed(states: States) -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        head = head_of("linear")
        rows = rows_of(list(range(200))), rows_of(list(range(200, ROWS)))
        fit_heads("task", {2: head}, states, *rows, Recipe(seed=seed))  # type: ignore[dict-item]
        found.append(predict(head, states, range(ROWS)))  # type: ignore[arg-type]
    assert torch.equal(*found)


def test_states_that_are_no_numbers_stop_a_solved_head(states: States) -> None:
    states.of(0)[:] = np.nan
    with pytest.raises(MtlEdgeError, match="no numbers"):
        rows = rows_of(list(range(200))), rows_of(list(range(200, ROWS)))
        fit_heads("task", {2: head_of("linear")}, states, *rows, Recipe())  # type: ignore[dict-item]


def test_folds_are_even_and_never_split_a_text() -> None:
    texts = [*range(40), 0, 5]  # two occur twice
    rows = Labelled(rows_of([]).task, texts, np.array([text % 4 for text in texts]))
    folds, count = folds_of(rows, seed=0)
    assert count == 5
    assert folds[0] == folds[40]
    assert folds[5] == folds[41]
    assert {tuple(np.bincount(folds[:40][np.arange(40) % 4 == label])) for label in range(4)} == {
        (2, 2, 2, 2, 2)
    }


def test_a_label_s_only_text_is_never_held_out() -> None:
    rows = Labelled(rows_of([]).task, list(range(9)), np.array([0] * 4 + [1] * 4 + [2]))
    folds, _ = folds_of(rows, seed=0)
    assert folds[8] == -1
    assert (folds[:8] >= 0).all()
    alone, count = folds_of(rows_of(list(range(LABELS))), seed=0)
    assert count == 0
    assert set(alone) == {-1}


def labelled_texts(*counts: int) -> Rows:
    labels = [f"label {i}" for i, count in enumerate(counts) for _ in range(count)]
    return Rows(tuple(f"text {i}" for i in range(len(labels))), tuple(labels), {"file": "f.csv"})


def test_what_few_rows_are_and_how_a_head_overrides_it() -> None:
    few, many = labelled_texts(8, 8), labelled_texts(200, 200)
    assert has_few(few)
    assert has_few(labelled_texts(40, 1))
    assert has_few(labelled_texts(*[16] * 77))
    assert not has_few(labelled_texts(*[10] * 400)), "solving so many would take long"
    assert has_few(labelled_texts(*[4] * 900)), "no label has enough to set one aside"
    assert not has_few(many)
    assert takes_all_rows("t", few, TrainOptions())
    assert not takes_all_rows("t", many, TrainOptions())
    assert takes_all_rows("t", few, TrainOptions(heads={"t": "linear:mean"}))
    assert not takes_all_rows("t", few, TrainOptions(heads={"t": "attention"}))
    assert not takes_all_rows("t", few, TrainOptions(scenario="full"))
    assert not takes_all_rows("t", few, TrainOptions(scenario="frozen"))


def few_rows(file: Path, source: Path, a_label: int, label: str = "topic") -> Path:
    with source.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    seen: dict[str, int] = {}
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label"])
        for row in rows:
            seen[row[label]] = seen.get(row[label], 0) + 1
            if seen[row[label]] <= a_label:
                writer.writerow([row["text"], row[label]])
    return file


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    """A checkpoint of five rows a label, without dev rows."""
    folder = tmp_path_factory.mktemp("few")
    file = few_rows(folder / "few.csv", rows, 5)
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(folder / "checkpoint")]
    assert main([*command, "--task", f"topic={file}", "--all-depths"]) == 0
    return folder / "checkpoint"


def test_a_few_rows_train_and_all_of_them_teach(few: Path) -> None:
    checkpoint = load_checkpoint(few)
    report = checkpoint.report["topic"]
    assert report["train"]["rows"] == 20
    assert checkpoint.heads["topic"].config.kind == "normalized"
    assert {sample.split for sample in checkpoint.samples} == {"calibration", "train"}


def test_figures_say_that_they_are_cross_validated_and_what_they_are_worth(
    few: Path, tmp_path: Path, rows: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = load_checkpoint(few).report["topic"]
    assert report["reported"]["split"] == "cross-validation"
    assert report["reported"]["rows"] == report["selection"]["rows"] == 20
    assert report["selection"]["folds"] == 5
    low, high = report["selection"]["interval"]
    assert low < report["head"]["accuracy"] < high
    assert high - low > 0.2, "twenty rows do not say more"
    assert {*report["mean_pooling"]} == {*report["head"]}
    file = few_rows(tmp_path / "few.csv", rows, 5)
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    assert main([*command, "--task", f"topic={file}"]) == 0
    said = capsys.readouterr().out
    assert "cross-validation (20)" in said
    assert "none was set aside; 5-fold cross-validation on 20 of them" in said


@pytest.mark.parametrize("described", [False, True])
def test_one_row_a_label_trains(
    tmp_path: Path, rows: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str],
    described: bool,
) -> None:  # fmt: skip
    file = few_rows(tmp_path / "one.csv", rows, 1)
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    command += ["--task", f"topic={file}", *(["--describe", "names"] if described else [])]
    assert main(command) == 0
    assert "nothing could be measured" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "c")
    assert checkpoint.report["topic"]["head"] == {}
    assert checkpoint.report["topic"]["train"]["score"] == 1.0


def test_one_row_of_a_label_beside_many_of_another_trains(
    tmp_path: Path, rows: Path, tiny_backbone: Path
) -> None:
    file = tmp_path / "uneven.csv"
    lines = [f"parcel {i} came quick and shiny,good" for i in range(40)]
    file.write_text("\n".join(["text,label", *lines, "it broke,bad"]))
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    assert main([*command, "--task", f"parcel={file}"]) == 0
    report = load_checkpoint(tmp_path / "c").report["parcel"]
    assert report["train"]["rows"] == 41
    assert report["selection"]["rows"] == 40


def test_a_bundle_of_a_few_rows_says_that_its_rows_had_been_seen(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert main(["export", str(few), "--out", str(out), "--targets", "onnx-fp32,onnx-int8"]) == 0
    found = json.loads((out / "manifest.json").read_text())["evaluation"]["topic"]
    assert found["split"] == "cross-validation"
    assert found["fp32"] == load_checkpoint(few).report["topic"]["head"]
    for graph in found["graphs"].values():
        assert "accuracy" not in graph
        assert graph["compared_on"] == 20
    card = (out / "README.md").read_text()
    assert "figures are by cross-validation" in card
    assert "graphs were compared on rows that their heads had seen" in card
    with EdgeClassifier.load(out) as classifier:
        assert classifier.predict("a text")["topic"].label in classifier.tasks[0].labels


@pytest.mark.parametrize("kind", ["multi", "score"])
def test_a_few_rows_of_other_kinds_train(kind: str, tmp_path: Path, tiny_backbone: Path) -> None:
    file = tmp_path / "rows.jsonl"
    labels = [["late"], ["late", "broken"], ["broken"], []]
    lines = [
        {"text": f"parcel {i}", "label": labels[i % 4] if kind == "multi" else i % 4 + 0.5}
        for i in range(16)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    assert main([*command, "--task", f"parcel={file}", "--kind", f"parcel={kind}"]) == 0
    report = load_checkpoint(tmp_path / "c").report["parcel"]
    assert report["kind"] == kind
    assert report["selection"]["rows"] == 16
    assert report["reported"]["split"] == "cross-validation"


def test_a_stopped_run_of_few_rows_leaves_one_line_a_head(few: Path) -> None:
    lines = [json.loads(line) for line in (few / "metrics.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == ["topic@0", "topic@1", "topic@2"]


def test_descriptions_are_learned_from_and_checked(
    tmp_path: Path, rows: Path, tiny_backbone: Path, fails: Fails
) -> None:
    file = few_rows(tmp_path / "few.csv", rows, 3)
    with file.open(newline="") as opened:
        labels = sorted({row["label"] for row in csv.DictReader(opened)})
    meanings = tmp_path / "meanings.csv"
    meanings.write_text("text,label\n" + "".join(f"about {label},{label}\n" for label in labels))
    command = ["train", "--backbone", str(tiny_backbone), "--task", f"topic={file}"]
    weights = []
    for given in ([], ["--describe", "names"], ["--describe", f"topic={meanings}"]):
        out = tmp_path / f"c{len(weights)}"
        assert main([*command, *given, "--out", str(out)]) == 0
        found = load_checkpoint(out)
        weights.append(found.heads["topic"].state_dict()["output.weight"])
        assert found.report["topic"]["train"]["rows"] == 3 * len(labels)
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    meanings.write_text("text,label\nabout nothing,nothing\n")
    command += ["--out", str(tmp_path / "never")]
    assert "has the label 'nothing'" in fails(*command, "--describe", str(meanings))
    assert "no task 'other'" in fails(*command, "--describe", "other=names")


def test_a_few_rows_make_early_exits_too(tmp_path: Path, rows: Path, tiny_backbone: Path) -> None:
    file = few_rows(tmp_path / "few.csv", rows, 5)
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "c")]
    assert main([*command, "--task", f"topic={file}", "--exits", "0"]) == 0
    found = load_checkpoint(tmp_path / "c").out_of_fold["topic"]
    assert {depth: values.shape for depth, values in found.logits.items()} == {
        0: (20, 4),
        2: (20, 4),
    }
