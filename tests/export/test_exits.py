"""Thresholds keep what was promised: on rows that are drawn, and in a bundle."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import Task, open_bundle, write_manifest
from mtl_edge.cli import main
from mtl_edge.errors import OptionError
from mtl_edge.export.early_exit import exits
from mtl_edge.export.early_exit.exit_choice import cheapest
from mtl_edge.export.early_exit.exits import Promise, exits_of, fit, fit_task
from mtl_edge.export.early_exit.paired import least_rows, p_value
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.folds import OutOfFold
from tests.conftest import DEMO

Fails = Callable[..., str]


TASK = Task("any", ("a", "b"))


def drawn(rows: int, rng: np.random.Generator, full: float = 0.9) -> OutOfFold:
    """A task of two labels: depth 0 is right as often as it says, depth 2 at a rate of `full`.

    Depth 2 is better on what depth 0 doubts, and worse where depth 0 is surest.
    """
    sure = rng.uniform(0.5, 1.0, rows)
    labels = rng.integers(0, 2, rows)
    answers = {0: rng.random(rows) < sure, 2: rng.random(rows) < full}
    confidence = {0: sure, 2: np.full(rows, full)}
    logits = {}
    for depth, right in answers.items():
        margin = np.log(confidence[depth] / (1 - confidence[depth] + 1e-9))
        signs = np.where(right, 1, -1) * np.where(labels == 1, 1, -1)
        logits[depth] = np.stack([-signs * margin / 2, signs * margin / 2], 1).astype(np.float32)
    return OutOfFold(labels, logits)


def true_drop(threshold: float, full: float = 0.9) -> float:
    """What a threshold loses of the rows of `drawn`: the integral of `full - sure` from there."""
    least = min(max(threshold, 0.5), 1.0)
    return 2 * (full * (1 - least) - (1 - least**2) / 2)


def test_a_promise_is_broken_no_more_often_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can be: the drop grows as the threshold falls, past what is promised."""
    monkeypatch.setattr(exits, "p_value", functools.cache(p_value))
    monkeypatch.setattr(exits, "upper_bound", lambda *_: 0.0)
    rng = np.random.default_rng(0)
    promise = Promise((0,), 0.02, 0.9)
    draws, broken, rates = 120, 0, []
    for _ in range(draws):
        found = fit_task(drawn(800, rng), 2, TASK, {0: TASK}, promise)
        broken += found.threshold <= 1 and true_drop(found.threshold) > promise.drop
        rates.append(found.exit_rates[0])
    assert broken / draws <= 0.1 + 3 * (0.1 * 0.9 / draws) ** 0.5
    assert 0.3 < np.mean(rates) < 1, "most texts that can leave do"


def holding_several(stages: int, rows: int, rng: np.random.Generator) -> Checkpoint:
    """A checkpoint's answers to one task: those of so many equally bad stages, and of depth 9."""
    one, *others = (drawn(rows, rng) for _ in range(stages))
    logits = {0: one.logits[0], 9: one.logits[2]}
    for depth, other in enumerate(others, 1):
        same = other.right == one.right
        logits[depth] = np.where(same[:, None], other.logits[0], other.logits[0][:, ::-1])
    depths = {str(depth): {"temperature": 1.0, "thresholds": []} for depth in logits}
    return cast(
        Checkpoint,
        SimpleNamespace(
            depth=9,
            tasks=(Task("any", ("no", "yes")),),
            report={"any": {"depths": depths}},
            out_of_fold={"any": OutOfFold(one.right, logits)},
        ),
    )


def test_the_promise_of_stages_that_were_chosen_is_broken_no_more_often_than_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of equally bad stages, the one that lets most rows leave is the one that was luckiest."""
    monkeypatch.setattr(exits, "p_value", functools.cache(p_value))
    monkeypatch.setattr(exits, "upper_bound", lambda *_: 0.0)
    monkeypatch.setattr(exits, "THRESHOLDS", exits.THRESHOLDS[::5])
    rng = np.random.default_rng(0)
    costs = {**dict.fromkeys(range(6), 1.0), 9: 100.0}
    draws, broken = 100, 0
    for _ in range(draws):
        several = holding_several(6, 800, rng)
        chosen = cheapest(several, Promise(None, 0.02, 0.9), costs, most=1)
        assert (chosen.confidence, chosen.tried) == (0.9, 6)
        broken += true_drop(fit(several, chosen)["any"].threshold) > 0.02
    assert broken / draws <= 0.1 + 3 * (0.1 * 0.9 / draws) ** 0.5


def test_a_choice_among_many_stages_takes_more_rows_not_endless_ones() -> None:
    """Of all depths of twelve layers, one or two: 78 promises, each tested at 0.06%."""
    level = Promise(None, 0.003, 0.95, tried=78).level
    assert 1 < least_rows(0.003, 1 - level) / (np.log(level) / np.log(1 - 0.003)) < 1.2


def test_a_stage_as_good_as_full_depth_answers_all() -> None:
    answers = drawn(2000, np.random.default_rng(1))
    same = OutOfFold(answers.right, {0: answers.logits[2], 2: answers.logits[2]})
    found = fit_task(same, 2, TASK, {0: TASK}, Promise((0,)))
    assert (found.threshold, found.exit_rates[0], found.drop) == (0.0, 1.0, 0.0)
    assert 0 < found.bound <= 0.003


def test_a_stage_that_is_sure_and_wrong_answers_nothing() -> None:
    answers = drawn(2000, np.random.default_rng(2), full=0.99)
    wrong = OutOfFold(answers.right, {0: -20 * answers.logits[2], 2: answers.logits[2]})
    found = fit_task(wrong, 2, TASK, {0: TASK}, Promise((0,)))
    assert found.threshold == NEVER
    assert found.exit_rates[0] == 0


def test_rows_leave_at_the_first_stage_that_is_sure() -> None:
    answers = drawn(1500, np.random.default_rng(3))
    two = OutOfFold(answers.right, {0: answers.logits[0], 1: answers.logits[2] * 9,
                                     2: answers.logits[2]})  # fmt: skip
    one = fit_task(two, 2, TASK, {0: TASK}, Promise((0,), 0.02))
    both = fit_task(two, 2, TASK, {0: TASK, 1: TASK}, Promise((0, 1), 0.02))
    assert both.exit_rates[0] + both.exit_rates[1] == pytest.approx(1.0), (
        "depth 1 answers as depth 2 does"
    )
    assert both.exit_rates[0] >= one.exit_rates[0]


@pytest.fixture(scope="module")
def staged_bundle(tmp_path_factory: pytest.TempPathFactory, staged: Path) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    command = ["export", str(staged), "--out", str(out), "--exits", "0", "--exit-drop", "30"]
    assert main(command) == 0
    return out


def test_too_few_rows_promise_nothing_and_the_error_says_what_they_could(
    staged: Path, tmp_path: Path, fails: Fails
) -> None:
    message = fails("export", staged, "--out", tmp_path / "b", "--exits", "0")
    assert "has 100 rows" in message
    assert "takes 1,001" in message
    assert "--exit-drop 3.00 or more" in message
    assert not (tmp_path / "b").exists()
    chosen = fails("export", staged, "--out", tmp_path / "b", "--exits", "auto")
    assert "has 100 rows" in chosen
    assert "of the best of 3 choices of stages takes" in chosen
    assert "name the stages" in chosen


def test_stages_that_were_not_trained_are_named(
    staged: Path, checkpoint: Path, tmp_path: Path, fails: Fails
) -> None:
    out = ["--out", tmp_path / "b"]
    assert "train with --exits 0" in fails("export", checkpoint, *out, "--exits", "0")
    assert "train with --exits 0" in fails("export", checkpoint, *out, "--exits", "auto")
    assert "train with --exits 3" in fails("export", staged, *out, "--exits", "3")
    assert "leave one out" in fails("export", staged, "--explain", "--exits", "0")
    assert "goes with --exits" in fails("export", staged, *out, "--exit-drop", "1")
    for option, value in (("--exit-drop", "0"), ("--exit-confidence", "100")):
        assert "expected" in fails("export", staged, *out, "--exits", "0", option, value)


def test_a_model_with_fewer_layers_needs_answers_of_its_own_depth(staged: Path) -> None:
    loaded = load_checkpoint(staged)
    without = {
        task: OutOfFold(found.right, {d: v for d, v in found.logits.items() if d != 1})
        for task, found in loaded.out_of_fold.items()
    }
    cut = replace(loaded, out_of_fold=without).at(1)
    with pytest.raises(OptionError, match=r"holds none of depth 1; train with --exits 0,1$"):
        fit(cut, Promise((0,), 0.3))
    assert fit(loaded.at(1), Promise((0,), 0.3))


def test_auto_takes_the_stages_that_make_a_text_cheapest(staged: Path) -> None:
    loaded = load_checkpoint(staged)
    promise = Promise(None, 0.3, 0.95)
    chosen = cheapest(loaded, promise, {0: 1.0, 1: 90.0, 2: 100.0})
    assert (chosen.depths, chosen.confidence, chosen.tried) == ((0,), 0.95, 3)
    with pytest.raises(OptionError, match="no stage of depth 0, 1 pays"):
        cheapest(loaded, promise, {0: 100.0, 1: 100.0, 2: 100.0})


def test_the_manifest_says_what_was_promised_and_what_was_measured(staged_bundle: Path) -> None:
    manifest = json.loads((staged_bundle / "manifest.json").read_text())
    (stage,) = manifest["exits"]
    assert stage["depth"] == 0
    promise = stage["promise"]
    assert (promise["drop"], promise["confidence"], promise["tried"]) == (0.3, 0.95, 1)
    assert "2110.01052" in promise["method"]
    assert promise["rows"] == {"sentiment": 100, "topic": 100}
    assert set(promise["cost"]) == {"onnx-int8", "openvino-int8"}
    assert all(share > 0 for share in promise["cost"].values())
    for task in ("sentiment", "topic"):
        assert promise["bound"][task] <= 0.3
        for graph in manifest["graphs"]:
            found = manifest["evaluation"][task]["graphs"][graph["target"]]["exits"]
            assert found["drop"] == (found["rows_lost"] - found["rows_won"]) / found["rows"]
            assert 0 <= found["exit_rate"]["0"] <= 1
    card = (staged_bundle / "README.md").read_text()
    assert "## Stages" in card
    assert "at most 30" in card


def test_stages_with_layers_have_the_word_table_on_disk_once(staged: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ["--exits", "1", "--exit-drop", "30", "--targets", "onnx-int8"]
    assert main(["export", str(staged), "--out", str(out), *options]) == 0
    graph = onnx.load(out / "model.int8.exit1.onnx", load_external_data=False).graph
    table = next(c for c in graph.initializer if list(c.dims) == [30522, 64])
    entry = {pair.key: pair.value for pair in table.external_data}
    assert entry["location"] == "encoder.int8.bin"
    rest = out / "encoder.int8.exit1.bin"  # none, if the first layer came out as the full graph's
    size = rest.stat().st_size if rest.exists() else 0
    assert size < (out / "encoder.int8.bin").stat().st_size / 10


@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_a_stage_answers_as_its_checkpoint_does(
    staged_bundle: Path, staged: Path, target: str
) -> None:
    from mtl_edge.training.model import logits_of

    shallow = load_checkpoint(staged).at(0)
    texts = [sample.text for sample in shallow.samples[:60]]
    ids = shallow.backbone.text_encoder(shallow.max_tokens)(texts)
    expected = logits_of(shallow.model(), ids)
    with EdgeClassifier.load(staged_bundle, target=target, max_depth=0) as classifier:
        logits = classifier.logits(texts)
    for task, values in expected.items():
        np.testing.assert_allclose(logits[task], values, atol=0.05)  # the table is in int8


def test_heads_of_a_bundle_with_stages_are_not_replaced_alone(
    staged_bundle: Path, staged: Path, fails: Fails
) -> None:
    message = fails("export", staged, "--heads-only", "--into", staged_bundle)
    assert "export a bundle of its own with --exits" in message


def promising(bundle: Path, to: Path, threshold: float, drop: float) -> Path:
    """A copy whose depth 0 answers from another threshold on, and promises something else."""
    shutil.copytree(bundle, to)
    manifest = open_bundle(to).manifest
    stages = tuple(
        replace(
            stage,
            thresholds=dict.fromkeys(stage.thresholds, threshold),
            promise={**stage.promise, "drop": drop},
        )
        for stage in manifest.exits
    )
    write_manifest(to, replace(manifest, exits=stages))
    return to


@pytest.fixture
def rows_that_differ(staged_bundle: Path, tmp_path: Path) -> Path:
    """Texts and the answers of full depth, for topic."""
    with (DEMO / "train.csv").open(newline="") as source:
        texts = [row["text"] for row in csv.DictReader(source)][:400]
    full = promising(staged_bundle, tmp_path / "full", NEVER, 0.3)
    with EdgeClassifier.load(full, target="onnx-int8", tasks=["topic"]) as classifier:
        answers = [prediction["topic"].label for prediction in classifier.predict(texts)]
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "topic"), *zip(texts, answers, strict=True)])
    return file


def test_a_broken_promise_is_found_on_ones_own_rows(
    staged_bundle: Path,
    rows_that_differ: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = promising(staged_bundle, tmp_path / "all", 0.0, 0.003)
    command = ["--check-exits", f"topic={rows_that_differ}"]
    assert main(["export", str(bundle), *command]) == 1
    assert "broken" in capsys.readouterr().out
    careful = promising(staged_bundle, tmp_path / "none", NEVER, 0.003)
    assert main(["export", str(careful), *command]) == 0
    out = capsys.readouterr().out
    assert "not contradicted" in out.splitlines()[2], "400 rows cannot show 0.3 points"
    generous = promising(staged_bundle, tmp_path / "generous", NEVER, 0.03)
    assert main(["export", str(generous), *command]) == 0
    assert "kept" in capsys.readouterr().out.splitlines()[2]
    assert main(["export", str(generous), *command, "--targets", "openvino-int8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "openvino-int8" in lines[2]
    assert lines[3] == "", "of the two graphs one was asked for"


def test_the_benchmark_writes_what_stages_save(
    staged_bundle: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtl_edge.benchmarks.core.record_json import read_record
    from mtl_edge.benchmarks.experiments import exits as benchmark

    out = tmp_path / "figures"
    command = ["--seconds", "0", "--targets", "onnx-int8", "--out", str(out)]
    benchmark.main([str(staged_bundle), "--data", f"topic={rows}", *command])
    record = read_record(out / "exits.json")
    ways = ["topic, its own", "topic, all tasks", "topic, crossed: sentiment"]
    assert list(record.figures) == [f"onnx-int8: {way}" for way in ways]
    for name, found in record.figures.items():
        assert sum(share for key, share in found.items() if "depth " in key) >= 1
        assert all(pair.times_as_fast.value > 0 for pair in record.on(name).pairs)
    own = record.figures["onnx-int8: topic, its own"]
    assert {key for key in own if "accuracy" in key} == {
        "accuracy, staged",
        "accuracy, full depth",
    }
    assert "mtl_edge.benchmarks.experiments.exits" in (out / "exits.md").read_text()
    assert "times as fast" in capsys.readouterr().out


def test_the_benchmark_simulates_exits_and_times_a_bag_of_words_beside(
    staged_bundle: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtl_edge.benchmarks.core.record_json import read_record
    from mtl_edge.benchmarks.experiments import exits as benchmark

    out = tmp_path / "figures"
    command = [str(staged_bundle), "--data", f"topic={rows}", "--seconds", "0", "--out", str(out)]
    options = ["--targets", "openvino-int8", "--teach", f"topic={rows}", "--simulate", "0.25"]
    benchmark.main([*command, *options])
    record = read_record(out / "exits.json")
    assert record.inputs["simulated"] == [0.25]
    for found in record.figures.values():  # texts that are as sure as the last one exit with it
        assert found["depth 0"] == pytest.approx(0.25, abs=0.02)
    name = "openvino-int8: topic, its own"
    assert record.figures[name]["accuracy, bag of words"] > 0.9, "it is asked what it learned from"
    timed = [one.name for one in record.rounds if "bag of words" in one.times]
    assert timed == [name, f"{name}, one at a time"]
    written = (out / "exits.md").read_text()
    assert "25% of the texts exit, answers mean nothing" in written
    assert "promised" not in written
    assert "TF-IDF on" in written
    assert "TF-IDF on" in capsys.readouterr().out
    for wrong in ("0.2,0.2", "1", "-0.1", "nan", "some"):
        with pytest.raises(SystemExit):
            benchmark.main([*command, "--overwrite", "--simulate", wrong])
        assert "--simulate" in capsys.readouterr().err


def test_rows_that_cannot_be_checked_are_named(
    staged_bundle: Path, shared_bundle: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    assert "no such task" in fails("export", staged_bundle, "--check-exits", f"mood={rows}")
    assert "no stages" in fails("export", shared_bundle, "--check-exits", f"topic={rows}")
    file = tmp_path / "odd.csv"
    file.write_text("text,topic\nsome text,weather\n")
    assert "does not know" in fails("export", staged_bundle, "--check-exits", f"topic={file}")
    check = ["export", staged_bundle, "--check-exits", f"topic={rows}"]
    for idle in (
        ["--out", tmp_path / "b"], ["--exits", "0"], ["--exit-drop", "1"],
        ["--exit-confidence", "90"], ["--heads-only"], ["--max-accuracy-drop", "1"], ["--explain"],
    ):  # fmt: skip
        message = fails(*check, *idle)
        assert f"{idle[0]} does nothing with --check-exits" in message
    assert "the bundle has onnx-int8" in fails(*check, "--targets", "onnx-fp32")
    assert "there is none" in fails("export", "--check-exits", f"topic={rows}")
    out = ["--out", tmp_path / "b", "--label-column", "topic"]
    assert "--label-column is of --check-exits" in fails("export", shared_bundle, *out)


def test_a_promise_no_task_can_keep_is_refused(staged: Path) -> None:
    loaded = load_checkpoint(staged)
    wrong = {}
    for name, found in loaded.out_of_fold.items():
        right = np.eye(found.logits[2].shape[1], dtype=np.float32)[found.right] * 9
        wrong[name] = OutOfFold(found.right, {0: -right, 1: right, 2: right})
    spoiled = replace(loaded, out_of_fold=wrong)
    with pytest.raises(OptionError, match="no threshold of any task"):
        fit(spoiled, Promise((0,), 0.05))
    (stage,) = exits_of(spoiled, fit(spoiled, Promise((1,), 0.05)), Promise((1,), 0.05))
    assert stage.thresholds == {"sentiment": 0.0, "topic": 0.0}
