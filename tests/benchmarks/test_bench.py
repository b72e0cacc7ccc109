"""`mtl-edge bench` as its users run it: what is printed, written, refused and compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_edge.benchmarks.bench import measure
from mtl_edge.benchmarks.bench.measure import SWEEP
from mtl_edge.benchmarks.core.measure import ALL, ONE
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.core.system import System, systems_of
from mtl_edge.cli import main
from mtl_edge.timing import Timing, interleave, time_calls
from tests.conftest import DEMO

Fails = Callable[..., str]

FILES = ["accuracy.png", "bench.html", "bench.json", "bench.md", "latency.png", "throughput.png"]
GRAPHS = ("onnx-int8", "openvino-int8", "onnx-fp32")


def test_rounds_come_in_orders_of_their_own_after_a_warm_up() -> None:
    calls: list[str] = []
    names = "abcd"
    times = time_calls(
        {name: lambda name=name: calls.append(name) for name in names},  # type: ignore[misc]
        rounds=8,
    )
    assert calls[:12] == list("aaabbbcccddd")
    rounds = [calls[start : start + 8] for start in range(12, len(calls), 8)]
    assert all(sorted(order[::2]) == list(names) for order in rounds)
    assert all(order[::2] == order[1::2] for order in rounds), "one call untimed, one timed"
    assert len({tuple(order) for order in rounds}) > 3
    assert {len(t.rounds) for t in times.values()} == {8}


def test_everyone_has_a_turn_in_each_round() -> None:
    told: list[int] = []
    counters = {name: iter(range(100)) for name in "xy"}
    found = interleave(
        {name: lambda own=own: next(own) for name, own in counters.items()},  # type: ignore[misc]
        rounds=4, between=lambda: told.append(1),
    )  # fmt: skip
    assert found == {"x": [0, 1, 2, 3], "y": [0, 1, 2, 3]}
    assert len(told) == 4


def test_a_slow_call_stops_after_three_rounds_when_time_is_up() -> None:
    assert len(time_calls({"a": lambda: None}, rounds=100, seconds=0)["a"].rounds) == 3


def test_ratios_are_taken_round_by_round() -> None:
    ours, theirs = Timing((1.0, 2.0, 4.0)), Timing((3.0, 6.0, 12.0))
    assert ours.ratio_of(theirs) == (3.0, 3.0, 3.0)
    assert theirs.median == 6.0


@pytest.fixture(scope="module")
def _tiny() -> Iterator[None]:
    """Every size of measurement in a few rounds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, whole in measure.EFFORTS.items():
            small = replace(
                whole, shapes=((1, 32), (2, 16)), rounds=3, texts=6, passes=1, bulk_rounds=2,
                batches=(1, 4), batch_seconds=0.1, limit_rounds=min(3, whole.limit_rounds),
            )  # fmt: skip
            patch.setitem(measure.EFFORTS, name, small)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def measured(
    _tiny: None, shared_bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a measurement of every graph and of torch writes, on three labelled files."""
    work = tmp_path_factory.mktemp("bench")
    other = work / "other.csv"
    other.write_text("text,label\nsplendid,positive\nno good at all,negative\nit broke,negative\n")
    command = ["bench", str(shared_bundle), "--checkpoint", str(checkpoint), "--threads", "1"]
    command += ["--data", f"topic={DEMO}/dev.csv", "--data", f"sentiment={DEMO}/dev.csv"]
    command += ["--data", f"sentiment={other}", "--out", str(work / "out")]
    command += ["--json", str(work / "bench.json")]
    assert main(command) == 0
    return work


@pytest.fixture(scope="module")
def record(measured: Path) -> Record:
    return read_record(measured / "bench.json")


def test_the_folder_has_figures_tables_pictures_and_a_page(measured: Path) -> None:
    assert sorted(file.name for file in (measured / "out").iterdir()) == FILES
    assert (measured / "out/bench.json").read_text() == (measured / "bench.json").read_text()
    table = (measured / "out/bench.md").read_text()
    for name in ("torch fp32", *GRAPHS):
        assert f"| {name} |" in table


def test_every_graph_stands_beside_torch(record: Record) -> None:
    assert record.timed == ["torch fp32", *GRAPHS] == [system.name for system in record.systems]
    for rounds in record.rounds:
        assert list(rounds.times) == ["torch fp32", *GRAPHS]
        assert len(rounds.pairs) == 6
        for time in rounds.times.values():
            assert 0 < (time.p10 or 0) <= time.median <= time.p90
    assert [(r.texts, r.tokens) for r in record.shapes()] == [(1, 32), (2, 16)]
    sweep = [rounds for rounds in record.rounds if rounds.name.startswith(SWEEP)]
    assert [rounds.texts for rounds in sweep] == [1, 4]
    assert all((rounds.noise is None) == (rounds in sweep) for rounds in record.rounds)
    assert record.noise == max(r.noise.spread for r in record.rounds if r.noise is not None)


def test_each_time_stands_against_the_machine(record: Record) -> None:
    assert {"int8_tops", "fp32_tops", "read_gb_s"} <= set(record.limits)
    assert min(record.limits.values()) > 0
    for rounds in record.rounds:
        for name, time in rounds.times.items():
            if rounds.tokens is None:
                assert time.share_of_roofline is None, name
            else:
                assert time.share_of_roofline is not None, name
                assert 0 < time.share_of_roofline < 1.5, name


def test_outputs_are_compared_on_the_texts_that_are_timed(record: Record) -> None:
    assert [check.system for check in record.checks] == ["torch fp32", *GRAPHS]
    assert all(check.same_ids and check.texts == record.inputs["texts"] for check in record.checks)
    by_name = {check.system: check for check in record.checks}
    assert by_name["torch fp32"].largest_difference == 0
    exact, rounded = by_name["onnx-fp32"], by_name["onnx-int8"]
    assert exact.largest_difference is not None
    assert rounded.largest_difference is not None
    assert exact.largest_difference < 1e-4
    assert exact.largest_difference < rounded.largest_difference


def test_the_stream_is_evenly_taken_and_counted(record: Record) -> None:
    inputs, one, bulk = record.inputs, record.on(ONE), record.on(ALL)
    assert (inputs["texts"], inputs["of"]) == (6, 296 + 3)
    assert inputs["source"] == ["dev.csv", "other.csv"]
    for name in record.timed:
        assert one.times[name].count == inputs["texts"] * inputs["passes"]
        assert bulk.times[name].count == len(bulk.times[name].values) == 2
    assert (one.texts, bulk.texts) == (1, 6)


def test_files_of_one_task_are_reported_apart_each_with_its_interval(record: Record) -> None:
    assert [(s.task, s.file, s.rows) for s in record.scores] == [
        ("topic", "dev.csv", 296),
        ("sentiment", "dev.csv", 296),
        ("sentiment", "other.csv", 3),
    ]
    for scores in record.scores:
        assert scores.measured == "now"
        for name in ("torch fp32", *GRAPHS):
            accuracy = scores.models[name].accuracy
            assert accuracy.low is not None
            assert accuracy.high is not None
            assert accuracy.low <= accuracy.value <= accuracy.high
        assert scores.models["onnx-fp32"] == scores.models["torch fp32"]
    few, many = record.scores[2].models, record.scores[1].models
    assert _width(few) > _width(many)


def _width(models: dict[str, object]) -> float:
    accuracy = models["torch fp32"].accuracy  # type: ignore[attr-defined]
    return float(accuracy.high - accuracy.low)


@pytest.mark.usefixtures("_tiny")
def test_the_terminal_shows_what_the_table_needs(
    shared_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(shared_bundle), "--quick", "--shapes", "1x8,3x16"]) == 0
    out = capsys.readouterr().out
    for text in ("onnx-int8", "bag of words", "at export", "the demo's reviews", "3x16", "noise:",
                 "Outputs, compared before any timing"):  # fmt: skip
        assert text in out
    assert "torch fp32  " not in out.split("Latency by shape")[1].split("Accuracy")[0]


@pytest.mark.usefixtures("_tiny")
def test_a_graph_that_disagrees_is_shown_as_failed_and_not_timed(
    shared_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turned(system: System) -> System:
        if system.name != "openvino-int8":
            return system
        return replace(
            system, logits=lambda texts: {t: -out for t, out in system.logits(texts).items()}
        )

    def with_one_turned(*args: Any) -> tuple[list[System], list[str]]:
        systems, missing = systems_of(*args)
        return [turned(system) for system in systems], missing

    monkeypatch.setattr(measure, "systems_of", with_one_turned)
    command = ["bench", str(shared_bundle), "--out", str(tmp_path / "out")]
    assert main([*command, "--data", f"topic={DEMO}/dev.csv"]) == 0
    out = capsys.readouterr().out
    assert "warning: openvino-int8 failed and was not timed: its labels agree" in out
    found = read_record(tmp_path / "out" / "bench.json")
    assert [system.failed is None for system in found.systems] == [True, False, True]
    assert all("openvino-int8" not in rounds.times for rounds in found.rounds)
    assert "openvino-int8" not in found.scores[0].models
    assert "openvino-int8 failed" in (tmp_path / "out" / "bench.html").read_text()


class Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    VOID = ("meta", "br", "img", "link", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs
                            if name in ("src", "href", "xlink:href", "action")]  # fmt: skip
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_elsewhere(measured: Path) -> None:
    text = (measured / "out/bench.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    for words in ("Method", "noise: torch fp32 to itself", "Machine and command"):
        assert words in text


def test_a_folder_is_not_replaced_unless_asked(
    measured: Path, shared_bundle: Path, fails: Fails
) -> None:
    assert "pass --overwrite" in fails("bench", shared_bundle, "--out", measured / "out")
    assert sorted(file.name for file in (measured / "out").iterdir()) == FILES


def test_two_reports_are_compared_with_their_noise(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    data = json.loads((measured / "bench.json").read_text())
    for rounds in data["rounds"]:
        if not rounds["noise"] or rounds["tokens"] is None:
            continue
        rounds["noise"]["spread"] = 0.05
        rounds["times"]["onnx-int8"]["median"] /= 2
        rounds["times"]["onnx-fp32"]["median"] *= 1.04
    data["machine"]["versions"]["onnxruntime"] = "0.0"
    data["threads"] = 64
    (tmp_path / "new.json").write_text(json.dumps(data))
    old = json.loads((measured / "bench.json").read_text())
    for rounds in old["rounds"]:
        if rounds["noise"]:
            rounds["noise"]["spread"] = 0.05
    (tmp_path / "old.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert main(["bench", "--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (faster,) = (line for line in lines if line.startswith("onnx-int8") and "1x32" in line)
    assert "2.00x" in faster
    assert "±7 %" in faster
    assert faster.endswith("faster")
    (same,) = (line for line in lines if line.startswith("onnx-fp32") and "1x32" in line)
    assert same.rstrip().endswith("±7 %")
    assert "another number of threads: the ratios are not of the code alone" in lines
    assert not any("another model" in line for line in lines)
    assert any("versions: onnxruntime" in line and "to 0.0" in line for line in lines)
    assert "leave the bundle out" in fails("bench", tmp_path, "--compare", "a", "b")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data.pop("noise"), "lacks or should not have noise"),
        (lambda data: data.update(more=1), "lacks or should not have more"),
        (lambda data: data.update(threads="two"), "record.threads is str, expected int"),
        (lambda data: data.update(threads=True), "record.threads is bool, expected int"),
        (lambda data: data["rounds"][0].update(times=[]), "record.rounds[0].times is list"),
        (lambda data: data.update(schema_version=99), "has schema_version 99, expected 2"),
        (lambda data: data.pop("schema_version"), "has no schema_version"),
    ],
)
def test_a_file_that_is_no_report_is_refused(
    change: Callable[[dict[str, object]], object],
    expected: str,
    measured: Path,
    tmp_path: Path,
    fails: Fails,
) -> None:
    data = json.loads((measured / "bench.json").read_text())
    change(data)
    (tmp_path / "bad.json").write_text(json.dumps(data))
    assert expected in fails("bench", "--compare", tmp_path / "bad.json", measured / "bench.json")


def test_mistakes_are_named(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, fails: Fails
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,food\nb,unheard\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.json").write_text("{")
    bench = ("bench", shared_bundle)
    assert "'unheard', which task 'topic' does not know" in fails(
        *bench, "--data", f"topic={tmp_path}/rows.csv"
    )
    assert "no such task" in fails(*bench, "--data", f"other={tmp_path}/rows.csv")
    assert "expected TASK=FILE" in fails(*bench, "--data", "topic")
    assert "--threads is 0, expected 1 or more" in fails(*bench, "--threads", "0")
    assert "mtl-edge train" in fails(*bench, "--checkpoint", tmp_path)
    assert "expected BATCHxTOKENS" in fails(*bench, "--shapes", "1x16,big")
    assert "at most 128 tokens" in fails(*bench, "--shapes", "1x999")
    assert "has no rows; expected texts" in fails(*bench, "--texts", tmp_path / "empty.txt")
    assert "not allowed with" in fails(*bench, "--quick", "--full")
    assert "expected a bundle's folder" in fails("bench")
    if not torch.cuda.is_available():
        assert "sees no such GPU here; expected CPU" in fails(*bench, "--device", "CUDA")
    assert "--device TPU: torch" in fails(*bench, "--device", "TPU")
    assert "is not JSON" in fails("bench", "--compare", tmp_path / "broken.json", "x")
    assert "cannot read" in fails("bench", "--compare", tmp_path / "none.json", "x")
