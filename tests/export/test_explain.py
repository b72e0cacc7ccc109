"""How much noise int8 adds is measured, and the noisiest products can be left out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_edge.cli import main
from mtl_edge.export.int8.explain import noise_of, worst

LAYERS = 2
WIDTH = 32


def one_product(scale_of_column: float) -> onnx.ModelProto:
    """`ids` to a row of a table to one product, one input channel of which may be far larger."""
    generator = np.random.default_rng(0)
    table = generator.standard_normal((64, WIDTH)).astype(np.float32)
    table[:, 0] *= scale_of_column
    weight = generator.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    weight[0] /= scale_of_column
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask"], ["count"]),
        helper.make_node("Mul", ["y", "count"], ["out"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


TEXTS = [list(np.random.default_rng(i).integers(0, 64, 8)) for i in range(20)]


def test_noise_is_that_of_the_rounding() -> None:
    """Eight bits on both sides: between 30 and 50 decibels for numbers drawn from a bell curve."""
    (noise,) = noise_of(one_product(1.0), WIDTH, TEXTS)
    assert (noise.output, noise.layer, noise.shape) == ("y", "product", (WIDTH, WIDTH))
    assert noise.own is not None
    assert 30 < noise.own < 50
    assert noise.total <= noise.own + 1


def test_seven_bits_are_noisier_than_eight() -> None:
    (eight,) = noise_of(one_product(1.0), WIDTH, TEXTS)
    (seven,) = noise_of(one_product(1.0), WIDTH, TEXTS, reduce_range=True)
    assert seven.own is not None
    assert eight.own is not None
    assert seven.own < eight.own - 1


def test_every_product_is_explained(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "--explain"]) == 0
    onnx_lines, openvino_lines = (
        part.splitlines()[2:] for part in capsys.readouterr().out.split("openvino-int8\n")
    )
    rows = onnx_lines[2 : 2 + 4 * LAYERS]
    assert len([line for line in openvino_lines if " x " in line]) == 6 * LAYERS
    assert sum("query, key, value" in row for row in rows) == LAYERS
    assert sorted(int(row.split()[-1]) for row in rows) == list(range(1, 4 * LAYERS + 1))


@pytest.mark.parametrize(
    "idle",
    [
        ["--refit", "texts.csv"], ["--vocabulary", "texts.csv"], ["--embeddings", "4bit"],
        ["--with-tokenizer"], ["--ort"], ["--keep-worst", "2"], ["--overwrite"],
    ],
)  # fmt: skip
def test_what_only_a_bundle_could_have_is_not_explained(
    checkpoint: Path, idle: list[str], fails: Callable[..., str]
) -> None:
    message = fails("export", checkpoint, "--explain", *idle)
    assert f"{idle[0]} is for bundles, and --explain makes none" in message


def test_only_int8_is_explained(checkpoint: Path, fails: Callable[..., str]) -> None:
    message = fails("export", checkpoint, "--explain", "--targets", "onnx-fp32")
    assert "--explain is of onnx-int8 and openvino-int8" in message


def test_the_noisiest_products_stay_in_float32_when_asked(
    checkpoint: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    out = tmp_path / "b"
    export = ["export", str(checkpoint), "--targets", "onnx-int8", "--out", str(out)]
    assert "expected 0 or more" in fails(*export, "--keep-worst", "-1")
    assert main([*export, "--keep-worst", "3"]) == 0
    operators = [node.op_type for node in onnx.load(out / "model.int8.onnx").graph.node]
    int8 = operators.count("QAttention") + operators.count("MatMulIntegerToFloat")
    assert int8 == 4 * LAYERS - 3


def test_worst_are_those_with_the_least_signal_to_noise() -> None:
    first, second = (noise_of(one_product(1.0), WIDTH, TEXTS, b)[0] for b in (False, True))
    assert worst([first, second], 1) == [second.output]
    assert worst([first, second], 0) == []
