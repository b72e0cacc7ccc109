"""What tests share: a tiny backbone, a checkpoint and a bundle made from it, and real data."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from mtl_edge.cli import main
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import save
from mtl_edge.training.drawing import drawn

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "training" / "demo"
REAL = ROOT.parent / "shared" / "data"

# Files that take longest: where processes share the tests, they begin with these.
LONGEST = ("test_whole_line", "test_export", "test_guest", "test_staged_bundle", "test_homes",
           "test_architectures", "test_runtime_figures", "test_predict_files")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="SST-2 and AG News are not here")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share a cache of encoder states, and leave the user's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _threads_of_torch() -> Iterator[None]:
    """Torch has one number of threads for the process: what a test sets is put back."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _without_pictures() -> Iterator[None]:
    """Checkpoints are saved without pictures, which take a third of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "drawn", lambda *_: True)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are saved with their pictures all the same."""
    monkeypatch.setattr(save, "drawn", drawn)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The packaged backbone's folder."""
    return load_backbone("minilm").folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A random BERT of two layers, small enough to train and export in seconds."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(minilm)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred rows of the demo data."""
    file = tmp_path_factory.mktemp("data") / "rows.csv"
    with (DEMO / "train.csv").open(newline="") as source, file.open("w", newline="") as out:
        reader = csv.reader(source)
        csv.writer(out).writerows(row for _, row in zip(range(101), reader, strict=False))
    return file


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    """Two heads on the tiny backbone."""
    out = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "3"]
    assert main([*command, "--task", f"sentiment={rows}", "--task", f"topic={rows}"]) == 0
    return out


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A bundle with every target; for tests that only read it."""
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    targets = "onnx-int8,openvino-int8,onnx-fp32"
    assert main(["export", str(checkpoint), "--out", str(out), "--targets", targets]) == 0
    return out


@pytest.fixture(scope="session")
def smaller_bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, rows: Path) -> Path:
    """A bundle whose word tables are trimmed and in four bits; for tests that only read it."""
    out = tmp_path_factory.mktemp("smaller") / "bundle"
    command = ["export", str(checkpoint), "--out", str(out), "--vocabulary", str(rows)]
    assert main([*command, "--embeddings", "4bit"]) == 0
    return out


@pytest.fixture
def bundle(shared_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail as documented; returns its one line."""

    def run(*command: str | Path) -> str:
        capsys.readouterr()
        assert main([str(part) for part in command]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("mtl-edge: ")]
        assert len(lines) == 1, err
        assert err.splitlines()[-1] == lines[0], "the error is the last thing said"
        assert out == ""
        return lines[0]

    return run
