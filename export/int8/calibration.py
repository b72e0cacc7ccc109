"""Ranges of activations over calibration texts, and how SmoothQuant evens them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from mtl_edge.batches.planning import pad
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError

__all__ = ["SMOOTHING", "Range", "probe", "ranges_of", "smoothing"]

SMOOTHING = 0.9  # how much of the unevenness goes to the weights; best of 0.5 to 0.95 on MiniLM
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Range:
    """Least and largest value of each channel over the calibration texts, zero included."""

    low: FloatArray
    high: FloatArray

    @property
    def largest(self) -> FloatArray:
        return np.maximum(-self.low, self.high)


def ranges_of(
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


def smoothing(seen: Range, weights: Sequence[FloatArray]) -> FloatArray:
    """What to multiply each channel by; the weights' rows have to be divided by the same."""
    rows = np.max([np.abs(weight).max(1) for weight in weights], 0)
    tiny = 1e-5
    divisor = np.maximum(seen.largest, tiny) ** SMOOTHING
    divisor /= np.maximum(rows, tiny) ** (1 - SMOOTHING)
    factor: FloatArray = (np.exp(np.log(divisor).mean()) / divisor).astype(np.float32)
    return factor
