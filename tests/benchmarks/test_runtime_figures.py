"""The runtime's figures are measured, written and drawn, and mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_edge.batches.planning import pad
from mtl_edge.benchmarks import cold_start, many_texts, runtime, runtime_report, single_texts
from mtl_edge.benchmarks.bare import BARE
from mtl_edge.benchmarks.limits.floor import operations
from mtl_edge.bundle import open_bundle
from mtl_edge.choosing import choose_graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import EngineError
from mtl_edge.timing import Timing

TEXTS = ["good", "a quiet triumph", "the battery of this phone died after two days " * 3]


@pytest.fixture(scope="module")
def figures(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes for three texts, beside a table and a picture."""
    out = tmp_path_factory.mktemp("figures")
    texts = out / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    options = ["--texts", str(texts), "--out", str(out / "results"), "--threads", "1"]
    options += ["--passes", "4", "--rounds", "2", "--processes", "1"]
    runtime.main([str(shared_bundle), *options])
    assert sorted(file.name for file in (out / "results").iterdir()) == [
        "runtime.json",
        "runtime.md",
        "runtime.png",
    ]
    found: dict[str, Any] = json.loads((out / "results" / "runtime.json").read_text())
    assert runtime_report.markdown(found) == (out / "results" / "runtime.md").read_text()
    return found


def test_both_engines_are_measured_and_stand_in_the_table(figures: dict[str, Any]) -> None:
    assert figures["texts"]["count"] == len(TEXTS)
    assert [*figures["bundle"]["graphs"]] == ["onnxruntime", "openvino"]
    for name in figures["bundle"]["graphs"]:
        single, many = figures["single"][name], figures["many"][name]
        assert 0 < single["median"] <= single["p90"] <= single["p99"]
        assert many["texts_per_second"] > 0
        assert many["padded_tokens_per_second"] >= many["tokens_per_second"]
        assert 0 < many["share_of_limit"] < 1
        assert figures["guest"][name]["threads"]["bit_equal"]
    table = runtime_report.markdown(figures)
    assert "ONNX Runtime" in table
    assert "OpenVINO, fixed_tokens=0" in table
    assert figures["command"] in table


def test_the_parts_of_a_cold_start_make_the_whole(figures: dict[str, Any]) -> None:
    for name in ("onnxruntime", "openvino"):
        start = figures["cold_start"][name]
        assert start["engine"] == name
        parts = [start["parts_ms"][part] for part in cold_start.PARTS]
        assert min(parts) > 0
        assert 0.9 * start["whole_ms"] < sum(parts) <= start["whole_ms"]


def test_memory_is_this_process_own(figures: dict[str, Any]) -> None:
    memory = figures["memory"]["onnxruntime"]
    if memory["used"]["peak"] is None:
        pytest.skip("this system does not tell a process's memory")
    assert memory["imported"]["now"] < memory["loaded"]["now"] < memory["used"]["peak"]
    # The tests have torch in memory, which the process does not.
    assert memory["used"]["peak"] < 400


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
    found = single_texts.overhead(whole, parts)
    assert found["us"] == pytest.approx(100)
    assert found["percent"] == pytest.approx(10)


def test_texts_of_unlike_length_do_not_count_as_a_tail() -> None:
    times = np.array([[1.0] * 20 + [9.0] * 20])
    assert single_texts.like_length(times, [3] * 20 + [90] * 20, 1) == pytest.approx(1)
    assert single_texts.like_length(times, [3] * 40, 1) > 1.5


def test_operations_are_those_of_the_products(shared_bundle: Path) -> None:
    bundle = open_bundle(shared_bundle)
    width, wide, layers = 64, 128, 2
    weights = 4 * width**2 + 2 * width * wide
    expected = layers * (3 * 10 * 2 * weights + 3 * 2 * 2 * 10 * 10 * width)
    assert operations(bundle, [(3, 10)]) == expected
    found = many_texts.throughput(bundle, Timing((500.0,)), [10, 9, 8], [(3, 10)], 1e-6)
    assert found["texts_per_second"] == 6
    assert found["tokens_per_second"] == 54
    assert found["padded_tokens_per_second"] == 60
    assert found["share_of_limit"] == pytest.approx(2 * expected / 1e6)


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
        cold_start.starts(tmp_path, {"x": cold_start.Start("onnxruntime")}, 1)
