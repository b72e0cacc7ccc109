"""The study: every scenario a row, every claim a column."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.cli import main
from mtl_edge.training import study as study_module


def test_the_study_writes_table_json_and_picture(
    tiny_backbone: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "--backbone", str(tiny_backbone), "--epochs", "1", "--seeds", "2"]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    command += ["--scenarios", "frozen,heads,one-head,full-one-head", "--abstain", "0.9"]
    assert main([*command, "--out", str(tmp_path / "study")]) == 0
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    found = [(row["scenario"], row["learned"]) for row in record["rows"]]
    assert found == [
        ("frozen", []),
        ("heads", ["sentiment", "topic"]),
        ("one-head", ["sentiment"]),
        ("one-head", ["topic"]),
        ("full-one-head", ["sentiment"]),
        ("full-one-head", ["topic"]),
    ]
    frozen, heads, one = record["rows"][:3]
    assert frozen["parameters"] == 0
    assert frozen["before"] == frozen["score"], "nothing learned, nothing changed"
    assert one["before"] == heads["score"], "one-head goes on from heads"
    assert one["score"]["topic"] == one["before"]["topic"], "the frozen task stays"
    assert len(heads["score"]["topic"]) == 2
    assert (tmp_path / "study" / "study.png").stat().st_size > 5000
    table = (tmp_path / "study" / "study.md").read_text()
    assert table.count("| full-one-head") == 2
    assert "one-head" in capsys.readouterr().out


def test_an_unknown_scenario_is_named(
    rows: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    command = ("study", "--task", f"topic={rows}", "--out", tmp_path / "out")
    assert "there are frozen, heads" in fails(*command, "--scenarios", "thaw")
    assert "--seeds is 0" in fails(*command, "--seeds", "0")


def test_what_some_scenario_cannot_do_is_refused_before_any_runs(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def never(*_: object, **__: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr(study_module, "train", never)
    command = ("study", "--backbone", tiny_backbone, "--out", tmp_path / "out")
    command += ("--task", f"topic={rows}", "--dev", f"topic={rows}")
    assert "backbone learns in full, full-one-head" in fails(*command, "--refit")
    assert "--all-depths goes with" in fails(*command, "--all-depths")
