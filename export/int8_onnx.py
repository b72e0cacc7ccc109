"""A fused fp32 ONNX graph in int8 for ONNX Runtime.

Activations are quantized with scales fixed at export (static), so a text's numbers do not depend on
its batch-mates; weights per column. Every product of the encoder becomes one operator:

    Attention     ->  [Mul], QuantizeLinear, QAttention              int8 in, float32 out
    MatMul, Add   ->  [Mul], QuantizeLinear, MatMulIntegerToFloat    int8 in, float32 out
    EmbedLayerNormalization
                  ->  Gather of int8 rows, one scale a row; Sub, LayerNormalization

The Mul is SmoothQuant's (Xiao et al. 2023, arXiv:2211.10438): where a few channels of an input are
far larger than the rest, they are divided down and the weights' rows multiplied up, so that one
scale serves all channels.

Outputs stay float32: unlike a QDQ graph, nothing is quantized again before the bias, GELU, residual
and layer norm that follow, which is both faster and closer to fp32. Softmax, layer norm, GELU and
the heads are float32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from mtl_edge.batches.planning import pad
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError
from mtl_edge.export.rewrite import (
    MICROSOFT,
    Constants,
    part_norms,
    readers_of,
)

__all__ = ["SMOOTHING", "Product", "prepare", "probe", "products_of", "quantize"]

SMOOTHING = 0.9  # how much of the unevenness goes to the weights; best of 0.5 to 0.95 on MiniLM
# An input is smoothed if its largest channel is so many times the median channel. At 3, seven more
# inputs of MiniLM are, which takes 4% more time and moves logits by a tenth less.
UNEVEN = 5.0
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Range:
    """Least and largest value of each channel over the calibration texts, zero included."""

    low: FloatArray
    high: FloatArray

    @property
    def largest(self) -> FloatArray:
        return np.maximum(-self.low, self.high)


@dataclass(frozen=True, slots=True)
class Quantized:
    """Names of a quantized tensor and of what it was quantized with.

    Attributes:
        factor: of an input that was smoothed, what each channel was multiplied by.
    """

    values: str
    scale: str
    zero_point: str
    factor: FloatArray | None = None


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


def prepare(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """A copy with the same values, in the form that `quantize` takes.

    Args:
        model: fp32, as `mtl_edge.export.fuse` leaves it.
        width: hidden size.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    part_norms(prepared, {product.output for product in products_of(prepared, width)})
    OnnxModel(prepared).prune_graph()
    return prepared


def quantize(
    model: onnx.ModelProto,
    width: int,
    calibration: Sequence[Sequence[int]],
    reduce_range: bool = False,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of `model` in int8.

    Args:
        model: fp32, as `prepare` leaves it.
        width: hidden size.
        calibration: token ids of real texts, whose activations set the scales.
        reduce_range: weights in 7 bits. x86 CPUs without VNNI add pairs of products in 16 bits,
            where two of 255 * 127 do not fit and two of 255 * 63 do, or are slower.
        keep: outputs of products that stay float32.

    Raises:
        ExportError: there is nothing to calibrate with.
    """
    graph = _Graph(model, 63 if reduce_range else 127)
    readers: dict[str, list[Product]] = {}
    for product in products_of(graph.model, width):
        if product.output not in keep:
            readers.setdefault(product.input, []).append(product)
    ranges = _ranges(graph.model, list(readers), calibration)
    products = {p.node.output[0]: p for some in readers.values() for p in some}
    taken_in = {p.output for p in products.values() if p.bias}  # additions of biases
    loose_words = all(node.op_type != "EmbedLayerNormalization" for node in graph.nodes)
    inputs: dict[str, Quantized] = {}
    rewritten: list[NodeProto] = []
    for node in graph.nodes:
        made = products.get(node.output[0])
        if made is not None:
            name = made.input
            if name not in inputs:  # once per tensor, however many products read it
                inputs[name], steps = graph.quantize_input(name, ranges[name], readers[name])
                rewritten += steps
            rewritten.append(graph.product(made, inputs[name]))
        elif node.output[0] in taken_in:
            continue
        elif node.op_type == "EmbedLayerNormalization":
            rewritten += graph.embeddings(node)
        elif loose_words and node.op_type == "Gather" and node.input[1] == "input_ids":
            rewritten += graph.words(node.input[0], node.output[0])
        else:
            rewritten.append(node)
    return graph.finish(rewritten)


def _ranges(
    model: onnx.ModelProto, names: Sequence[str], calibration: Sequence[Sequence[int]]
) -> dict[str, Range]:
    """Each named tensor's range over the calibration texts, per channel (its last axis)."""
    if not calibration:
        raise ExportError("no texts to calibrate int8 with; the checkpoint holds no samples")
    if not names:  # a graph without any transformer layer
        return {}
    session = probe(model, names)
    ranges: dict[str, Range] = {}
    for tokens in calibration:  # one by one: padding must not widen a range
        ids, mask = pad([tokens])
        values = session.run(names, {"input_ids": ids, "attention_mask": mask})
        for name, value in zip(names, values, strict=True):
            channels = value.reshape(-1, value.shape[-1])
            seen = ranges.get(name, Range(np.float32(0), np.float32(0)))  # type: ignore[arg-type]
            ranges[name] = Range(
                np.minimum(seen.low, channels.min(0)), np.maximum(seen.high, channels.max(0))
            )
    return ranges


def probe(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """A session that also gives these tensors."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {output.name for output in probed.graph.output}
    probed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    return ort.InferenceSession(
        probed.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )


def _uneven(seen: Range) -> bool:
    return bool(seen.largest.max() > UNEVEN * np.median(seen.largest))


def _smoothing(seen: Range, weights: Sequence[FloatArray]) -> FloatArray:
    """What to multiply each channel by; the weights' rows have to be divided by the same."""
    rows = np.max([np.abs(weight).max(1) for weight in weights], 0)
    tiny = 1e-5
    divisor = np.maximum(seen.largest, tiny) ** SMOOTHING
    divisor /= np.maximum(rows, tiny) ** (1 - SMOOTHING)
    factor: FloatArray = (np.exp(np.log(divisor).mean()) / divisor).astype(np.float32)
    return factor


class _Graph:
    """A model under construction."""

    def __init__(self, model: onnx.ModelProto, largest_weight: int) -> None:
        self._largest_weight = largest_weight
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes = list(self.model.graph.node)
        self._constants = Constants(self.model)
        self.array, self.add = self._constants.array, self._constants.add

    def quantize_input(
        self, name: str, seen: Range, readers: Sequence[Product]
    ) -> tuple[Quantized, list[NodeProto]]:
        """Unsigned, with a zero point: the form that ONNX Runtime's kernels are fastest with."""
        steps = []
        source, factor = name, None
        if _uneven(seen):
            factor = _smoothing(seen, [self.array(reader.node.input[1]) for reader in readers])
            seen = Range(seen.low * factor, seen.high * factor)
            source = f"{name}_smooth"
            inputs = [name, self.add(f"{name}_smoothing", factor)]
            steps.append(helper.make_node("Mul", inputs, [source], name=f"smooth {name}"))
        low, high = float(seen.low.min()), float(seen.high.max())
        scale = max((high - low) / 255, 1e-12)
        to = Quantized(
            f"{name}_int8",
            self.add(f"{name}_scale", np.asarray(scale, np.float32)),
            self.add(f"{name}_zero_point", np.asarray(round(-low / scale), np.uint8)),
            factor,
        )
        inputs = [source, to.scale, to.zero_point]
        steps.append(
            helper.make_node("QuantizeLinear", inputs, [to.values], name=f"quantize {name}")
        )
        return to, steps

    def _weight(self, node: NodeProto, left: Quantized) -> Quantized:
        """Signed and symmetric, one scale a column; of its node alone, as layers may share one."""
        weight = self.array(node.input[1])
        if left.factor is not None:
            weight = (weight / left.factor[:, np.newaxis]).astype(np.float32)
        name = f"{node.output[0]}_weight"
        largest = np.abs(weight).max(0) / self._largest_weight
        scale = np.maximum(largest, 1e-12).astype(np.float32)
        return Quantized(
            self.add(f"{name}_int8", np.rint(weight / scale).astype(np.int8)),
            self.add(f"{name}_scale", scale),
            self.add(f"{name}_zero_point", np.zeros((), np.int8)),
        )

    def product(self, product: Product, left: Quantized) -> NodeProto:
        node = product.node
        right = self._weight(node, left)
        if node.op_type == "Attention":
            bias, mask = node.input[2], node.input[3]
            inputs = [left.values, right.values, bias, left.scale, right.scale, mask]
            inputs += [left.zero_point, right.zero_point]
            kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            return helper.make_node(
                "QAttention",
                inputs,
                list(node.output),
                name=node.name,
                domain=MICROSOFT,
                num_heads=kept["num_heads"],
                unidirectional=kept.get("unidirectional", 0),
            )
        # ONNX Runtime 1.20 to 1.24 makes sums exact only where weights have a zero point.
        inputs = [left.values, right.values, left.scale, right.scale]
        inputs += [left.zero_point, right.zero_point, *filter(None, [product.bias])]
        return helper.make_node(
            "MatMulIntegerToFloat", inputs, [product.output], name=node.name, domain=MICROSOFT
        )

    def words(self, table: str, output: str) -> list[NodeProto]:
        """Rows of the word table for `input_ids`: int8, one scale a row."""
        values = self.array(table)
        scale = np.maximum(np.abs(values).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
        rows = self.add("/word_rows_int8", np.rint(values / scale).astype(np.int8))
        scales = self.add("/word_rows_scale", scale)
        make = helper.make_node
        return [
            make("Gather", [rows, "input_ids"], ["/words_int8"]),
            make("Gather", [scales, "input_ids"], ["/words_scale"]),
            make("Cast", ["/words_int8"], ["/words_unscaled"], to=TensorProto.FLOAT),
            make("Mul", ["/words_unscaled", "/words_scale"], [output]),
        ]

    def embeddings(self, node: NodeProto) -> list[NodeProto]:
        """Word rows in int8; positions, and the one segment there is, in float32 and negated.

        The operator's second output, how long each text is, becomes the mask itself.
        """
        _, _, words, positions, segments, gamma, beta = node.input[:7]
        position_rows = self.array(positions)
        if segments:
            position_rows = position_rows + self.array(segments)[0]
        make = helper.make_node
        return [
            *self.words(words, "/words"),
            *self._positions(node, -position_rows),
            make("Sub", ["/words", "/positions"], ["/total"]),
            make(
                "LayerNormalization",
                ["/total", gamma, beta],
                [node.output[0]],
                name="embeddings",
                epsilon=next(a.f for a in node.attribute if a.name == "epsilon"),
            ),
            make("Cast", ["attention_mask"], [node.output[1]], to=TensorProto.INT32),
        ]

    def _positions(self, node: NodeProto, rows: FloatArray) -> list[NodeProto]:
        make = helper.make_node
        if any(n.op_type == "CumSum" for n in self.nodes):  # as RoBERTa counts, from its padding id
            return [
                make("Gather", [self.add("/position_rows", rows), node.input[8]], ["/positions"])
            ]
        summed = self.add("/position_rows", rows[np.newaxis])
        start = self.add("/position_start", np.array([0], np.int64))
        axis = self.add("/position_axis", np.array([1], np.int64))
        return [
            make("Shape", ["input_ids"], ["/tokens"], start=1, end=2),
            make("Slice", [summed, start, "/tokens", axis], ["/positions"]),
        ]

    def finish(self, nodes: Sequence[NodeProto]) -> onnx.ModelProto:
        """The model with these nodes, without what none of its outputs needs."""
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(nodes)
        self._constants.store(self.model)
        del graph.value_info[:]
        whole = OnnxModel(self.model)
        whole.prune_graph()
        whole.topological_sort()
        return self.model
