"""What an engine really runs, after its own rewriting of the graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort
import openvino as ov

from mtl_edge.engines.onnxruntime import session_options


def onnxruntime_operators(file: Path, work: Path) -> tuple[Counter[str], list[tuple[int, ...]]]:
    """Operators of the optimized graph, and the shapes of weights that are multiplied in fp32."""
    options = session_options()
    options.optimized_model_filepath = str(work / "optimized.onnx")
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(work / "optimized.onnx", load_external_data=False).graph
    shapes = {c.name: tuple(c.dims) for c in graph.initializer}
    fp32 = [
        shapes[node.input[1]]
        for node in graph.node
        if node.op_type in ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Attention")
        and node.input[1] in shapes
    ]
    return Counter(node.op_type for node in graph.node), fp32


def openvino_products(file: Path) -> Counter[str]:
    """How many of the encoder's products with weights run in each precision."""
    model = ov.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    count: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "FullyConnected":
            count[info["runtimePrecision"].astype(str)] += 1
    return count


def openvino_table_types(file: Path, rows: int) -> set[str]:
    """Element types of the stored tables with that many rows."""
    model = ov.Core().read_model(str(file))
    return {
        node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
        and list(node.shape)[:1] == [rows]
        and node.shape[1] > 1
    }


def require_int8(bundle: Path, work: Path, layers: int) -> list[tuple[int, ...]]:
    """Both graphs run every product of the encoder in int8, once a layer, and are fused.

    Returns:
        Shapes of the weights that ONNX Runtime multiplies in fp32, those of two heads.
    """
    count, fp32 = onnxruntime_operators(bundle / "model.int8.onnx", work)
    assert count["QAttention"] == layers
    assert count["MatMulIntegerToFloat"] == 3 * layers
    assert count["Gelu"] == layers + 1, "and one of the heads"
    assert count["LayerNormalization"] == 2 * layers + 1
    slower = ("SkipLayerNormalization", "BiasGelu", "Attention", "EmbedLayerNormalization")
    assert all(count[operator] == 0 for operator in slower)
    assert len(fp32) == 5, "only the heads are left in fp32: three products of both, two outputs"
    products = openvino_products(bundle / "openvino.int8.xml")
    assert products["u8"] + products["i8"] == products.total() == 6 * layers
    return fp32
