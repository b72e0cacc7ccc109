"""A run can be watched, stopped, gone on with, repeated and explained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_edge.cli import main
from mtl_edge.io.labelled import Rows
from mtl_edge.training import baselines
from mtl_edge.training.batches import Labelled
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.data import build_task
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import targets_of
from mtl_edge.training.loop import Loop
from mtl_edge.training.loop.state import LoopState
from mtl_edge.training.run import corpus

Fails = Callable[..., str]


def command(backbone: Path, rows: Path, out: Path, *more: str) -> list[str]:
    tasks = ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    return ["train", "--backbone", str(backbone), *tasks, "--out", str(out), *more]


def weights(folder: Path) -> list[torch.Tensor]:
    checkpoint = load_checkpoint(folder)
    return list(checkpoint.model().state_dict().values())


def same(first: Path, second: Path) -> bool:
    pairs = zip(weights(first), weights(second), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class Stop(BaseException):
    """What a kill looks like from inside: nothing gets a chance to tidy up."""


@pytest.mark.parametrize("scenario", ["heads", "full"])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    tiny_backbone: Path, rows: Path, tmp_path: Path, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--epochs", "4", "--scenario", scenario)
    assert main(command(tiny_backbone, rows, tmp_path / "whole", *options)) == 0
    end_epoch = Loop._end_epoch
    calls = 0

    def die(*arguments: object) -> float:
        nonlocal calls
        result = end_epoch(*arguments)  # type: ignore[arg-type]
        calls += 1
        # After an epoch was saved; with heads, in the middle of the second one's.
        if calls == (6 if scenario == "heads" else 2):
            raise Stop
        return result

    monkeypatch.setattr(Loop, "_end_epoch", die)
    with pytest.raises(Stop):
        main(command(tiny_backbone, rows, tmp_path / "stopped", *options))
    assert not (tmp_path / "stopped").exists()
    left = tmp_path / "stopped.unfinished"
    assert {"run.json", "metrics.jsonl"} < {p.name for p in left.iterdir()}
    monkeypatch.setattr(Loop, "_end_epoch", end_epoch)
    assert main(command(tiny_backbone, rows, tmp_path / "stopped", *options)) == 0
    assert same(tmp_path / "whole", tmp_path / "stopped")
    assert not left.exists()
    lines = [load_checkpoint(tmp_path / name).metrics for name in ("whole", "stopped")]
    assert [(m["part"], m["step"]) for m in lines[0]] == [(m["part"], m["step"]) for m in lines[1]]
    assert [m["train_loss"] for m in lines[0]] == [m["train_loss"] for m in lines[1]]


# Long enough to be stopped after the first of its epochs, with heads that learn fast.
LONG = ("--epochs", "12", "--scenario", "full", "--batch-size", "4", "--head", "linear")


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path
) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "checkpoint"
    assert main(command(tiny_backbone, rows, out, *LONG)) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle_of_an_epoch_loses_little(
    tiny_backbone: Path, rows: Path, tmp_path: Path, uninterrupted: Path, sent: signal.Signals
) -> None:
    stopped = tmp_path / "stopped"
    start = [
        str(Path(sys.executable).with_name("mtl-edge")),
        *command(tiny_backbone, rows, stopped, *LONG),
    ]
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    state = tmp_path / "stopped.unfinished" / "model.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from" in err
    assert not stopped.exists()
    assert state.exists()
    assert main(command(tiny_backbone, rows, stopped, *LONG)) == 0
    assert same(uninterrupted, stopped)


def test_what_another_run_left_is_not_mixed_in(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def die(*_: object) -> float:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_end_epoch", die)
        patch.setattr(Journal, "due", lambda _: True)  # save after every step
        with pytest.raises(Stop):
            main(command(tiny_backbone, rows, out, "--epochs", "2", "--batch-size", "8"))
    message = fails(*command(tiny_backbone, rows, out, "--epochs", "3", "--batch-size", "8"))
    assert "differs in options.epochs (then 2, now 3)" in message
    assert "--restart" in message
    restart = command(tiny_backbone, rows, out, "--epochs", "3", "--batch-size", "8", "--restart")
    assert main(restart) == 0


def test_a_run_that_fails_before_it_learns_leaves_nothing(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    fails(*command(tiny_backbone, rows, tmp_path / "out", "--depth", "9"))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_is_named(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(LoopState, "restore_best", lambda _: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            main(command(tiny_backbone, rows, out, "--epochs", "1"))
    (tmp_path / "out.unfinished" / "sentiment.pt").write_bytes(b"no state")
    assert "damaged" in fails(*command(tiny_backbone, rows, out, "--epochs", "1"))


@pytest.mark.usefixtures("pictures")
def test_the_checkpoint_holds_figures_pictures_and_its_own_command(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(command(tiny_backbone, rows, first, "--epochs", "3", "--seed", "7")) == 0
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert [(m["part"], m["epoch"]) for m in lines] == [
        (part, epoch) for part in ("sentiment@2", "topic@2") for epoch in (1, 2, 3)
    ]
    assert lines[0]["train_loss"] > lines[2]["train_loss"] > 0
    for picture in ("curves.png", "confusion.png"):
        assert (first / picture).read_bytes().startswith(b"\x89PNG")
    config = tomllib.loads((first / "config.toml").read_text())["train"]
    assert config["seed"] == 7
    assert config["max-tokens"] == 128
    assert config["task"] == [f"sentiment={rows}", f"topic={rows}"]
    assert main(["train", "--config", str(first / "config.toml"), "--out", str(again)]) == 0
    assert same(first, again)
    assert (first / "heads.safetensors").read_bytes() == (again / "heads.safetensors").read_bytes()


def test_a_config_file_holds_a_run_and_flags_override_it(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'[train]\nbackbone = "{tiny_backbone}"\nepochs = 1\nclass-weights = true\n'
        f'head = ["linear"]\n[train.task]\nsentiment = "{rows}"\n'
    )
    out = tmp_path / "out"
    assert main(["train", "--config", str(config), "--out", str(out), "--epochs", "2"]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.run["recipe"]["epochs"] == 2
    assert checkpoint.run["recipe"]["class_weights"] is True
    assert checkpoint.heads["sentiment"].config.kind == "linear"
    other = tmp_path / "other"
    more = ["--task", f"topic={rows}", "--out", str(other)]
    assert main(["train", "--config", str(config), *more]) == 0
    assert [t.name for t in load_checkpoint(other).tasks] == ["topic"], "a flag replaces"
    for text, message in (
        ("[train]\nepoch = 1\n", "'epoch', which is no option"),
        ("[train]\nepochs = [1, 2]\n", "expected one value"),
        ("[train]\nclass-weights = 3\n", "expected true or false"),
        ("[export]\n", "no table [train]; it has [export]"),
        ("train = 3 4", "is not TOML"),
    ):
        config.write_text(text)
        assert message in fails("train", "--config", config, "--out", tmp_path / "never")
    assert "No such file" in fails("train", "--config", tmp_path / "none", "--out", out)


def test_training_stops_early_only_when_asked(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(command(tiny_backbone, rows, out, "--epochs", "30", "--patience", "2")) == 0
    lines = load_checkpoint(out).metrics
    epochs = [m["epoch"] for m in lines if m["part"] == "topic@2"]
    assert len(epochs) < 30
    best = load_checkpoint(out).report["topic"]["selection"]["epoch"]
    assert epochs[-1] == best + 2


def test_a_batch_at_fault_is_kept(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "out"
    message = fails(
        *command(tiny_backbone, rows, out, "--learning-rate", "1e30", "--scenario", "full")
    )
    assert "the loss became" in message
    fault = tmp_path / "out.unfinished" / "batch.jsonl"
    assert str(fault) in message
    row = json.loads(fault.read_text().splitlines()[0])
    assert row.keys() == {"task", "text", "label"}
    assert row["text"] in rows.read_text().replace('""', '"')


def test_tensorboard_gets_the_figures(tiny_backbone: Path, rows: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    more = ("--epochs", "1", "--tensorboard", str(board))
    assert main(command(tiny_backbone, rows, tmp_path / "out", *more)) == 0
    assert [p.name[:6] for p in board.iterdir()] == ["events"]


@pytest.fixture(scope="module")
def depths(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    out = tmp_path_factory.mktemp("depths") / "checkpoint"
    assert main(command(tiny_backbone, rows, out, "--epochs", "2", "--all-depths")) == 0
    return out


def test_all_depths_are_taught_in_one_pass_and_recorded(depths: Path) -> None:
    checkpoint = load_checkpoint(depths)
    assert list(checkpoint.shallower) == [0, 1]
    for task in ("sentiment", "topic"):
        found = checkpoint.report[task]["depths"]
        assert list(found) == ["0", "1", "2"]
        assert all(0 <= f["score"] <= 1 and f["temperature"] > 0 for f in found.values())
    assert {m["part"] for m in checkpoint.metrics} == {
        f"{task}@{depth}" for task in ("sentiment", "topic") for depth in (0, 1, 2)
    }


@pytest.mark.parametrize("depth", [0, 1])
def test_export_takes_any_depth_that_was_taught(depths: Path, tmp_path: Path, depth: int) -> None:
    checkpoint: Checkpoint = load_checkpoint(depths).at(depth)
    export = ["export", str(depths), "--depth", str(depth), "--targets", "onnx-fp32"]
    assert main([*export, "--out", str(tmp_path / "b")]) == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["depth"] == depth
    for task in checkpoint.tasks:
        recorded = checkpoint.report[task.name]["depths"][str(depth)]["score"]
        assert manifest["evaluation"][task.name]["fp32"]["accuracy"] == pytest.approx(recorded)


def test_a_depth_that_was_not_taught_is_refused(
    depths: Path, checkpoint: Path, tmp_path: Path, fails: Fails
) -> None:
    out = ("--out", tmp_path / "b")
    assert "heads for depth 0, 1, 2, not 5" in fails("export", depths, "--depth", "5", *out)
    assert "expected a number" in fails("export", depths, "--depth", "few", *out)
    assert "train with --all-depths" in fails("export", checkpoint, "--depth", "auto", *out)


def test_export_chooses_the_least_depth_that_loses_little(depths: Path, tmp_path: Path) -> None:
    export = ["export", str(depths), "--depth", "auto", "--targets", "onnx-fp32"]
    assert main([*export, "--max-accuracy-drop", "100", "--out", str(tmp_path / "b")]) == 0
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["depth"] == 0


def test_another_head_is_taught_at_every_depth_of_its_checkpoint(
    depths: Path, rows: Path, tmp_path: Path
) -> None:
    extend = ["train", "--extend", str(depths), "--task", f"again={rows}", "--epochs", "1"]
    extend += ["--label-column", "topic", "--out", str(tmp_path / "more")]
    assert main(extend) == 0
    before, after = load_checkpoint(depths), load_checkpoint(tmp_path / "more")
    for depth, heads in after.shallower.items():
        assert set(heads) == {"sentiment", "topic", "again"}
        old = before.shallower[depth]["topic"].state_dict()
        assert all(torch.equal(v, heads["topic"].state_dict()[k]) for k, v in old.items())


def test_a_task_that_is_taught_again_repeats_for_its_seed(
    checkpoint: Path, rows: Path, tmp_path: Path
) -> None:
    extend = ["train", "--extend", str(checkpoint), "--epochs", "1"]
    extend += ["--task", f"sentiment={rows}", "--task", f"topic={rows}", "--seed", "3"]
    for name in ("first", "second"):
        torch.manual_seed(len(name))  # what came before does not matter
        assert main([*extend, "--out", str(tmp_path / name)]) == 0
    assert same(tmp_path / "first", tmp_path / "second")
    parts = [m["part"] for m in load_checkpoint(tmp_path / "first").metrics]
    assert parts == ["sentiment@2", "topic@2"], "figures of what was replaced are gone"


def test_ten_steps_are_enough(tiny_backbone: Path, rows: Path, tmp_path: Path) -> None:
    more = ("--scenario", "full", "--epochs", "1", "--batch-size", "18")
    command_ = ["train", "--backbone", str(tiny_backbone), "--task", f"sentiment={rows}"]
    assert main([*command_, "--out", str(tmp_path / "out"), *more]) == 0
    assert load_checkpoint(tmp_path / "out").metrics[-1]["step"] == 5
    more = ("--scenario", "full", "--epochs", "2", "--batch-size", "18")
    assert main([*command_, "--out", str(tmp_path / "ten"), *more]) == 0
    assert load_checkpoint(tmp_path / "ten").metrics[-1]["step"] == 10


def test_what_cannot_learn_is_said_before_any_work(
    checkpoint: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    extend = ("train", "--extend", checkpoint, "--task", f"sentiment={rows}")
    out = ("--out", tmp_path / "out")
    learn = ("--scenario", "one-head", "--learn", "topic")
    assert "--learn topic: it has no rows" in fails(*extend, *out, *learn)
    assert "changes the backbone under task topic" in fails(*extend, *out, "--scenario", "full")
    both = (*extend, "--task", f"topic={rows}", *out, "--scenario", "full")
    assert "none is left" in fails(*both, "--freeze", "sentiment", "--freeze", "topic")
    assert not (tmp_path / "out").exists()


def test_losses_in_the_record_are_those_before_weighting(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    losses = []
    for weight in ("1", "1000"):
        out = tmp_path / weight
        more = ("--epochs", "1", "--scenario", "full", "--task-weight", f"topic={weight}")
        assert main(command(tiny_backbone, rows, out, *more)) == 0
        lines = {m["part"]: m for m in load_checkpoint(out).metrics}
        losses.append(lines["topic"]["train_loss"])
        report = load_checkpoint(out).report
        for task in ("sentiment", "topic"):
            chosen = report[task]["selection"]
            assert chosen["score"] == lines[task]["selection_score"]
    assert losses[1] < 10 * losses[0]


def test_accuracy_on_train_is_of_rows_from_all_over_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corpus, "TRAIN_ROWS_SCORED", 10)
    texts = tuple(f"text {i}" for i in range(100))
    rows = Rows(texts, ("a",) * 60 + ("b",) * 40, {"file": "sorted.csv"})
    task = build_task("t", rows, None, seed=0)
    targets = targets_of(task.task, task.train.labels)
    training = Labelled(task.task, range(len(task.train)), targets)
    sample = corpus.training_sample(training)
    assert np.bincount(sample.targets).tolist() == [6, 4]
    assert [task.train.labels[row] for row in sample.rows] == ["ab"[i] for i in sample.targets]


def test_baselines_are_taught_every_label_however_rare() -> None:
    labels = ["a"] * 5000 + ["b"] * 4 + ["c"] + ["a"] * 5000
    for seed in range(3):
        some = baselines.training_positions(labels, seed, 100)
        assert {labels[i] for i in some} == {"a", "b", "c"}
        assert [labels[i] for i in some].count("b") >= 3, "one for each fold"
        assert 100 <= len(some) <= 104
        assert some == sorted(set(some))
    assert baselines.training_positions(labels, 0, 10_005) == list(range(10_005))


def test_refitting_teaches_on_the_rows_that_chose_too(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    dev = ["--dev", f"sentiment={rows}", "--dev", f"topic={rows}", "--epochs", "2"]
    for name, more in (("plain", []), ("refitted", ["--refit"])):
        assert main([*command(tiny_backbone, rows, tmp_path / name), *dev, *more]) == 0
    plain, refitted = (load_checkpoint(tmp_path / name) for name in ("plain", "refitted"))
    assert refitted.tasks == plain.tasks, "temperatures are those that were chosen before"
    assert not same(tmp_path / "plain", tmp_path / "refitted")
    steps = {m["part"]: m["step"] for m in refitted.metrics}
    assert set(steps) == {"sentiment@2", "topic@2", "sentiment.refit@2", "topic.refit@2"}
    message = fails(*command(tiny_backbone, rows, tmp_path / "never", "--refit"))
    assert "give --dev for each task" in message
