"""What a checkpoint can be exported to: one entry and one function each.

A target's encoder is made first, then joined with heads and written, so that its heads can be
taught on its own states, and replaced later without touching the encoder's file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import openvino as ov
from onnxruntime.transformers.float16 import convert_float_to_float16

from mtl_edge.bundle import ExitGraph, Graph
from mtl_edge.errors import OptionError
from mtl_edge.export.graphs import openvino_graph
from mtl_edge.export.graphs.formats import GraphFormat, OnnxFormat, OpenVinoFormat
from mtl_edge.export.graphs.source import Source
from mtl_edge.export.int8 import int8_onnx, int8_openvino
from mtl_edge.export.int8.explain import noise_of, worst
from mtl_edge.export.int8.word_table_openvino import with_word_table
from mtl_edge.export.options import ExportOptions

__all__ = ["DEFAULT", "TARGETS", "Target", "targets_of"]


def _onnx_int8(source: Source) -> onnx.ModelProto:
    prepared, settings = source.prepared(), source.settings
    calibration, reduce_range = source.calibration, settings.reduce_range
    keep = []
    if settings.keep_worst:
        noises = noise_of(prepared, source.width, calibration, reduce_range)
        keep = worst(noises, settings.keep_worst)
    return int8_onnx.quantize(prepared, source.width, calibration, reduce_range, keep, source.words)


def _openvino_int8(source: Source) -> ov.Model:
    encoder = int8_openvino.quantize(source)
    return encoder if source.words.plain else with_word_table(encoder, source.words)


def _onnx_fp16(source: Source) -> onnx.ModelProto:
    # Inputs and outputs keep their types, so that heads and runtime need not know.
    half: onnx.ModelProto = convert_float_to_float16(source.fused(), keep_io_types=True)
    return half


@dataclass(frozen=True, slots=True)
class Target:
    """A graph that export can make.

    Attributes:
        files: what the engine opens, then its companions.
        heads: positions of those files that new heads replace.
        encoder: makes the encoder that `format` writes.
        size: bytes that a weight of the encoder takes on disk.
        use: when to choose it.
    """

    engine: str
    precision: str
    format: GraphFormat
    files: tuple[str, ...]
    heads: tuple[int, ...]
    encoder: Callable[[Source], Any]
    size: str
    use: str

    def graph(self, name: str) -> Graph:
        heads = tuple(self.files[place] for place in self.heads)
        return Graph(name, self.engine, self.precision, self.files[0], self.files[1:], heads)

    def exit_files(self, depth: int) -> tuple[str, ...]:
        """Names of the files of a cheaper stage."""
        parts = (name.rsplit(".", 1) for name in self.files)
        return tuple(f"{stem}.exit{depth}.{kind}" for stem, kind in parts)

    def write_exit(self, encoder: Any, heads: Path, folder: Path, depth: int) -> ExitGraph:
        """Write a cheaper stage's files beside the graph of full depth."""
        files = self.exit_files(depth)
        first, *rest = self.format.write_exit(encoder, heads, folder, files, self.files)
        return ExitGraph(first, tuple(rest), tuple(files[place] for place in self.heads))


def _onnx(precision: str, encoder: Callable[[Source], Any], size: str, use: str) -> Target:
    names = (f"model.{precision}.onnx", f"encoder.{precision}.bin", f"heads.{precision}.bin")
    return Target("onnxruntime", precision, OnnxFormat(), names, (0, 2), encoder, size, use)


def _openvino(precision: str, encoder: Callable[[Source], Any], size: str, use: str) -> Target:
    parts = (f"openvino.{precision}", f"openvino.heads.{precision}")
    names = tuple(f"{part}.{kind}" for part in parts for kind in ("xml", "bin"))
    form = OpenVinoFormat(half=precision == "bf16")
    return Target("openvino", precision, form, names, (2, 3), encoder, size, use)


TARGETS: Mapping[str, Target] = {
    "onnx-int8": _onnx(
        "int8", _onnx_int8, "1", "CPUs, in apps that ship ONNX Runtime"
    ),
    "openvino-int8": _openvino(
        "int8", _openvino_int8, "1", "x86 CPUs, where batches are large; its GPUs and NPUs"
    ),
    "onnx-fp16": _onnx(
        "fp16", _onnx_fp16, "2",
        "GPUs, through ONNX Runtime's CUDA or DirectML; slow on a CPU",
    ),
    "openvino-bf16": _openvino(
        "bf16", lambda source: openvino_graph.read(source.file), "2",
        "CPUs with AVX-512 BF16 or AMX, where int8 loses too much; float32 elsewhere",
    ),
    "onnx-fp32": _onnx("fp32", Source.fused, "4", "a reference to compare with"),
}  # fmt: skip

DEFAULT = ExportOptions.targets


def targets_of(names: str | Iterable[str]) -> list[str]:
    """Targets as a user lists them, each once; in a string they are separated by commas.

    Raises:
        OptionError: one is unknown, or there is none.
    """
    listed = names.split(",") if isinstance(names, str) else names
    targets = list(dict.fromkeys(filter(None, listed)))
    if unknown := [t for t in targets if t not in TARGETS]:
        raise OptionError(f"--targets {unknown[0]}: unknown; there are {', '.join(TARGETS)}")
    if not targets:
        raise OptionError(f"--targets is empty; there are {', '.join(TARGETS)}")
    return targets
