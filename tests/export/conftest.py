"""What tests of export share, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_edge.cli import main


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> Path:
    """A checkpoint of depths 0, 1 and 2, with what early exits can be fitted on."""
    out = tmp_path_factory.mktemp("staged") / "checkpoint"
    command = ["train", "--backbone", str(tiny_backbone), "--out", str(out), "--epochs", "3"]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    assert main([*command, "--exits", "0,1", "--exit-folds", "2"]) == 0
    return out
