"""Matrix products that do nothing else: what each engine makes of the machine's arithmetic.

One call computes `[rows, narrow] @ [narrow, wide]` and `[rows, wide] @ [wide, narrow]`, a layer's
feed-forward products without what stands between them. Int8 is unsigned activations times signed
weights, as in our graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops

from mtl_edge.engines.onnxruntime import session_options

__all__ = ["PRODUCTS", "Call", "Shape", "operations"]

Call = Callable[[], object]
Shape = tuple[int, int, int]  # rows, narrow, wide
Array = npt.NDArray[Any]
SCALE = 0.02  # of quantized numbers; any that keeps results within range


def operations(shape: Shape) -> float:
    """Multiplications and additions of one call."""
    rows, narrow, wide = shape
    return 2.0 * 2 * rows * narrow * wide


def _sizes(shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    _, narrow, wide = shape
    return (narrow, wide), (wide, narrow)


def _openvino(precision: str, shape: Shape, threads: int) -> Call | None:
    """None where the CPU has no such kernels and OpenVINO computes in another precision."""
    rng = np.random.default_rng(0)
    start = ops.parameter([shape[0], shape[1]], np.float32, name="x")
    node: Any = start
    for size in _sizes(shape):
        weight: Any = ops.constant(rng.uniform(-1, 1, size).astype(np.float32) * size[0] ** -0.5)
        if precision == "int8":
            node = _rounded(node, 0.0, 4.0, 256)
            weight = _rounded(weight, -(size[0] ** -0.5), size[0] ** -0.5, 255)
        node = ops.relu(ops.matmul(node, weight, False, False))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    compiled = ov.Core().compile_model(ov.Model([node], [start]), "CPU", settings)
    if _computed_in(compiled) != {{"int8": "u8", "bf16": "bf16", "fp32": "f32"}[precision]}:
        return None
    request = compiled.create_infer_request()
    feeds = {"x": rng.random((shape[0], shape[1]), np.float32)}
    return partial(request.infer, feeds, share_inputs=True, share_outputs=True)


def _rounded(value: Any, low: float, high: float, levels: int) -> Any:
    """What tells OpenVINO to keep a value in a byte."""
    bounds = [np.float32(low), np.float32(high)] * 2
    return ops.fake_quantize(value, *map(ops.constant, bounds), levels)


def _computed_in(compiled: Any) -> set[str]:
    """The types of activations in the matrix products that will run."""
    return {
        node.get_rt_info()["runtimePrecision"].astype(str).lower()
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")
    }


def _onnx_float(shape: Shape, threads: int) -> Call:
    rng = np.random.default_rng(0)
    weights = {
        f"w{i}": rng.uniform(-1, 1, size).astype(np.float32) * np.float32(size[0] ** -0.5)
        for i, size in enumerate(_sizes(shape))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["y"]),
    ]
    inputs = {"x": rng.random((shape[0], shape[1]), np.float32)}
    return _session(nodes, weights, inputs, {"y": (shape[0], shape[1])}, TensorProto.FLOAT, threads)


def _onnx_integer(shape: Shape, threads: int) -> Call:
    """`MatMulInteger`: as `MatMulIntegerToFloat`, without its scales."""
    rows, narrow, wide = shape
    rng = np.random.default_rng(0)
    weights = {f"w{i}": _signed(rng, size) for i, size in enumerate(_sizes(shape))}
    nodes = [helper.make_node("MatMulInteger", [f"x{i}", f"w{i}"], [f"y{i}"]) for i in range(2)]
    inputs = {"x0": _unsigned(rng, (rows, narrow)), "x1": _unsigned(rng, (rows, wide))}
    outputs = {"y0": (rows, wide), "y1": (rows, narrow)}
    return _session(nodes, weights, inputs, outputs, TensorProto.INT32, threads)


def _onnx_linear(shape: Shape, threads: int) -> Call:
    """`QLinearMatMul`: bytes in and bytes out."""
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {
        "s": np.array(SCALE, np.float32),
        "u": np.array(0, np.uint8),
        "z": np.array(0, np.int8),
        **{f"w{i}": _signed(rng, size) for i, size in enumerate(_sizes(shape))},
    }
    nodes = [
        helper.make_node("QLinearMatMul", [a, "s", "u", w, "s", "z", "s", "u"], [y])
        for a, w, y in (("x", "w0", "h"), ("h", "w1", "y"))
    ]
    inputs = {"x": _unsigned(rng, (shape[0], shape[1]))}
    return _session(nodes, weights, inputs, {"y": (shape[0], shape[1])}, TensorProto.UINT8, threads)


def _signed(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    return rng.integers(-127, 128, size, np.int8)


def _unsigned(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    return rng.integers(0, 128, size, np.uint8)


def _session(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Mapping[str, tuple[int, ...]],
    kind: int,
    threads: int,
) -> Call:
    """Runs the nodes on inputs and into outputs that are in place."""
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for name, v in inputs.items()],
        [helper.make_tensor_value_info(name, kind, size) for name, size in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for name, size in outputs.items():
        binding.bind_ortvalue_output(
            name, ort.OrtValue.ortvalue_from_shape_and_type(size, dtype, "cpu")
        )
    return partial(session.run_with_iobinding, binding)


# By precision and by what computes: makes a call for a shape and a number of threads.
PRODUCTS: Mapping[str, Mapping[str, Callable[[Shape, int], Call | None]]] = {
    "int8": {
        "OpenVINO": partial(_openvino, "int8"),
        "ONNX Runtime MatMulInteger": _onnx_integer,
        "ONNX Runtime QLinearMatMul": _onnx_linear,
    },
    "bf16": {"OpenVINO": partial(_openvino, "bf16")},
    "fp32": {"OpenVINO": partial(_openvino, "fp32"), "ONNX Runtime MatMul": _onnx_float},
}
