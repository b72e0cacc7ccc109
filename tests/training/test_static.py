"""Depth 0: a table of the tokens' own vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl_edge import EdgeClassifier
from mtl_edge.batches.planning import pad
from mtl_edge.cli import main
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import load_checkpoint, save_checkpoint
from mtl_edge.training.heads import build_head, head_config
from mtl_edge.training.model import states_of
from mtl_edge.training.states import StateCache
from mtl_edge.training.static import WIDTH, StaticEncoder, distilled


def test_a_token_has_one_vector_wherever_it_stands(tiny_backbone: Path) -> None:
    backbone = load_backbone(str(tiny_backbone)).truncated(0)
    ids, mask = (torch.from_numpy(array) for array in pad([[2, 7, 8, 3], [2, 8, 3]]))
    (states,) = states_of(backbone.encoder, ids, mask)
    assert torch.equal(states[0, 2], states[1, 1])
    assert not torch.equal(states[0, 1], states[0, 2])
    assert states.shape[2] == backbone.width


def test_vectors_are_principal_directions_of_the_embedding_layer(tiny_backbone: Path) -> None:
    backbone = load_backbone(str(tiny_backbone))
    encoder = backbone.encoder
    ids = torch.arange(backbone.info.vocabulary).unsqueeze(1)
    with torch.no_grad():
        embeddings = encoder.embeddings(input_ids=ids)[:, 0].double()
    embeddings = embeddings - embeddings.mean(0)
    cut = backbone.truncated(0).encoder
    assert isinstance(cut, StaticEncoder)
    # All directions kept: distances between tokens are the layer's own, up to one factor.
    some = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:50]
    wanted, found = (torch.cdist(v[some], v[some]) for v in (embeddings, cut.vectors.double()))
    torch.testing.assert_close(found / found.max(), wanted / wanted.max(), rtol=1e-4, atol=1e-4)
    # The first few: the variance that they carry is the largest there is.
    layerless = backbone.truncated(1).encoder
    del layerless.encoder.layer[:]
    few = distilled(layerless, backbone.info.vocabulary, 8).vectors.double()
    shares = few.var(0) / few.var(0).sum()
    largest = torch.linalg.svdvals(embeddings)[:8] ** 2
    torch.testing.assert_close(shares, largest / largest.sum(), rtol=1e-3, atol=1e-5)


def test_the_table_is_the_same_each_time_it_is_made(tiny_backbone: Path) -> None:
    first, second = (load_backbone(str(tiny_backbone)).truncated(0).vectors for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


def test_wide_backbones_are_brought_to_one_width() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(500, 300)

    class Embeddings(torch.nn.Module):
        config = StaticEncoder.config_class()

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(vectors)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):  # type: ignore[no-untyped-def]
            return type("Output", (), {"last_hidden_state": vectors[input_ids]})

    table = distilled(Embeddings(), 500).vectors  # type: ignore[arg-type]
    assert table.shape == (500, WIDTH)
    assert table.std().item() == pytest.approx(1, abs=1e-3)


def test_heads_without_layers_are_taught_what_they_will_read(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_backbone))
    ids = [[2, 5, 9, 3], [2, 6, 3]]
    states = StateCache(tmp_path, 10**9).states(backbone, ids, without_layers=True)
    (first,), mask, tokens = states.batch([0, 1], states=1)
    assert torch.equal(first, states_of(backbone.truncated(0).encoder, tokens, mask)[0])
    deep, _, _ = states.batch([0, 1])
    assert not torch.equal(deep[0], first)
    (again,) = states.layers_read_by(1, deep, tokens)
    assert torch.equal(again, first)


def test_a_checkpoint_of_depth_0_holds_its_table_alone(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    out, bundle = tmp_path / "checkpoint", tmp_path / "bundle"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "1"]
    assert main([*command, "--task", f"sentiment={rows}", "--depth", "0"]) == 0
    kept = load_checkpoint(out)
    fresh = load_backbone(str(tiny_backbone)).truncated(0).vectors
    assert kept.backbone.vectors is not None
    assert fresh is not None
    torch.testing.assert_close(kept.backbone.vectors, fresh)
    size = (out / "backbone" / "model.safetensors").stat().st_size
    assert size < 4 * fresh.numel() + 1000
    assert main(["export", str(out), "--out", str(bundle)]) == 0
    with EdgeClassifier.load(bundle) as classifier:
        assert classifier.predict("a fine film").depth == 0


def test_a_table_that_learns_is_kept_as_it_learned(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "1"]
    command += ["--task", f"sentiment={rows}", "--depth", "0", "--scenario", "full"]
    assert main([*command, "--backbone-learning-rate", "0.01"]) == 0
    kept = load_checkpoint(out).backbone.vectors
    fresh = load_backbone(str(tiny_backbone)).truncated(0).vectors
    assert kept is not None
    assert fresh is not None
    assert not torch.allclose(kept, fresh, atol=1e-3)


def test_the_first_tokens_state_is_no_answer_without_layers() -> None:
    with pytest.raises(OptionError, match="linear:mean"):
        head_config("linear:cls", states=1, width=64, labels=2)


def test_a_checkpoint_whose_depth_0_was_another_is_refused(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "1"]
    assert main([*command, "--task", f"sentiment={rows}", "--depth", "0"]) == 0
    loaded = load_checkpoint(out)
    config = replace(loaded.heads["sentiment"].config, width=loaded.backbone.width + 1)
    former = replace(loaded, heads={"sentiment": build_head(config)})
    save_checkpoint(former, out, overwrite=True)
    with pytest.raises(CheckpointError, match="train again"):
        load_checkpoint(out)
