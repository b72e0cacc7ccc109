"""Every kind of encoder trains, exports to both engines and answers as torch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mtl_edge import EdgeClassifier
from mtl_edge.cli import main
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.model import logits_of
from tests.conftest import DEMO

pytestmark = pytest.mark.slow

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 30522,
    "initializer_range": 0.2,  # wide, so that answers differ from text to text
}
DISTILBERT = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 128,
    "vocab_size": 30522,
    "initializer_range": 0.2,
}
RELATIVE = {
    "relative_attention": True,
    "position_buckets": 16,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "albert": {**SIZES, "embedding_size": 32},
    "bert": SIZES,
    "deberta-v2": {**SIZES, **RELATIVE},
    "distilbert": DISTILBERT,
    "electra": {**SIZES, "embedding_size": 32},
    "modernbert": {**SIZES, "pad_token_id": 0},
    "mpnet": SIZES,
    "roberta": {**SIZES, "pad_token_id": 1, "max_position_embeddings": 130},
    "xlm-roberta": {**SIZES, "pad_token_id": 1, "max_position_embeddings": 130},
}
TARGETS = ("onnx-fp32", "onnx-int8", "openvino-int8")


def save_backbone(architecture: str, minilm: Path, folder: Path) -> None:
    """A tiny random encoder with MiniLM's tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(minilm)).save_pretrained(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_runs_the_whole_line(
    architecture: str, minilm: Path, rows: Path, tmp_path: Path
) -> None:
    save_backbone(architecture, minilm, tmp_path / "backbone")
    train = ["train", "--backbone", str(tmp_path / "backbone"), "--task", f"topic={rows}"]
    assert main([*train, "--epochs", "2", "--out", str(tmp_path / "checkpoint")]) == 0
    export = ["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "bundle")]
    assert main([*export, "--targets", ",".join(TARGETS)]) == 0
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    texts = [line.rpartition(",")[0] for line in (DEMO / "dev.csv").read_text().splitlines()[1:60]]
    texts.append("as long as it gets " * 40)
    ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)(texts)
    expected = logits_of(checkpoint.model(), ids)["topic"]
    spread = expected.std(0).max()
    for target in TARGETS:
        with EdgeClassifier.load(tmp_path / "bundle", target=target) as classifier:
            logits = classifier.logits(texts)["topic"]
        error = np.sqrt(((logits - expected) ** 2).mean())
        assert error < (1e-4 if target == "onnx-fp32" else 0.25 * spread), (target, error, spread)


def test_texts_as_long_as_the_positions_run(minilm: Path, rows: Path, tmp_path: Path) -> None:
    """RoBERTa's first positions are its padding's, so fewer tokens fit than it has positions."""
    config = AutoConfig.for_model("roberta", **ARCHITECTURES["roberta"])
    AutoModel.from_config(config).save_pretrained(tmp_path / "backbone")
    tokenizer = AutoTokenizer.from_pretrained(str(minilm))
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path / "backbone")
    train = ["train", "--backbone", str(tmp_path / "backbone"), "--task", f"topic={rows}"]
    command = [*train, "--epochs", "1", "--max-tokens", "512", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert load_checkpoint(tmp_path / "out").max_tokens == 128


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "modernbert", "albert"])
def test_an_encoder_is_cut_to_fewer_layers_or_refused_at_once(
    architecture: str, minilm: Path, rows: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    save_backbone(architecture, minilm, tmp_path / "backbone")
    command = ["train", "--backbone", str(tmp_path / "backbone"), "--task", f"topic={rows}"]
    command += ["--depth", "1", "--epochs", "1", "--out", str(tmp_path / "out")]
    if architecture in ("modernbert", "albert"):
        assert f"({architecture})" in fails(*command)
        assert not list(tmp_path.glob("out*"))
    else:
        assert main(command) == 0
        assert load_checkpoint(tmp_path / "out").model().encoder.config.num_hidden_layers == 1
