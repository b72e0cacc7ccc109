"""Benchmarks: fair rounds, honest columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.cli import main
from mtl_edge.timing import Timing, alternate
from tests.conftest import DEMO

Fails = Callable[..., str]


def test_rounds_alternate_after_a_warm_up() -> None:
    calls: list[str] = []
    times = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=5)  # type: ignore[misc]
    assert calls[:6] == list("aaabbb")
    assert calls[6:] == list("aabb") * 5
    assert {len(t.rounds) for t in times.values()} == {5}


def test_a_slow_call_stops_after_three_rounds_when_time_is_up() -> None:
    assert len(alternate({"a": lambda: None}, rounds=100, seconds=0)["a"].rounds) == 3


def test_ratios_are_taken_round_by_round() -> None:
    ours, theirs = Timing((1.0, 2.0, 4.0)), Timing((3.0, 6.0, 12.0))
    assert ours.ratio_of(theirs) == (3.0, 3.0, 3.0)
    assert theirs.median == 6.0


def test_bench_prints_every_graph_beside_torch(
    shared_bundle: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mtl_edge.benchmarks.command.ROUNDS", 3)
    command = ["bench", str(shared_bundle), "--checkpoint", str(checkpoint)]
    command += ["--data", f"topic={DEMO}/dev.csv", "--json", str(tmp_path / "figures.json")]
    assert main(command) == 0
    table = capsys.readouterr().out
    for name in ("torch fp32", "onnx-int8", "openvino-int8", "onnx-fp32", "bag of words"):
        assert any(line.startswith(name) for line in table.splitlines()), table
    figures = json.loads((tmp_path / "figures.json").read_text())
    scores = figures["scores"]["topic"]["models"]
    assert scores["torch fp32"]["agreement"] == 1
    assert scores["onnx-fp32"] == scores["torch fp32"]
    assert figures["scores"]["sentiment"]["measured"] == "at export"
    assert figures["latency_ms"]["1x32"]["torch fp32"]["times_as_fast_as_first"] == [1, 1, 1]
    assert figures["latency_ms"]["32x32"]["onnx-int8"]["median"] > 0
    assert figures["machine"]["versions"]["onnxruntime"]


def test_mistakes_are_named(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, fails: Fails
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,food\nb,unheard\n")
    bench = ("bench", shared_bundle)
    assert "'unheard', which task 'topic' does not know" in fails(
        *bench, "--data", f"topic={tmp_path}/rows.csv"
    )
    assert "no such task" in fails(*bench, "--data", f"other={tmp_path}/rows.csv")
    assert "threads is 0" in fails(*bench, "--threads", "0")
    assert "mtl-edge train" in fails(*bench, "--checkpoint", tmp_path)
