"""Int8 sums are exact on every CPU, and no slower where they are exact anyhow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.engines import onnxruntime as engine
from tests.conftest import ROOT

FOLDERS = ("mtl_edge", "training", "export", "benchmarks", "tests")
OTHERS = ROOT / "benchmarks" / "peers" / "adapters"  # products that are measured as they come
KEY = "session.x64quantprecision"
TEXTS = ["a quiet triumph", "the parcel was late " * 20]


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Calls of ONNX Runtime's two classes that make sessions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("SessionOptions", "InferenceSession"):
                yield name, node


def sources() -> list[Path]:
    return [
        file
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        if OTHERS not in file.parents
    ]


def test_options_of_sessions_are_made_in_one_place() -> None:
    made = [file for file in sources() for name, _ in calls(file) if name == "SessionOptions"]
    assert made == [Path(engine.__file__)]


def test_every_session_is_made_with_options() -> None:
    made = [(file, call) for file in sources() for n, call in calls(file) if n != "SessionOptions"]
    assert len(made) > 10
    for file, call in made:
        assert len(call.args) == 2, f"{file.name}:{call.lineno} makes a session without options"


def test_the_product_that_cpus_are_asked_for_is_what_it_says() -> None:
    graph = onnx.load_from_string(engine.PRODUCT).graph
    assert [node.op_type for node in graph.node] == ["MatMulInteger"]
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    assert kinds == [onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT32]


def test_a_runtime_that_lacks_the_product_is_taken_to_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "PRODUCT", b"no graph")
    assert engine._overflows.__wrapped__() is True


@pytest.mark.parametrize("overflows", [True, False])
def test_only_cpus_that_overflow_pay_for_exact_sums(
    overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_overflows", lambda: overflows)
    options = engine.session_options()
    if overflows:
        assert options.get_session_config_entry(KEY) == "1"
    else:
        with pytest.raises(Exception, match=KEY):
            options.get_session_config_entry(KEY)


@pytest.mark.skipif(engine._overflows(), reason="has no exact sums to compare with")
def test_answers_are_the_same_where_weights_are_made_unsigned(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for overflows in (False, True):
        monkeypatch.setattr(engine, "_overflows", lambda overflows=overflows: overflows)
        with EdgeClassifier.load(shared_bundle, target="onnx-int8") as classifier:
            found.append(classifier.logits(TEXTS)["topic"])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)


def test_every_product_has_a_zero_point_without_which_older_runtimes_leave_it_inexact(
    shared_bundle: Path,
) -> None:
    graph = onnx.load(shared_bundle / "model.int8.onnx", load_external_data=False).graph
    zeros = [node.input[5] for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert all(zeros)
    assert len(set(zeros)) == len(zeros), "ONNX Runtime 1.32 opens no graph that shares one"
