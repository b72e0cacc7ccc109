"""Checkpoints: safetensors and JSON, verified before they are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl_edge.cli import main
from mtl_edge.errors import CheckpointError
from mtl_edge.io.folders import sha256_of
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import load_checkpoint, save_checkpoint

Fails = Callable[..., str]


def test_a_checkpoint_survives_saving_and_loading(checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(checkpoint)
    save_checkpoint(first, tmp_path / "copy")
    again = load_checkpoint(tmp_path / "copy")
    assert again.tasks == first.tasks
    assert again.samples == first.samples
    assert again.backbone.info == first.backbone.info
    for name, head in first.heads.items():
        for key, value in head.state_dict().items():
            assert torch.equal(value, again.heads[name].state_dict()[key])


def test_nothing_in_a_checkpoint_is_pickled(checkpoint: Path) -> None:
    files = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    assert {p.rpartition(".")[2] for p in files} <= {
        "json",
        "jsonl",
        "safetensors",
        "txt",
        "toml",
        "png",
    }


def test_training_leaves_the_backbone_as_it_was(checkpoint: Path, tiny_backbone: Path) -> None:
    before = load_backbone(str(tiny_backbone)).encoder.state_dict()
    after = load_checkpoint(checkpoint).backbone.encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_command_gives_the_same_heads(
    checkpoint: Path, tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    command = ["train", "--backbone", str(tiny_backbone), "--epochs", "3"]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert sha256_of(tmp_path / "again" / "heads.safetensors") == sha256_of(
        checkpoint / "heads.safetensors"
    )


def test_a_record_without_a_word_on_a_task_s_heads_goes_by_its_run(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.report["topic"]["refitted"] is False
    assert not loaded.refitted("topic")
    older = {k: v for k, v in loaded.report["topic"].items() if k != "refitted"}
    assert replace(loaded, report={"topic": older}, run={"refitted": True}).refitted("topic")
    assert not replace(loaded, report={"topic": older}, run={}).refitted("topic")
    assert not replace(loaded, run={"refitted": True}).refitted("topic")


def test_the_report_has_the_baselines_beside_the_head(checkpoint: Path) -> None:
    report = json.loads((checkpoint / "checkpoint.json").read_text())["report"]["topic"]
    assert report["reported"]["split"] == "selection"
    for kind in ("head", "mean_pooling", "bag_of_words"):
        assert 0 <= report[kind]["accuracy"] <= 1
        assert 0 <= report[kind]["macro_f1"] <= 1


@pytest.mark.parametrize(
    "name", ["heads.safetensors", "samples.jsonl", "backbone/model.safetensors"]
)
def test_an_altered_or_missing_file_is_found(
    checkpoint: Path, tmp_path: Path, name: str, fails: Fails
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file"):
        load_checkpoint(copy)
    (copy / name).unlink()
    assert "missing" in fails("export", copy, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}'])
def test_a_record_that_does_not_parse_is_refused(
    checkpoint: Path, tmp_path: Path, text: str
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match="train again"):
        load_checkpoint(copy)


def test_a_newer_checkpoint_says_to_upgrade(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "checkpoint.json").write_text('{"schema": 99}')
    with pytest.raises(CheckpointError, match="pip install -U"):
        load_checkpoint(copy)


def test_an_existing_folder_is_refused_before_any_work(
    checkpoint: Path, rows: Path, fails: Fails
) -> None:
    message = fails("train", "--task", f"sentiment={rows}", "--out", checkpoint)
    assert "exists; choose another --out or pass --overwrite" in message
