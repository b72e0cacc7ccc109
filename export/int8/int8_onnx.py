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
from onnx import NodeProto, TensorProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from mtl_edge.errors import ExportError
from mtl_edge.export.graphs.products import Product, products_of
from mtl_edge.export.graphs.rewrite import MICROSOFT, Constants, part_norms
from mtl_edge.export.int8.calibration import Range, ranges_of, smoothing
from mtl_edge.export.int8.word_table import PLAIN, WordTable
from mtl_edge.export.int8.word_table_onnx import word_rows

__all__ = ["prepare", "quantize"]

# An input is smoothed if its largest channel is so many times the median channel. At 3, seven more
# inputs of MiniLM are, which takes 4% more time and moves logits by a tenth less.
UNEVEN = 5.0
FloatArray = npt.NDArray[np.float32]


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


def prepare(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """A copy with the same values, in the form that `quantize` takes.

    Args:
        model: fp32, as `mtl_edge.export.graphs.fuse` leaves it.
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
    table: WordTable = PLAIN,
) -> onnx.ModelProto:
    """A copy of `model` in int8.

    Args:
        model: fp32, as `prepare` leaves it.
        width: hidden size.
        calibration: token ids of real texts, whose activations set the scales.
        reduce_range: weights in 7 bits. x86 CPUs without VNNI add pairs of products in 16 bits,
            where two of 255 * 127 do not fit and two of 255 * 63 do, or are slower.
        keep: outputs of products that stay float32.
        table: how the word table is stored.

    Raises:
        ExportError: there is nothing to calibrate with, or no word table to store otherwise.
        OptionError: `table` does not fit the word table.
    """
    graph = _Graph(model, 63 if reduce_range else 127, table)
    readers: dict[str, list[Product]] = {}
    for found in products_of(graph.model, width):
        if found.output not in keep:
            readers.setdefault(found.input, []).append(found)
    ranges = ranges_of(graph.model, list(readers), calibration)
    products = {p.node.output[0]: p for some in readers.values() for p in some}
    bias_additions = {p.output for p in products.values() if p.bias}
    unfused_words = all(node.op_type != "EmbedLayerNormalization" for node in graph.nodes)
    inputs: dict[str, Quantized] = {}
    rewritten: list[NodeProto] = []
    for node in graph.nodes:
        product = products.get(node.output[0])
        if product is not None:
            name = product.input
            if name not in inputs:  # once per tensor, however many products read it
                inputs[name], steps = graph.quantize_input(name, ranges[name], readers[name])
                rewritten += steps
            rewritten.append(graph.product(product, inputs[name]))
        elif node.output[0] in bias_additions:
            continue
        elif node.op_type == "EmbedLayerNormalization":
            rewritten += graph.embeddings(node)
        elif unfused_words and node.op_type == "Gather" and node.input[1] == "input_ids":
            rewritten += graph.words(node.input[0], node.output[0])
        else:
            rewritten.append(node)
    if not (table.plain or graph.has_words):
        raise ExportError(
            "expected an encoder with a word table that input_ids read, to make it smaller; it has "
            "none: leave out --vocabulary and --embeddings"
        )
    return graph.finish(rewritten)


def _uneven(seen: Range) -> bool:
    return bool(seen.largest.max() > UNEVEN * np.median(seen.largest))


class _Graph:
    """A model under construction."""

    def __init__(self, model: onnx.ModelProto, largest_weight: int, table: WordTable) -> None:
        self._largest_weight = largest_weight
        self._table, self.has_words = table, False
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
            factor = smoothing(seen, [self.array(reader.node.input[1]) for reader in readers])
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
        """Rows of the word table for `input_ids`."""
        self.has_words = True
        return word_rows(self._constants, self.array(table), output, self._table)

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
