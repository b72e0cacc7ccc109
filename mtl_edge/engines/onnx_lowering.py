"""ONNX Runtime's fused and quantized operators as plain ones, on float weights.

    Attention                      ->  Linear, Attend
    EmbedLayerNormalization        ->  Gather, Add, LayerNormalization
    SkipLayerNormalization         ->  Add, LayerNormalization
    BiasGelu                       ->  Add, Gelu
    QuantizeLinear                 ->  nothing: what it rounds is read as it is
    QAttention                     ->  as Attention, its weights times their scales
    MatMulIntegerToFloat           ->  MatMul, Add, its weights times their scales
    GatherBlockQuantized           ->  Gather of rows times their scales
    MatMul, Add of constants       ->  Linear

The three in the right column that are not ONNX's own begin with `mtl_edge.`:

    Linear(x, weight, bias)        x @ weight + bias
    MaskBias(mask, like)           what a mask adds to attention scores, once for all layers;
                                   mask is `[batch, tokens]`, or `[batch]` with numbers of tokens
    Attend(qkv, bias)              attention of `[batch, tokens, 3 * width]` in `num_heads` heads

An int8 graph so keeps the rounding of its weights and loses that of its activations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mtl_edge.engines.onnx_reader import Array, Node, OnnxGraph
from mtl_edge.errors import EngineError

__all__ = ["ATTEND", "GELU", "LINEAR", "MASK_BIAS", "lower"]

MICROSOFT = "com.microsoft."
LINEAR, MASK_BIAS, ATTEND = "mtl_edge.Linear", "mtl_edge.MaskBias", "mtl_edge.Attend"
GELU = f"{MICROSOFT}Gelu"
ATTENTION = {"num_heads", "mask_filter_value", "scale"}
MASKED = -10000.0  # what ONNX Runtime adds to the score of a token that is padding


@dataclass(slots=True)
class _Lowering:
    """A graph on its way.

    Attributes:
        quantized: values that were rounded in the graph, and what they were rounded from.
        masks: the bias of each mask.
        nodes: those made so far.
        products: what the matrix products among them give.
    """

    constants: dict[str, Array]
    quantized: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    products: set[str] = field(default_factory=set)

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        if node.op == "MatMul":
            self.products.update(node.outputs)

    def emit(self, of: Node, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node in the place of another; returns its output."""
        self.add(Node(op, tuple(inputs), (output,), attributes, of.name))
        return output

    def sum(self, of: Node, left: str, right: str) -> str:
        """Of two values, where one may be left out."""
        if not (left and right):
            return left or right
        return self.emit(of, "Add", [left, right], f"{left}+{right}@{of.outputs[0]}")

    def constant(self, node: Node, place: int) -> Array:
        """The node's input at `place`, which has to be one."""
        name = node.inputs[place]
        if name not in self.constants:
            raise EngineError(
                f"{node.op} {node.name!r}: torch needs its input {place} to be a constant, and "
                f"{name!r} is computed: export the bundle again"
            )
        return self.constants[name]

    def dequantized(self, node: Node, scale: int, zero: int) -> str:
        """Name of the float weights of input 1, from the places of its scales and zero points."""
        values = self.constant(node, 1).astype(np.float32)
        if _input(node, zero):
            values -= self.constant(node, zero).astype(np.float32)
        return self.keep(f"{node.inputs[1]}@{node.outputs[0]}", values * self.constant(node, scale))

    def keep(self, name: str, value: Array) -> str:
        self.constants[name] = value
        return name


def lower(graph: OnnxGraph) -> OnnxGraph:
    """The same computation in operators that torch has.

    Raises:
        EngineError: a fused operator has an option or input that is not supported, or a quantized
            value is read in another way than described above.
    """
    state = _Lowering(dict(graph.constants))
    for node in graph.nodes:
        _require_reader(node, state.quantized)
        inputs = tuple(state.quantized.get(name, name) for name in node.inputs)
        LOWERINGS.get(node.op, _as_it_is)(replace(node, inputs=inputs), state)
    if rounded := sorted(state.quantized.keys() & set(graph.outputs)):
        raise EngineError(f"expected float32 logits; the graph gives quantized {rounded[0]!r}")
    nodes = _with_linear(state.nodes, state.constants, graph.outputs)
    read = {name for node in nodes for name in node.inputs}.union(graph.outputs)
    kept = {name: value for name, value in state.constants.items() if name in read}
    return replace(graph, nodes=nodes, constants=kept)


def _require_reader(node: Node, quantized: Mapping[str, str]) -> None:
    for place, name in enumerate(node.inputs):
        if name in quantized and (place or node.op not in READS_INT8):
            raise EngineError(
                f"torch runs no {node.op} on the quantized value {name!r}, only "
                f"{' and '.join(READS_INT8)}: export the bundle again, with --targets onnx-fp16"
            )


def _input(node: Node, place: int) -> str:
    """Name of an input that may be left out: empty if it is."""
    return node.inputs[place] if len(node.inputs) > place else ""


def _output(node: Node, place: int) -> str:
    return node.outputs[place] if len(node.outputs) > place else ""


def _as_it_is(node: Node, state: _Lowering) -> None:
    state.add(node)


def _quantize(node: Node, state: _Lowering) -> None:
    state.quantized[node.outputs[0]] = node.inputs[0]


def _integer_product(node: Node, state: _Lowering) -> None:
    output, bias = node.outputs[0], _input(node, 6)
    inputs = [node.inputs[0], state.dequantized(node, 3, 5)]
    product = state.emit(node, "MatMul", inputs, f"{output}@product" if bias else output)
    if bias:
        state.emit(node, "Add", [product, bias], output)


def _attention(node: Node, state: _Lowering) -> None:
    _attend(node, state, node.inputs[1], mask=3, others=(4, 5, 6))


def _integer_attention(node: Node, state: _Lowering) -> None:
    _attend(node, state, state.dequantized(node, 4, 7), mask=5, others=(8,))


def _attend(
    node: Node, state: _Lowering, weight: str, *, mask: int, others: tuple[int, ...]
) -> None:
    kept, output, seen = node.attributes, node.outputs[0], _input(node, mask)
    odd = sorted(name for name in kept if name not in ATTENTION and kept[name])
    odd += [f"input {place}" for place in others if _input(node, place)]
    odd += [f"output {place}" for place in (1, 2) if _output(node, place)]
    if odd:
        raise EngineError(f"torch runs no {node.op} with {', '.join(odd)}")
    qkv = state.emit(node, "MatMul", [node.inputs[0], weight], f"{output}@product")
    if bias := _input(node, 2):
        qkv = state.emit(node, "Add", [qkv, bias], f"{output}@qkv")
    if seen and seen not in state.masks:
        value = float(kept.get("mask_filter_value", MASKED))
        state.masks[seen] = state.emit(node, MASK_BIAS, [seen, qkv], f"{seen}@bias", value=value)
    options = {"num_heads": kept["num_heads"], "scale": kept.get("scale", 0.0)}
    state.emit(node, ATTEND, [qkv, state.masks.get(seen, "")], output, **options)


def _embeddings(node: Node, state: _Lowering) -> None:
    ids, segments, words, positions, kinds, gamma, beta = node.inputs[:7]
    name = node.outputs[0]
    zero, one = (state.keep(f"@{value}", np.array([value], np.int64)) for value in (0, 1))
    if places := _input(node, 8):
        rows = state.emit(node, "Gather", [positions, places], f"{name}@positions", axis=0)
    else:
        tokens = state.emit(node, "Shape", [ids], f"{name}@tokens", start=1, end=2)
        rows = state.emit(node, "Slice", [positions, zero, tokens, zero], f"{name}@positions")
    total = state.emit(node, "Gather", [words, ids], f"{name}@words", axis=0)
    total = state.sum(node, total, rows)
    if segments:
        kind = state.emit(node, "Gather", [kinds, segments], f"{name}@segments", axis=0)
        total = state.sum(node, total, kind)
    _norm(node, state, total, gamma, beta)
    if (count := _output(node, 1)) and (mask := _input(node, 7)):
        state.emit(node, "ReduceSum", [mask, one], count, keepdims=0)
    if summed := _output(node, 2):
        state.emit(node, "Identity", [total], summed)


def _skip(node: Node, state: _Lowering) -> None:
    left, right, gamma, beta, bias = (*node.inputs, "", "")[:5]
    if _output(node, 1) or _output(node, 2):
        raise EngineError(f"torch runs no {node.op} that gives means or deviations")
    if left not in state.products:  # the bias belongs to the product, if there is one
        left, right = right, left
    total = state.sum(node, state.sum(node, left, bias), right)
    _norm(node, state, total, gamma, beta)
    if summed := _output(node, 3):
        state.emit(node, "Identity", [total], summed)


def _norm(node: Node, state: _Lowering, total: str, gamma: str, beta: str) -> None:
    options = {"axis": -1, "epsilon": node.attributes.get("epsilon", 1e-12)}
    state.emit(node, "LayerNormalization", [total, gamma, beta], node.outputs[0], **options)


def _bias_gelu(node: Node, state: _Lowering) -> None:
    total = state.sum(node, node.inputs[0], node.inputs[1])
    state.emit(node, GELU, [total], node.outputs[0])


def _block_rows(node: Node, state: _Lowering) -> None:
    """Pairs of numbers of four bits in a byte, as `mtl_edge.export.word_table_onnx` writes them."""
    kept, codes, scales = dict(node.attributes), state.constant(node, 0), _scales(node, state)
    known = {"gather_axis": 0, "quantize_axis": 1, "bits": 4, "block_size": kept.get("block_size")}
    if codes.dtype != np.uint8 or {**known, **kept} != known or _input(node, 3):
        raise EngineError(f"torch runs no {node.op} of {codes.dtype} with {kept}")
    values = np.stack([codes & 15, codes >> 4], -1).reshape(*scales.shape, -1).astype(np.float32)
    rows = ((values - 8) * scales[..., np.newaxis]).reshape(len(codes), -1)
    inputs = [state.keep(f"{node.inputs[0]}@rows", rows), node.inputs[1]]
    state.emit(node, "Gather", inputs, node.outputs[0], axis=0)


def _scales(node: Node, state: _Lowering) -> Array:
    """A block's scales, which the graph may cast before it reads them."""
    cast = next((n for n in state.nodes if node.inputs[2] in n.outputs and n.op == "Cast"), None)
    read = node if cast is None else replace(node, inputs=(*node.inputs[:2], cast.inputs[0]))
    return state.constant(read, 2)


READS_INT8 = (f"{MICROSOFT}QAttention", f"{MICROSOFT}MatMulIntegerToFloat")
LOWERINGS: Mapping[str, Callable[[Node, _Lowering], None]] = {
    "QuantizeLinear": _quantize,
    f"{MICROSOFT}Attention": _attention,
    f"{MICROSOFT}BiasGelu": _bias_gelu,
    f"{MICROSOFT}EmbedLayerNormalization": _embeddings,
    f"{MICROSOFT}GatherBlockQuantized": _block_rows,
    f"{MICROSOFT}MatMulIntegerToFloat": _integer_product,
    f"{MICROSOFT}QAttention": _integer_attention,
    f"{MICROSOFT}SkipLayerNormalization": _skip,
}


def _with_linear(
    nodes: Sequence[Node], constants: Mapping[str, Array], outputs: Sequence[str]
) -> tuple[Node, ...]:
    """A product with a matrix and the one addition that reads it are one operation."""
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update(outputs)
    ranks = {name: value.ndim for name, value in constants.items()}
    products = {
        node.outputs[0]: node
        for node in nodes
        if node.op == "MatMul" and ranks.get(node.inputs[1]) == 2
    }
    merged: set[str] = set()  # products that went into an addition
    after: list[Node] = []
    for node in nodes:
        taken = next((n for n in node.inputs if n in products and readers[n] == 1), None)
        bias = next((n for n in node.inputs if ranks.get(n) == 1), None)
        if node.op == "Add" and taken is not None and bias is not None:
            inputs = (*products[taken].inputs, bias)
            node = replace(node, op=LINEAR, inputs=inputs)
            merged.add(taken)
        after.append(node)
    return tuple(node for node in after if node.outputs[0] not in merged)
