"""Pictures: any label is drawn as it is, and one that cannot be drawn costs nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_edge.benchmarks.core.pictures import Picture, png, svg
from mtl_edge.bundle import Task
from mtl_edge.cli import main
from mtl_edge.training import study
from mtl_edge.training.checkpoint import load_checkpoint, save
from mtl_edge.training.drawing import MOST_DOTS, drawn, style, without_formulas
from mtl_edge.training.figures import draw_errors

ODD = ("$", "$$", "$$$", r"\frac{$", "喜欢", "😀", "سعيد", "_a_b_", "x" * 900, "a\nb")


def written(file: Path, labels: Sequence[str]) -> Path:
    """Eight texts of each label."""
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = [(f"text {number} of {label}", label) for label in labels for number in range(8)]
        csv.writer(out).writerows([("text", "label"), *rows])
    return file


def texts_of(figure: Any) -> list[str]:
    (axis,) = figure.axes
    return [text.get_text() for text in axis.get_yticklabels()]


def confusion(labels: Sequence[str], name: str = "task") -> Any:
    found = {
        "confusion": np.eye(len(labels), dtype=int).tolist(),
        "reported": {"split": "dev"},
        "head": {"accuracy": 1.0},
    }
    return draw_errors([Task(name, tuple(labels), 1.0, ())], {name: found})


def failing(*_: object) -> None:
    raise RuntimeError("no ink\nleft")


@pytest.fixture
def train(tiny_backbone: Path, tmp_path: Path) -> list[str]:
    """A command on labels that look like formulas."""
    data = written(tmp_path / "rows.csv", ["$", "$$", "$$$"])
    return ["train", "--backbone", str(tiny_backbone), "--epochs", "1", "--task", f"price={data}"]


@pytest.mark.usefixtures("pictures")
def test_labels_that_look_like_formulas_are_learned_and_drawn(
    train: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    assert main([*train, "--out", str(out)]) == 0
    listed = {entry["path"] for entry in json.loads((out / "checkpoint.json").read_text())["files"]}
    assert not [name for name in listed if name.endswith(".png")], "they may be lost"
    for picture in ("confusion.png", "curves.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("pictures")
def test_a_picture_that_fails_costs_no_checkpoint(
    train: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(save, "draw_errors", failing)
    out = tmp_path / "checkpoint"
    assert main([*train, "--out", str(out)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert notes == ["note: confusion.png was not drawn: no ink left"]
    assert not (out / "confusion.png").exists()
    assert (out / "curves.png").is_file()
    assert load_checkpoint(out).tasks[0].labels == ("$", "$$", "$$$")


@pytest.mark.usefixtures("pictures")
def test_what_was_learned_is_there_when_drawing_begins(
    train: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = tmp_path / "checkpoint", []
    monkeypatch.setattr(save, "draw_curves", lambda _: found.append(load_checkpoint(out)))
    assert main([*train, "--out", str(out)]) == 0
    assert [checkpoint.tasks[0].name for checkpoint in found] == ["price"]


def test_a_picture_that_fails_costs_no_study(
    train: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(study, "_draw", failing)
    out = tmp_path / "study"
    assert main(["study", *train[1:], "--scenarios", "heads", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "note: study.png was not drawn: no ink left" in said.err
    assert said.out.endswith(f"study {out}: study.md, study.json\n")
    assert sorted(file.name for file in out.iterdir()) == ["study.json", "study.md"]


def test_a_picture_that_fails_is_left_out_of_a_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = Picture("latency", "Share of texts", [lambda axis: failing()])
    assert (png(picture), svg(picture)) == (None, None)
    notes = [f"note: latency.{kind} was not drawn: no ink left" for kind in ("png", "svg")]
    assert capsys.readouterr().err.splitlines() == notes


def test_any_label_is_drawn_as_it_is_and_nothing_is_said_of_fonts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "confusion.png"
    assert drawn(file, confusion, ODD, "$a_b$")
    assert file.stat().st_size > 1000
    assert capfd.readouterr() == ("", "")
    with style({}):
        shown = texts_of(confusion(ODD))
    assert shown[:8] == list(ODD[:8])
    assert shown[8] == "x" * 31 + "…"
    assert shown[9] == "a b"


@pytest.mark.parametrize(("tasks", "labels"), [(1, 300), (16, 24)])
def test_many_labels_and_tasks_make_no_huge_picture(
    tasks: int, labels: int, tmp_path: Path
) -> None:
    from PIL import Image

    names = [f"task {number}" for number in range(tasks)]
    found = {
        "confusion": np.eye(labels, dtype=int).tolist(),
        "reported": {"split": "dev"},
        "head": {"accuracy": 1.0},
    }
    own = [Task(name, tuple(map(str, range(labels))), 1.0, ()) for name in names]
    file = tmp_path / "confusion.png"
    assert drawn(file, draw_errors, own, dict.fromkeys(names, found))
    with Image.open(file) as image:
        width, height = image.size
    assert 100_000 < width * height < 1.01 * MOST_DOTS


def test_a_picture_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    class Figure:
        def get_size_inches(self) -> tuple[int, int]:
            return 1, 1

        def savefig(self, file: Path, **_: object) -> None:
            file.write_bytes(b"half")
            raise ValueError

    assert not drawn(tmp_path / "picture.png", Figure)
    assert list(tmp_path.iterdir()) == []


def test_logarithmic_axes_have_plain_numbers() -> None:
    from matplotlib.figure import Figure

    with style({}):
        figure = Figure()
        axis = figure.subplots()
        axis.plot([0.03, 2_000_000], [1, 4], label="a")
        axis.set_xscale("log")
        axis.set_yscale("log")
        without_formulas(axis.xaxis)
        without_formulas(axis.yaxis)
        figure.draw_without_rendering()
        wide, narrow = (
            {text.get_text() for text in labels} - {""}
            for labels in (axis.get_xticklabels(which="both"), axis.get_yticklabels(which="both"))
        )
    assert {"0.1", "10", "1,000", "100,000"} & wide
    assert {"1", "2", "3", "4"} <= narrow
    assert not any("$" in text for text in wide | narrow)
