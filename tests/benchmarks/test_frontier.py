"""Depths and engines are measured side by side, and the best of them marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mtl_edge.benchmarks.frontier import _beats
from mtl_edge.cli import main


def test_every_depth_and_target_is_measured(
    tiny_backbone: Path, rows: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "frontier"
    train = ["train", "--backbone", str(tiny_backbone), "--all-depths", "--epochs", "1"]
    assert main([*train, "--task", f"topic={rows}", "--out", str(checkpoint)]) == 0
    command = ["frontier", str(checkpoint), "--targets", "onnx-int8", "--out", str(out)]
    assert main(command) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "frontier.json",
        "frontier.md",
        "frontier.png",
    ]
    figures = json.loads((out / "frontier.json").read_text())
    points = figures["points"]
    assert [point["depth"] for point in points] == [0, 1, 2]
    sizes = [point["bytes"] for point in points]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert all(point["latency_ms"]["1x32"]["median"] > 0 for point in points)
    assert any(point["on_the_frontier"] for point in points)
    assert "exists; choose another" in fails(*command)
    assert "unknown; there are" in fails(*command[:2], "--targets", "x", "--out", tmp_path / "y")


def test_a_point_is_beaten_by_one_that_is_nowhere_worse() -> None:
    def point(accuracy: float, ms: float) -> dict[str, object]:
        return {"tasks": {"t": {"accuracy": accuracy}}, "latency_ms": {"1x32": {"median": ms}}}

    assert _beats(point(0.9, 1.0), point(0.8, 1.0))
    assert _beats(point(0.9, 1.0), point(0.9, 2.0))
    assert not _beats(point(0.9, 1.0), point(0.9, 1.0))
    assert not _beats(point(0.9, 2.0), point(0.8, 1.0))
