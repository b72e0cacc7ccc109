"""A rewriting of a fused fp32 graph that leaves its values as they are and makes int8 cheaper.

    part_norms   SkipLayerNormalization becomes Sub and LayerNormalization, BiasGelu becomes Add and
                 Gelu; biases stand beside their products, which take them in

ONNX Runtime's CPU kernels decide: SkipLayerNormalization takes five times as long as an addition
and LayerNormalization, but it fuses just these two into it. So the residual is subtracted from, and
what is added to it comes negated from its product, which costs nothing: its weights are.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

__all__ = ["MICROSOFT", "Constants", "part_norms", "readers_of"]

MICROSOFT = "com.microsoft"
Array = npt.NDArray[np.float32]


class Constants:
    """A graph's constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._known = {constant.name: constant for constant in model.graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def array(self, name: str) -> Array:
        value: Array = numpy_helper.to_array(self._known[name])
        return value

    def add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._known[name] = numpy_helper.from_array(value, name)
        return name

    def store(self, model: onnx.ModelProto) -> None:
        """Make them the constants of `model`."""
        del model.graph.initializer[:]
        model.graph.initializer.extend(self._known.values())


def readers_of(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Nodes that read each tensor; an output of the graph counts as read by no node."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(filter(None, node.input)):
            readers.setdefault(name, []).append(node)
    return readers


def part_norms(model: onnx.ModelProto, products: Collection[str]) -> None:
    """See above.

    Args:
        products: outputs of products with constant weights, which may be negated.
    """
    parts = _Parts(model, products)
    nodes = [part for node in model.graph.node for part in parts.of(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    parts.constants.store(model)


class _Parts:
    def __init__(self, model: onnx.ModelProto, products: Collection[str]) -> None:
        self.constants = Constants(model)
        readers = readers_of(model)
        self._products = {
            node.output[0]: node
            for node in model.graph.node
            if node.output[0] in products
            and node.op_type == "MatMul"
            and len(readers.get(node.output[0], ())) == 1
        }

    def of(self, node: NodeProto) -> list[NodeProto]:
        if node.op_type == "BiasGelu":
            biased = f"{node.output[0]}_biased"
            return [
                helper.make_node("Add", list(node.input), [biased], name=biased),
                helper.make_node("Gelu", [biased], list(node.output), node.name, domain=MICROSOFT),
            ]
        if node.op_type == "SkipLayerNormalization" and not any(node.output[1:]):
            return self._norm(node)
        return [node]

    def _norm(self, node: NodeProto) -> list[NodeProto]:
        left, right, gamma, beta = node.input[:4]
        bias = node.input[4] if len(node.input) > 4 else ""
        added, residual = (right, left) if right in self._products else (left, right)
        steps, negated = self._negated(added, bias)
        total = f"{node.output[0]}_total"
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        return [
            *steps,
            helper.make_node("Sub", [residual, negated], [total], name=total),
            helper.make_node(
                "LayerNormalization",
                [total, gamma, beta],
                [node.output[0]],
                name=node.name,
                epsilon=epsilon,
            ),
        ]

    def _negated(self, added: str, bias: str) -> tuple[list[NodeProto], str]:
        """Steps to the negative of what is added to a residual, and its name."""
        product = self._products.get(added)
        if product is None:
            steps = [helper.make_node("Add", [added, bias], [f"{added}_biased"])] if bias else []
            name = steps[0].output[0] if steps else added
            return [
                *steps,
                helper.make_node("Neg", [name], [f"{name}_negative"]),
            ], f"{name}_negative"
        # Of its node alone, as layers may share their weights.
        weight = -self.constants.array(product.input[1])
        product.input[1] = self.constants.add(f"{added}_negative_weight", weight)
        if not bias:
            return [], added
        name = self.constants.add(f"{added}_negative_bias", -self.constants.array(bias))
        biased = f"{added}_biased"
        return [helper.make_node("Add", [added, name], [biased], name=biased)], biased
