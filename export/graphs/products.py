"""The products with weights of a fused fp32 ONNX graph: what int8 replaces."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import NodeProto

from mtl_edge.export.graphs.rewrite import readers_of

__all__ = ["Product", "products_of"]


@dataclass(frozen=True, slots=True)
class Product:
    """A product with the encoder's weights.

    Attributes:
        bias: constant that is added to it, if it is by an addition of its own.
        output: what is read of it: with the bias, if there is one.
    """

    node: NodeProto
    bias: str
    output: str

    @property
    def input(self) -> str:
        return str(self.node.input[0])


def products_of(model: onnx.ModelProto, width: int) -> list[Product]:
    """Products with the encoder's weights, in the order in which they run.

    Args:
        width: hidden size; a product is the encoder's if no side of its weights is narrower.
    """
    shapes = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    readers = readers_of(model)
    outputs = {output.name for output in model.graph.output}
    products = []
    for node in model.graph.node:
        if node.op_type == "Attention":
            products.append(Product(node, "", node.output[0]))
        elif node.op_type == "MatMul" and all(
            side >= width for side in shapes.get(node.input[1], (0,))
        ):
            bias, output = "", node.output[0]
            after = readers.get(output, [])
            if output not in outputs and len(after) == 1 and after[0].op_type == "Add":
                other = next((name for name in after[0].input if name != output), "")
                if len(shapes.get(other, ())) == 1:
                    bias, output = other, after[0].output[0]
            products.append(Product(node, bias, output))
    return products
