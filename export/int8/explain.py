"""How much noise int8 adds to each product of the encoder, and which ones add most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import TensorProto, numpy_helper

from mtl_edge.batches.planning import pad
from mtl_edge.export.graphs.openvino_graph import running
from mtl_edge.export.graphs.products import Product, products_of
from mtl_edge.export.int8.calibration import probe
from mtl_edge.export.int8.int8_onnx import quantize

__all__ = ["QuantizationNoise", "noise_of", "noise_of_openvino", "worst"]

TEXTS = 64
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuantizationNoise:
    """
    Attributes:
        output: name of the product's output, by which it is known to `quantize`.
        shape: of its weights.
        own: signal to noise in decibels, its input being exact; none where it was not measured.
        total: the same with the noise of all products before it.
    """

    output: str
    layer: str
    shape: tuple[int, ...]
    own: float | None
    total: float


def noise_of(
    model: onnx.ModelProto,
    width: int,
    calibration: Sequence[Sequence[int]],
    reduce_range: bool = False,
) -> list[QuantizationNoise]:
    """Every product's noise over calibration texts, in the order in which they run.

    The product of its own noise is computed in float64 from the very integers and scales that the
    graph holds.

    Args:
        model: fp32, as `mtl_edge.export.int8.int8_onnx.prepare` leaves it.
        width, calibration, reduce_range: see `quantize`.

    Raises:
        ExportError: there is nothing to calibrate with.
    """
    quantized = quantize(model, width, calibration, reduce_range)
    found_in = products_of(model, width)
    if not found_in:
        return []
    outputs = [product.output for product in found_in]
    inputs = list(dict.fromkeys(product.input for product in found_in))
    exact, rounded = probe(model, [*inputs, *outputs]), probe(quantized, outputs)
    weights = {c.name: c for c in model.graph.initializer}
    products = [_QuantizedProduct(product, quantized, weights) for product in found_in]
    power, own, total = (np.zeros(len(products)) for _ in range(3))
    signal = np.zeros(len(products))
    for tokens in calibration[:TEXTS]:
        ids, mask = pad([tokens])
        feeds = {"input_ids": ids, "attention_mask": mask}
        found = dict(zip([*inputs, *outputs], exact.run([*inputs, *outputs], feeds), strict=True))
        for place, (product, other) in enumerate(
            zip(products, rounded.run(outputs, feeds), strict=True)
        ):
            wanted, got = product(found[found_in[place].input])
            power[place] += float((wanted**2).sum())
            own[place] += float(((wanted - got) ** 2).sum())
            expected = found[outputs[place]].astype(np.float64)
            signal[place] += float((expected**2).sum())
            total[place] += float(((expected - other) ** 2).sum())
    return [
        QuantizationNoise(
            product.output,
            _layer(product),
            measured.weight.shape,
            _decibels(power[place], own[place]),
            _decibels(signal[place], total[place]),
        )
        for place, (product, measured) in enumerate(zip(found_in, products, strict=True))
    ]


def worst(noises: Sequence[QuantizationNoise], count: int) -> list[str]:
    """Outputs of the products that add most noise of their own."""
    return [noise.output for noise in sorted(noises, key=lambda n: n.own or 0.0)[:count]]


def noise_of_openvino(
    exact: ov.Model, rounded: ov.Model, calibration: Sequence[Sequence[int]]
) -> list[QuantizationNoise]:
    """The same for OpenVINO, with the noise of all before it: NNCF keeps the products' names.

    Args:
        exact, rounded: the encoder before and after `mtl_edge.export.int8.int8_openvino.quantize`.
    """
    shapes = {
        node.get_friendly_name(): tuple(node.input_value(1).get_shape())
        for node in exact.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
    }
    if not shapes:
        return []
    first, second = (_probed(model, list(shapes)) for model in (exact, rounded))
    signal, noise = np.zeros(len(shapes)), np.zeros(len(shapes))
    for tokens in calibration[:TEXTS]:
        for place, (wanted, got) in enumerate(zip(first(tokens), second(tokens), strict=True)):
            signal[place] += float((wanted**2).sum())
            noise[place] += float(((wanted - got) ** 2).sum())
    return [
        QuantizationNoise(name, _short(name), shape, None, _decibels(signal[place], noise[place]))
        for place, (name, shape) in enumerate(shapes.items())
    ]


def _probed(
    model: ov.Model, names: Sequence[str]
) -> Callable[[Sequence[int]], list[npt.NDArray[np.float64]]]:
    """A text's tokens to the outputs of these nodes."""
    probed = model.clone()
    ports = probed.add_outputs([(name, 0) for name in names])
    indices = [probed.outputs.index(port) for port in ports]
    values_of = running(probed)

    def run(tokens: Sequence[int]) -> list[npt.NDArray[np.float64]]:
        values = values_of(*pad([tokens]))
        return [values[index].astype(np.float64) for index in indices]

    return run


class _QuantizedProduct:
    """One product of activations and weights, computed exactly and from the graph's integers."""

    def __init__(
        self, product: Product, quantized: onnx.ModelProto, weights: dict[str, TensorProto]
    ) -> None:
        constants = {c.name: c for c in quantized.graph.initializer}

        def constant(name: str) -> npt.NDArray[np.float64]:
            return numpy_helper.to_array(constants[name]).astype(np.float64)

        node = product.node
        self.weight = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
        name = product.input
        self._scale, self._zero = constant(f"{name}_scale"), constant(f"{name}_zero_point")
        smoothing = f"{name}_smoothing"
        self._factor = constant(smoothing) if smoothing in constants else 1.0
        column = f"{node.output[0]}_weight"
        self._rounded = constant(f"{column}_int8") * constant(f"{column}_scale")

    def __call__(self, value: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        steps = np.rint(value.astype(np.float64) * self._factor / self._scale) + self._zero
        seen = (np.clip(steps, 0, 255) - self._zero) * self._scale
        return value @ self.weight, seen @ self._rounded


def _layer(product: Product) -> str:
    """The product's place in the encoder, in short."""
    node = product.node
    if node.op_type == "Attention":
        return f"{node.name or node.output[0]} (query, key, value)"
    return _short(node.name)


def _short(name: str) -> str:
    parts = [part for part in name.split("/") if part and not part.startswith("_")]
    return "/".join(part for part in parts if part not in ("encoder", "MatMul"))


def _decibels(signal: float, noise: float) -> float:
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))
