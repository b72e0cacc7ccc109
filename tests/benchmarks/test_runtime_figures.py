"""The runtime's figures are measured, written and drawn, and mean what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_edge.batches.planning import pad
from mtl_edge.benchmarks.core.measure import ALL, ONE
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.core.report import markdown
from mtl_edge.benchmarks.experiments import cold_start, runtime
from mtl_edge.benchmarks.experiments.bare import BARE
from mtl_edge.benchmarks.experiments.runtime_report import report_of
from mtl_edge.benchmarks.roofline.passes import operations
from mtl_edge.bundle import open_bundle
from mtl_edge.choosing import choose_graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import EngineError

TEXTS = ["good", "a quiet triumph", "the battery of this phone died after two days " * 3]


ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def record(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What the command writes for three texts, beside tables, a page and pictures."""
    out = tmp_path_factory.mktemp("figures")
    texts = out / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    options = ["--texts", str(texts), "--out", str(out / "results"), "--threads", "1"]
    options += ["--passes", "4", "--rounds", "2", "--processes", "1"]
    runtime.main([str(shared_bundle), *options])
    assert sorted(file.name for file in (out / "results").iterdir()) == [
        "cold-start.png",
        "latency-onnxruntime.png",
        "latency-openvino.png",
        "runtime.html",
        "runtime.json",
        "runtime.md",
    ]
    return read_record(out / "results" / "runtime.json")


def test_both_engines_are_measured_and_stand_in_the_table(record: Record) -> None:
    assert record.inputs["texts"] == len(TEXTS)
    figures = record.figures
    for name in ENGINES:
        time = record.on(ONE).times[name]
        assert 0 < time.median <= time.p90 <= time.p99
        bulk = record.on(ALL).times[name].median
        assert figures["padded tokens/s"][name] >= 1e3 * record.inputs["tokens"] / bulk
        assert 0 < figures["share of the limit"][name] < 1
        assert figures["app: bit equal"][name] == 1
    table = markdown(report_of(record))
    assert "ONNX Runtime" in table
    assert "openvino, no fixed shapes" in table
    assert record.command in table


def test_the_parts_of_a_cold_start_make_the_whole(record: Record) -> None:
    for name in ENGINES:
        parts = [record.figures[f"cold start: {part} ms"][name] for part in cold_start.PARTS]
        assert min(parts) > 0
        whole = record.on(cold_start.COLD).times[name].median
        assert 0.9 * whole < sum(parts) <= whole


def test_memory_is_this_process_own(record: Record) -> None:
    if "memory: used, peak MB" not in record.figures:
        pytest.skip("this system does not tell a process's memory")
    imported, loaded, peak = (
        record.figures[f"memory: {stage} MB"]["onnxruntime"]
        for stage in ("imported, now", "loaded, now", "used, peak")
    )
    assert imported < loaded < peak
    assert peak < 400, "the tests have torch in memory, which the process does not"


@pytest.mark.parametrize("engine", BARE)
def test_the_bare_engine_computes_what_the_runtime_does(shared_bundle: Path, engine: str) -> None:
    bundle = open_bundle(shared_bundle)
    bare = BARE[engine](bundle, choose_graph(bundle.manifest, engine=engine), 1)
    ran: list[tuple[int, ...]] = []
    counted = replace(bare, batch=lambda ids, mask: ran.append(ids.shape))
    counted.all(TEXTS * 20, 32)
    assert [shape[0] for shape in ran] == [32, 28]
    with EdgeClassifier.load(shared_bundle, engine=engine, threads=1) as classifier:
        for text in TEXTS:
            (ids,) = bare.tokens([text])
            outputs: Any = bare.single(*pad([ids], bare.multiple, bare.most))
            logits = classifier.logits(text)
            for place, task in enumerate(classifier.tasks):
                np.testing.assert_allclose(outputs[place], logits[task.name], atol=1e-5)


def test_overhead_is_of_pairs_and_not_of_medians() -> None:
    parts = np.array([[1.0, 2.0, 10.0]])
    whole = np.array([[1.1, 2.1, 15.0]])
    found = runtime.overhead(whole, parts)
    assert found["us"] == pytest.approx(100)
    assert found["percent"] == pytest.approx(10)


def test_texts_of_unlike_length_do_not_count_as_a_tail() -> None:
    times = np.array([[1.0] * 20 + [9.0] * 20])
    assert runtime.like_length(times, [3] * 20 + [90] * 20, 1) == pytest.approx(1)
    assert runtime.like_length(times, [3] * 40, 1) > 1.5


def test_operations_are_those_of_the_products(shared_bundle: Path) -> None:
    bundle = open_bundle(shared_bundle)
    width, wide, layers = 64, 128, 2
    weights = 4 * width**2 + 2 * width * wide
    expected = layers * (3 * 10 * 2 * weights + 3 * 2 * 2 * 10 * 10 * width)
    assert operations(bundle, [(3, 10)]) == expected


def test_mistakes_are_told_in_a_line(
    shared_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    for options, expected in (
        ([str(tmp_path / "none")], "no bundle at"),
        ([str(shared_bundle), "--texts", str(empty)], "has no rows; expected texts"),
        ([str(shared_bundle), "--texts", str(tmp_path / "x.csv")], "cannot read"),
        ([str(shared_bundle), "--rounds", "0"], "--rounds is 0, expected 1 or more"),
    ):
        with pytest.raises(SystemExit) as ended:
            runtime.main(options)
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no bundle at"):
        cold_start.starts(tmp_path, {"x": ("onnxruntime", 1, None)}, 1)
