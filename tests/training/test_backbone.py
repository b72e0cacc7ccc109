"""Backbones: found and verified, or refused with the ways out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.errors import BackboneError
from mtl_edge.training.backbone import find, load_backbone

Fails = Callable[..., str]


def test_sizes_come_from_the_architecture_s_own_names(tiny_backbone: Path) -> None:
    loaded = load_backbone(str(tiny_backbone))
    assert (loaded.info.hidden_size, loaded.info.layers, loaded.heads) == (64, 2, 4)
    assert loaded.info.architecture == "bert"
    assert loaded.max_tokens == 512
    assert not any(p.requires_grad for p in loaded.encoder.parameters())


def test_a_packaged_backbone_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = find.PACKAGED["minilm"]
    altered = find.Packaged(entry.package, entry.folder, "0" * 64)
    monkeypatch.setitem(find.PACKAGED, "minilm", altered)
    with pytest.raises(BackboneError, match=f"expected {'0' * 64}; reinstall"):
        load_backbone("minilm")


def test_a_hub_name_out_of_reach_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, fails: Fails, rows: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    message = fails("train", "--task", f"sentiment={rows}", "--out", tmp_path / "out")
    assert "'distilbert-base-uncased' is no local folder and cannot be fetched" in message
    for way_out in ("check the name", "--local-dir FOLDER", "--backbone FOLDER", "minilm"):
        assert way_out in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "no/such/folder/at/all", "bad name!"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(BackboneError):
        load_backbone(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no config\.json"):
        load_backbone(str(tmp_path))


def test_pickled_weights_are_never_loaded(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_backbone, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="pickled weights are never loaded"):
        load_backbone(str(folder))


def test_weights_cut_short_or_of_another_size_are_refused(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_backbone, tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(folder))
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(BackboneError, match="lacks weights"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "not supported"),
        ({"model_type": "vits"}, "not supported"),
        ({"model_type": "made-up"}, "made-up"),
    ],
)
def test_what_is_no_text_encoder_is_refused_by_name(
    tiny_backbone: Path, tmp_path: Path, config: dict[str, str], message: str
) -> None:
    folder = shutil.copytree(tiny_backbone, tmp_path / "other")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=message):
        load_backbone(str(folder))
