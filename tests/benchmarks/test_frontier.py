"""Depths and engines are measured side by side, and the best of them marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtl_edge.benchmarks.core.command import new_record
from mtl_edge.benchmarks.core.measure import ALL, ONE, rounds_of
from mtl_edge.benchmarks.core.record import Estimate, Score, Scores, SystemInfo
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.frontier import best
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
        "frontier.html",
        "frontier.json",
        "frontier.md",
        "frontier.png",
    ]
    record = read_record(out / "frontier.json")
    assert record.timed == [f"onnx-int8 depth {depth}" for depth in range(3)]
    sizes = [system.bytes for system in record.systems]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert [rounds.name for rounds in record.rounds] == ["1x32", "32x32", ONE, ALL]
    assert all(time.median > 0 for r in record.rounds for time in r.times.values())
    (scores,) = record.scores
    assert {*record.timed, "usual recipe", "bag of words"} <= set(scores.models)
    assert set(best(record)) <= set(record.timed)
    assert best(record)
    assert "exists; choose another" in fails(*command)
    assert "unknown; there are" in fails(*command[:2], "--targets", "x", "--out", tmp_path / "y")


def test_a_point_is_beaten_by_one_that_is_nowhere_worse() -> None:
    def found(**points: tuple[float, float]) -> list[str]:
        scores = {name: Score(Estimate(accuracy)) for name, (accuracy, _) in points.items()}
        times = {name: [ms] * 3 for name, (_, ms) in points.items()}
        record = new_record(
            "frontier", "", 1, 0.0,
            systems=[SystemInfo(name, "", "", 1) for name in points],
            scores=[Scores("t", "", "", 1, "now", scores)],
            rounds=[rounds_of("1x32", times, texts=1, tokens=32)],
        )  # fmt: skip
        return best(record)

    assert found(a=(0.9, 1.0), b=(0.8, 1.0)) == ["a"]
    assert found(a=(0.9, 1.0), b=(0.9, 2.0)) == ["a"]
    assert found(a=(0.9, 1.0), b=(0.9, 1.0)) == ["a", "b"]
    assert found(a=(0.9, 2.0), b=(0.8, 1.0)) == ["a", "b"]
