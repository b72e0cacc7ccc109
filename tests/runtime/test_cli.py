"""The command line: tables for people, JSON for programs, one line for every mistake."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import SCHEMA
from mtl_edge.cli import main
from mtl_edge.engines import failure
from mtl_edge.errors import OutOfMemoryError

Fails = Callable[..., str]


def test_predict_prints_a_table_with_a_row_a_text(
    shared_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(shared_bundle)
    assert main(["predict", bundle, "first text", "--threads", "1", "second\ntext \x1b[31m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["text", "sentiment", "topic"]
    assert lines[2].startswith("first text")
    assert lines[3].startswith("second text")
    assert "\x1b" not in lines[3]


def test_predict_reads_lines_from_standard_input_or_a_file(
    shared_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: Fails,
) -> None:
    lines = b"plain\r\n\nsep\xe2\x80\xa8arated\nno end"
    expected = ["plain", "", "sep\u2028arated", "no end"]
    file = tmp_path / "texts.txt"
    file.write_bytes(lines)
    for source in ([], ["--file", str(file)]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
        assert main(["predict", str(shared_bundle), "--json", *source]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [answer["text"] for answer in answers] == expected
        assert set(answers[0]["topic"]["probabilities"]) == {"food", "gadgets", "money", "travel"}
    file.write_bytes(b"fine\nnot utf-8 \xff\n")
    assert "line 2 is not UTF-8" in (told := fails("predict", shared_bundle, "--file", file))
    assert "--encoding" in told
    assert main(["predict", str(shared_bundle), "--file", str(file), "--encoding", "cp1252"]) == 0
    assert "not utf-8 ÿ" in capsys.readouterr().out


def test_info_lists_tasks_and_graphs(
    shared_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(shared_bundle)]) == 0
    out = capsys.readouterr().out
    for word in ("sentiment", "topic", "onnx-int8", "openvino-int8", "sha256", "2 of 2 layers"):
        assert word in out
    assert main(["info", str(shared_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == SCHEMA


def test_mistakes_are_one_line_and_exit_2(
    shared_bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    assert "mtl-edge export" in fails("predict", tmp_path, "text")
    assert "mtl-edge export" in fails("info", tmp_path / "nowhere")
    assert "unknown engine" in fails("predict", shared_bundle, "--engine", "abacus", "text")
    assert "cannot read" in fails("predict", shared_bundle, "--file", tmp_path / "none.txt")
    assert "cannot read" in fails("predict", shared_bundle, "--file", tmp_path)
    assert "both" in fails("predict", shared_bundle, "text", "--file", tmp_path / "none.txt")


def test_a_reader_that_stops_early_ends_predict_quietly(shared_bundle: Path) -> None:
    command = [sys.executable, "-m", "mtl_edge.cli", "predict", str(shared_bundle), "--json"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.write(b"a text\n" * 3000)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()


def test_a_command_without_its_packages_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, fails: Fails, tmp_path: Path
) -> None:
    # The package's attribute would go on to name the modules that this test imports.
    monkeypatch.setattr("mtl_edge.training", sys.modules["mtl_edge.training"])
    for name in [n for n in sys.modules if n.startswith(("mtl_edge.training", "sklearn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = fails("train", "--task", "a=b.csv", "--out", tmp_path / "out")
    assert "pip install 'mtl-edge[train]'" in message


def test_a_mistake_in_an_option_is_one_line(fails: Callable[..., str]) -> None:
    assert "unrecognized arguments: --nosuch; `mtl-edge info --help`" in fails(
        "info", "b", "--nosuch"
    )
    assert "invalid int value" in fails("predict", "b", "text", "--threads", "many")


def test_an_option_file_that_is_not_named_is_one_line(fails: Callable[..., str]) -> None:
    for options in (["--config"], ["--config", "--json"]):
        message = fails("predict", "b", "text", *options)
        assert "--config: expected one argument; give a TOML file" in message


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("even alone"),
        failure("ONNX Runtime", (1, 8), RuntimeError("bad alloc")),
        failure("ONNX Runtime", (1, 8), RuntimeError("an operator failed")),
    ],
)
def test_an_engine_that_fails_is_one_line_and_exit_1(
    error: Exception,
    shared_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(EdgeClassifier, "predict", broken)
    assert main(["predict", str(shared_bundle), "a text"]) == 1
    assert capsys.readouterr().err == f"mtl-edge: {error}\n"


def test_unsure_answers_are_marked_and_thresholds_listed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["tasks"][0]["thresholds"] = [1.01, 0.0]
    manifest["tasks"][1]["thresholds"] = [0.0] * 4
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    texts = [f"text number {i}" for i in range(20)]
    assert main(["predict", str(bundle), "--json", *texts]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, second = manifest["tasks"][0]["labels"]
    for line in lines:
        answer = line["sentiment"]
        assert answer["sure"] == (answer["label"] == second)
        assert line["topic"]["sure"] is True
    assert main(["info", str(bundle)]) == 0
    assert f"{first} (never sure), {second} (sure from 0.00)" in capsys.readouterr().out
