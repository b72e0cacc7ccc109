"""What is said to be frozen does not change by a bit, and what learns does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mtl_edge import EdgeClassifier
from mtl_edge.cli import main
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.io.labelled import read_rows
from mtl_edge.training import states
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.data import TaskData, build_task
from mtl_edge.training.heads import HEADS
from mtl_edge.training.model import states_of
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.run import baseline_answers, train
from mtl_edge.training.scenarios import SCENARIOS, learning_of

Fails = Callable[..., str]
RECIPE = Recipe(epochs=1, backbone_learning_rate=1e-3)


@pytest.fixture(scope="module")
def tasks(rows: Path) -> list[TaskData]:
    return [
        build_task(name, read_rows(name, rows), None, seed=0) for name in ("sentiment", "topic")
    ]


@pytest.fixture
def start(checkpoint: Path) -> Checkpoint:
    return load_checkpoint(checkpoint)


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    """Names of the weights, buffers included, that are not the same to the bit."""
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def run(
    tasks: list[TaskData], start: Checkpoint, scenario: str, **options: object
) -> tuple[set[str], set[str]]:
    """Heads that changed, and the encoder's weights that changed."""
    given = TrainOptions(scenario=scenario, recipe=RECIPE, baselines=False, **options)  # type: ignore[arg-type]
    after = train(tasks, start.backbone, given, start)
    heads = {name for name in start.heads if changed(start.heads[name], after.heads[name])}
    for name in heads:
        assert len(changed(start.heads[name], after.heads[name])) == len(
            start.heads[name].state_dict()
        ), "a head that learns learns whole"
    return heads, changed(start.backbone.encoder, after.backbone.encoder)


def test_frozen_changes_nothing(tasks: list[TaskData], start: Checkpoint) -> None:
    assert run(tasks, start, "frozen") == (set(), set())


def test_heads_leaves_the_backbone(tasks: list[TaskData], start: Checkpoint) -> None:
    assert run(tasks, start, "heads") == ({"sentiment", "topic"}, set())


def test_one_head_leaves_the_other(tasks: list[TaskData], start: Checkpoint) -> None:
    assert run(tasks, start, "one-head", learn=["topic"]) == ({"topic"}, set())


def test_freeze_takes_parts_out_of_any_scenario(tasks: list[TaskData], start: Checkpoint) -> None:
    assert run(tasks, start, "full", freeze=["backbone"]) == ({"sentiment", "topic"}, set())
    assert run(tasks, start, "heads", freeze=["topic"]) == ({"sentiment"}, set())


def test_full_changes_every_weight_that_is_used(tasks: list[TaskData], start: Checkpoint) -> None:
    heads, encoder = run(tasks, start, "full")
    assert heads == {"sentiment", "topic"}
    weights = set(start.backbone.encoder.state_dict())
    # Adding one number to all of a row's scores changes no softmax: key biases get no gradient.
    indifferent = {w for w in weights if w.endswith("key.bias") or w.startswith("pooler.")}
    assert weights - indifferent <= encoder
    assert not any(w.startswith("pooler.") for w in encoder)


def test_full_one_head_leaves_the_other_head_to_the_bit(
    tasks: list[TaskData], start: Checkpoint
) -> None:
    heads, encoder = run(tasks, start, "full-one-head", learn=["sentiment"])
    assert heads == {"sentiment"}
    assert encoder


def test_top_layers_leaves_what_is_below(tasks: list[TaskData], start: Checkpoint) -> None:
    heads, encoder = run(tasks, start, "top-layers", top_layers=1)
    assert heads == {"sentiment", "topic"}
    assert encoder
    assert all(name.startswith("encoder.layer.1.") for name in encoder)


def test_lora_changes_the_layers_matrices_alone(tasks: list[TaskData], start: Checkpoint) -> None:
    heads, encoder = run(tasks, start, "lora")
    assert heads == {"sentiment", "topic"}
    matrices = {
        name
        for name in start.backbone.encoder.state_dict()
        if name.startswith("encoder.layer.") and name.endswith("weight") and "LayerNorm" not in name
    }
    assert encoder == matrices


def test_dropout_is_off_in_what_is_frozen(
    tasks: list[TaskData], start: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[str, bool]] = set()
    encoder_layers = {id(m): f"layer.{i}" for i, m in enumerate(_layers(start))}
    forward = torch.nn.Dropout.forward

    def watch(self: torch.nn.Dropout, value: torch.Tensor) -> torch.Tensor:
        seen.add((getattr(self, "owner", "elsewhere"), self.training))
        return forward(self, value)

    for module in start.backbone.encoder.modules():
        if id(module) in encoder_layers:
            for part in module.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.owner = encoder_layers[id(module)]  # type: ignore[assignment]
    monkeypatch.setattr(torch.nn.Dropout, "forward", watch)
    run(tasks, start, "top-layers", top_layers=1)
    assert ("layer.0", True) not in seen
    assert ("layer.1", True) in seen


def _layers(start: Checkpoint) -> list[torch.nn.Module]:
    return list(start.backbone.encoder.encoder.layer)


def test_what_learned_is_in_the_checkpoint_s_record(
    tasks: list[TaskData], start: Checkpoint
) -> None:
    def learned(scenario: str, **options: object) -> int:
        given = TrainOptions(scenario=scenario, recipe=RECIPE, baselines=False, **options)  # type: ignore[arg-type]
        return int(train(tasks, start.backbone, given, start).run["parameters_that_learned"])

    heads = {n: sum(p.numel() for p in h.parameters()) for n, h in start.heads.items()}
    encoder = sum(p.numel() for p in start.backbone.encoder.parameters())
    assert learned("frozen") == 0
    assert learned("one-head", learn=["topic"]) == heads["topic"]
    assert learned("full") == sum(heads.values()) + encoder
    assert sum(heads.values()) < learned("lora") < sum(heads.values()) + encoder / 10


def test_a_tuned_backbone_has_a_name_and_a_checksum_of_its_own(
    tasks: list[TaskData], start: Checkpoint
) -> None:
    given = TrainOptions(scenario="full", recipe=RECIPE, baselines=False)
    after = train(tasks, start.backbone, given, start)
    assert after.backbone.info.name == f"{start.backbone.info.name}, fine-tuned (full)"
    assert after.backbone.info.sha256 != start.backbone.info.sha256


def test_a_scenario_needs_names_that_exist() -> None:
    assert set(SCENARIOS) >= {"frozen", "heads", "one-head", "full", "top-layers", "lora"}
    for scenario, options, message in (
        ("thaw", {}, "there are frozen, heads"),
        ("one-head", {}, "needs --learn TASK; there are a, b"),
        ("one-head", {"learn": ["c"]}, "unknown; there are a, b"),
        ("heads", {"learn": ["a"]}, "goes with --scenario one-head"),
        ("heads", {"freeze": ["encoder"]}, "there are a, b, backbone"),
    ):
        with pytest.raises(OptionError, match=message):
            learning_of(scenario, ["a", "b"], **options)  # type: ignore[arg-type]


def test_a_third_head_leaves_the_first_two_to_the_bit(
    checkpoint: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = rows.read_text().replace("text,sentiment,topic", "text,unused,third")
    (tmp_path / "third.csv").write_text(frame)

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(states.TorchEncoder, "encode", never)
    command = ["train", "--extend", str(checkpoint), "--task", f"third={tmp_path}/third.csv"]
    assert main([*command, "--epochs", "1", "--out", str(tmp_path / "out")]) == 0
    before, after = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "out")
    assert [task.name for task in after.tasks] == ["sentiment", "topic", "third"]
    assert after.tasks[:2] == before.tasks
    assert {name: changed(before.heads[name], after.heads[name]) for name in before.heads} == {
        "sentiment": set(),
        "topic": set(),
    }
    assert not changed(before.backbone.encoder, after.backbone.encoder)
    assert set(after.report) == {"sentiment", "topic", "third"}


@pytest.mark.parametrize(("scenario", "depth"), [("heads", 0), ("heads", 1), ("full", 1)])
def test_the_usual_recipe_reads_the_last_layer_of_the_model_that_ships(
    tiny_backbone: Path, tasks: list[TaskData], scenario: str, depth: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    read: list[np.ndarray] = []

    def kept(taught: np.ndarray, labels: list[str], asked: np.ndarray) -> list[str]:
        read.append(asked)
        return labels[:1] * len(asked)

    monkeypatch.setattr(baseline_answers, "mean_pooling", kept)
    options = TrainOptions(scenario=scenario, depth=depth, recipe=RECIPE)
    after = train(tasks[:1], load_backbone(str(tiny_backbone)), options)
    texts = tasks[0].report[1].texts
    for text, found in zip(texts[:3], read[0], strict=False):
        ids = torch.tensor([after.backbone.text_encoder(128)([text])[0]])
        last = states_of(after.backbone.encoder, ids, torch.ones_like(ids))[-1]
        # States of a frozen backbone may be of bfloat16 products.
        np.testing.assert_allclose(found, last[0].mean(0).numpy(), atol=0.03)


def test_whether_heads_saw_the_selection_rows_is_kept_by_task(
    tasks: list[TaskData], start: Checkpoint
) -> None:
    def extended(start: Checkpoint, names: list[str], **given: object) -> Checkpoint:
        some = [
            replace(tasks[1], task=replace(tasks[1].task, name=name), dev=tasks[1].validation)
            for name in names
        ]
        options = TrainOptions(recipe=RECIPE, baselines=False, **given)  # type: ignore[arg-type]
        return train(some, start.backbone, options, start)

    def told(of: Checkpoint) -> dict[str, bool]:
        return {task.name: of.refitted(task.name) for task in of.tasks}

    first = extended(start, ["new"], refit=True)
    assert told(first) == {"sentiment": False, "topic": False, "new": True}
    second = extended(first, ["newer"])
    assert told(second) == {"sentiment": False, "topic": False, "new": True, "newer": False}
    assert told(extended(second, ["new", "topic"])) == told(second), "heads go on from those"
    frozen = extended(start, ["topic", "newest"], refit=True, freeze=["topic"])
    assert told(frozen) == {"sentiment": False, "topic": False, "newest": True}


def test_what_a_checkpoint_has_decided_is_not_decided_again(
    checkpoint: Path, tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    extend = ["train", "--extend", str(checkpoint), "--out", str(tmp_path / "out")]
    extend += ["--epochs", "1", "--task", f"topic={rows}"]
    assert f"checkpoint's is '{tiny_backbone}'" in fails(*extend, "--backbone", "minilm")
    assert "was taught with 128" in fails(*extend, "--max-tokens", "64")
    assert "head of task 'topic' is attention" in fails(*extend, "--head", "mlp")
    assert "may have seen them; train it anew" in fails(*extend, "--abstain", "0.9")
    assert not (tmp_path / "out").exists()
    extend += ["--backbone", str(tiny_backbone), "--max-tokens", "128", "--abstain", "0.9"]
    extend[extend.index(f"topic={rows}")] = f"new={rows}"
    extend += ["--label-column", "topic", "--head", "new=linear"]
    assert main(extend) == 0, "what is the same may be said, and a new task may have its own"
    assert load_checkpoint(tmp_path / "out").heads["new"].config.kind == "linear"


def test_other_labels_than_the_checkpoint_s_are_refused(
    tasks: list[TaskData], start: Checkpoint
) -> None:
    other = replace(tasks[0], task=replace(tasks[0].task, labels=("bad", "good")))
    with pytest.raises(CheckpointError, match=r"labels bad, good in .* and negative, positive in"):
        train([other], start.backbone, TrainOptions(), start)


@pytest.mark.parametrize("depth", [0, 1])
def test_fewer_layers_train_and_export(
    tiny_backbone: Path, rows: Path, tmp_path: Path, depth: int
) -> None:
    train_command = ["train", "--backbone", str(tiny_backbone), "--depth", str(depth)]
    train_command += ["--task", f"topic={rows}", "--epochs", "1", "--out", str(tmp_path / "c")]
    assert main(train_command) == 0
    targets = "onnx-int8,openvino-int8,onnx-fp32"
    export = ["export", str(tmp_path / "c"), "--out", str(tmp_path / "b"), "--targets", targets]
    assert main(export) == 0
    with EdgeClassifier.load(tmp_path / "b") as classifier:
        assert classifier.manifest.depth == depth
        assert classifier.manifest.backbone.layers == 2
    graph = onnx.load(tmp_path / "b" / "model.int8.onnx").graph
    words = [c for c in graph.initializer if list(c.dims)[:1] == [30522] and c.dims[1] > 1]
    assert [c.data_type for c in words] == [onnx.TensorProto.INT8]
    assert sum(n.op_type == "QAttention" for n in graph.node) == depth
    extend = ["train", "--extend", str(tmp_path / "c"), "--task", f"again={rows}"]
    extend += ["--label-column", "topic", "--epochs", "1", "--out", str(tmp_path / "extended")]
    assert main(extend) == 0
    assert load_checkpoint(tmp_path / "extended").depth == depth


def test_a_depth_that_is_not_there_is_refused(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    command = (
        "train",
        "--backbone",
        tiny_backbone,
        "--task",
        f"topic={rows}",
        "--out",
        tmp_path / "c",
    )
    assert "layers 0 to 2" in fails(*command, "--depth", "3")
    assert "layers 0 to 2" in fails(*command, "--depth", "-1")
    assert "there are attention" in fails(*command, "--head", "perceptron")
    assert "linear and mlp" in fails(*command, "--head", "attention:cls")
    assert "no task 'mood'" in fails(*command, "--head", "mood=mlp")


SPECS = [*HEADS, "linear:cls", "mlp:max"]


def test_every_kind_of_head_exports_and_equals_torch(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    command = ["train", "--backbone", str(tiny_backbone), "--epochs", "1"]
    command += ["--label-column", "topic", "--out", str(tmp_path / "c")]
    for number, spec in enumerate(SPECS):
        command += ["--task", f"t{number}={rows}", "--head", f"t{number}={spec}"]
    assert main(command) == 0
    targets = "onnx-int8,openvino-int8,onnx-fp32"
    export = ["export", str(tmp_path / "c"), "--out", str(tmp_path / "b"), "--targets", targets]
    assert main(export) == 0, "export compares every graph with torch, fp32 to 1e-4"
    with EdgeClassifier.load(tmp_path / "b") as classifier:
        probabilities = classifier.predict_proba(["one text", "another and longer text"])
    assert all(np.isfinite(p).all() and p.shape == (2, 4) for p in probabilities.values())
