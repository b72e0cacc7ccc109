"""What a checkpoint can be exported to: one entry and one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from mtl_edge.bundle import Graph
from mtl_edge.export import int8_onnx, int8_openvino
from mtl_edge.export.explain import noise_of, worst
from mtl_edge.export.fuse import fuse
from mtl_edge.training.backbone import Backbone

__all__ = ["DEFAULT", "TARGETS", "Source", "Target"]


@dataclass(frozen=True, slots=True)
class Source:
    """What every target is built from.

    Attributes:
        file: the plain fp32 ONNX graph.
        depth: layers of the backbone that the graph has.
        calibration: token ids of real texts.
        reduce_range: of onnx-int8: weights in 7 bits.
        keep_worst: of onnx-int8: how many products stay float32, those that int8 adds most noise
            to.
    """

    file: Path
    backbone: Backbone
    depth: int
    calibration: Sequence[Sequence[int]]
    reduce_range: bool = False
    keep_worst: int = 0


def _onnx_fp32(source: Source, file: Path) -> None:
    _save(fuse(source.file, source.backbone, source.depth), file)


def _onnx_int8(source: Source, file: Path) -> None:
    fused = fuse(source.file, source.backbone, source.depth)
    width = source.backbone.info.hidden_size
    calibration, reduce_range = source.calibration, source.reduce_range
    keep = []
    if source.keep_worst:
        keep = worst(noise_of(fused, width, calibration, reduce_range), source.keep_worst)
    _save(int8_onnx.quantize(fused, width, calibration, reduce_range, keep), file)


def _onnx_fp16(source: Source, file: Path) -> None:
    fused = fuse(source.file, source.backbone, source.depth)
    # Inputs and outputs keep their types, so that the runtime need not know.
    _save(convert_float_to_float16(fused, keep_io_types=True), file)


def _openvino_int8(source: Source, file: Path) -> None:
    int8_openvino.quantize(source.file, source.calibration, file)


def _save(model: onnx.ModelProto, file: Path) -> None:
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


@dataclass(frozen=True, slots=True)
class Target:
    """A form of the graph.

    Attributes:
        build: writes the graph to the file it is given, and its companions beside it.
        size: bytes that a weight takes on disk.
        use: when to choose it.
    """

    engine: str
    precision: str
    file: str
    companions: tuple[str, ...]
    build: Callable[[Source, Path], None]
    size: str
    use: str

    def graph(self, name: str) -> Graph:
        return Graph(name, self.engine, self.precision, self.file, self.companions)


TARGETS: Mapping[str, Target] = {
    "onnx-int8": Target(
        "onnxruntime", "int8", "model.int8.onnx", (), _onnx_int8, "1",
        "CPUs, in apps that ship ONNX Runtime",
    ),
    "openvino-int8": Target(
        "openvino", "int8", "openvino.int8.xml", ("openvino.int8.bin",), _openvino_int8, "1",
        "x86 CPUs: the fastest there",
    ),
    "onnx-fp16": Target(
        "onnxruntime", "fp16", "model.fp16.onnx", (), _onnx_fp16, "2",
        "GPUs, through ONNX Runtime's CUDA or DirectML; slow on a CPU",
    ),
    "onnx-fp32": Target(
        "onnxruntime", "fp32", "model.fp32.onnx", (), _onnx_fp32, "4",
        "a reference to compare with",
    ),
}  # fmt: skip

DEFAULT = ("onnx-int8", "openvino-int8")
