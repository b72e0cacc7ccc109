"""What a graph's file holds: what every pass reads whole, and tables of which it reads rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import openvino as ov

from mtl_edge.bundle import Bundle, Graph

__all__ = ["Weights", "weights_of"]

HEADS = "heads/"  # what export prefixes the names of the heads' weights with
# Operators of ONNX and the places of their inputs that rows are taken from.
LOOKUPS: Mapping[str, tuple[int, ...]] = {
    "Gather": (0,),
    "GatherBlockQuantized": (0,),
    "EmbedLayerNormalization": (2, 3, 4),
}
ON_THE_WAY = ("Convert", "Multiply")  # of OpenVINO, between a table and what takes rows from it


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a graph.

    Attributes:
        encoder: numbers in the encoder's constants that are read whole.
        encoder_bytes: what they take.
        heads: numbers in the heads' constants that are read whole; each is used once a text at
            least.
        row_bytes: of a token's row in the largest table of the encoder, that of words.
    """

    encoder: int
    encoder_bytes: int
    heads: int
    heads_bytes: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class _Constant:
    """
    Attributes:
        table: whether rows are taken from it.
    """

    shape: tuple[int, ...]
    bytes: int
    in_heads: bool
    table: bool


def weights_of(bundle: Bundle, graph: Graph) -> Weights:
    """Read from the graph's file, in which each constant is as it will be multiplied."""
    constants = list(READERS[graph.engine](bundle, graph))
    tables = [c for c in constants if c.table and not c.in_heads]
    words = max(tables, key=lambda c: c.bytes, default=None)
    encoder = [c for c in constants if not c.table and not c.in_heads]
    heads = [c for c in constants if not c.table and c.in_heads]
    return Weights(
        encoder=sum(math.prod(c.shape) for c in encoder),
        encoder_bytes=sum(c.bytes for c in encoder),
        heads=sum(math.prod(c.shape) for c in heads),
        heads_bytes=sum(c.bytes for c in heads),
        row_bytes=words.bytes // words.shape[0] if words else 0,
    )


def _of_onnx(bundle: Bundle, graph: Graph) -> Iterator[_Constant]:
    model = onnx.load(str(bundle.file(graph.file)), load_external_data=False)
    looked_up = {
        node.input[place]
        for node in model.graph.node
        for place in LOOKUPS.get(node.op_type, ())
        if place < len(node.input)
    }
    # The encoder slices its table of positions; the heads slice what they keep in one piece.
    sliced = {node.input[0] for node in model.graph.node if node.op_type == "Slice"}
    for constant in model.graph.initializer:
        shape, in_heads = tuple(constant.dims), constant.name.startswith(HEADS)
        table = constant.name in looked_up or (constant.name in sliced and not in_heads)
        size = math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize
        yield _Constant(shape, size, in_heads, table)


def _of_openvino(bundle: Bundle, graph: Graph) -> Iterator[_Constant]:
    core = ov.Core()
    files = [name for name in graph.files if name.endswith(".xml")]
    for name in files:
        for node in core.read_model(str(bundle.file(name))).get_ordered_ops():
            if node.get_type_name() == "Constant":
                in_heads = len(files) > 1 and name in graph.heads
                shape = tuple(node.get_output_shape(0))
                yield _Constant(shape, node.get_byte_size(), in_heads, _looked_up(node))


def _looked_up(node: Any) -> bool:
    """Whether rows are taken from a constant of OpenVINO, as it is or scaled."""
    for port in node.output(0).get_target_inputs():
        user = port.get_node()
        if user.get_type_name() == "Gather" and port.get_index() == 0:
            return True
        if user.get_type_name() in ON_THE_WAY and _looked_up(user):
            return True
    return False


READERS: Mapping[str, Callable[[Bundle, Graph], Iterator[_Constant]]] = {
    "onnxruntime": _of_onnx,
    "openvino": _of_openvino,
}
