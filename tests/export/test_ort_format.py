"""ONNX Runtime's own format: one file that answers like the graph it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import TOKENIZER
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError
from mtl_edge.export.graphs import ort_format
from mtl_edge.export.graphs.ort_format import write_ort
from mtl_edge.tokens.encoder import TextEncoder
from tests.conftest import DEMO

GRAPH = "model.int8.onnx"


@pytest.fixture
def converted(bundle: Path) -> Path:
    """A bundle's folder with the format written into it."""
    assert write_ort(bundle, GRAPH) == ("model.int8.ort", "model.int8.required_operators.config")
    return bundle


def logits_of(file: Path, folder: Path, text: str) -> Mapping[str, npt.NDArray[np.float32]]:
    encoder = TextEncoder.from_file(folder / TOKENIZER, 128)
    ids = np.array(encoder([text]), np.int64)
    session = ort.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return dict(zip(names, values, strict=True))


def test_the_file_answers_alone_and_as_the_bundle_does(converted: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.ort"
    alone.write_bytes((converted / "model.int8.ort").read_bytes())
    lines = (DEMO / "dev.csv").read_text(encoding="utf-8").splitlines()[1:40]
    with EdgeClassifier.load(converted, target="onnx-int8") as classifier:
        for line in lines:
            expected = classifier.logits([line])
            got = logits_of(alone, converted, line)
            assert got.keys() == expected.keys()
            for task, values in expected.items():
                np.testing.assert_allclose(got[task], values, rtol=0, atol=1e-4)


def test_the_file_has_the_weights_in_it(converted: Path) -> None:
    weights = sum(
        (converted / name).stat().st_size for name in ("encoder.int8.bin", "heads.int8.bin")
    )
    size = (converted / "model.int8.ort").stat().st_size
    assert weights < size < 1.5 * weights


def test_the_operators_of_a_reduced_build_are_listed_without_paths(converted: Path) -> None:
    lines = (converted / "model.int8.required_operators.config").read_text().splitlines()
    assert lines[:2] == ["# Generated from model/s:", "# - model.int8.ort"]
    assert all(line.count(";") == 2 for line in lines[2:])
    listed = {name for line in lines[2:] for name in line.split(";")[2].split(",")}
    assert {"Gather", "DynamicQuantizeMatMul"} & listed
    assert str(converted) not in "\n".join(lines)


def test_nothing_is_said_on_the_way(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_ort(bundle, GRAPH)
    assert capfd.readouterr().out == ""


def test_a_graph_that_cannot_be_converted_says_so(bundle: Path) -> None:
    (bundle / GRAPH).write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"cannot write model\.int8\.onnx in its own format"):
        write_ort(bundle, GRAPH)
    assert not (bundle / "model.int8.ort").exists()


def test_a_file_that_answers_otherwise_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_format, "TOLERANCE", -1)
    with pytest.raises(ExportError, match=r"model\.int8\.ort is not faithful"):
        write_ort(bundle, GRAPH)
