"""What a checkpoint can be exported to: one entry and one function each.

A target's encoder is made first, then joined with heads and written, so that its heads can be
taught on its own states, and replaced later without touching the encoder's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import onnx
import openvino as ov
from onnxruntime.transformers.float16 import convert_float_to_float16

from mtl_edge.bundle import ExitGraph, Graph
from mtl_edge.errors import OptionError
from mtl_edge.export import int8_onnx, int8_openvino, onnx_graph, openvino_graph, smaller
from mtl_edge.export.explain import noise_of, worst
from mtl_edge.export.fuse import fuse
from mtl_edge.export.refit import GraphEncoder
from mtl_edge.export.settings import DEFAULTS, Settings
from mtl_edge.training.backbone import Backbone

__all__ = ["DEFAULT", "TARGETS", "Source", "Target", "targets_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """What every target's encoder is made from.

    Attributes:
        file: the plain fp32 ONNX graph of the encoder.
        depth: layers of the backbone that it has.
        calibration: token ids of real texts.
        kept: tokens that keep a row in the word table; none: all.
        unknown: the token whose row the others read.
    """

    file: Path
    backbone: Backbone
    depth: int
    calibration: Sequence[Sequence[int]]
    settings: Settings = DEFAULTS
    kept: frozenset[int] | None = None
    unknown: int = 0

    @property
    def width(self) -> int:
        """Of a state."""
        return self.backbone.width

    def fused(self) -> onnx.ModelProto:
        """The encoder in ONNX Runtime's operators."""
        return fuse(self.file, self.backbone, self.depth)

    def prepared(self) -> onnx.ModelProto:
        """The same in the form that int8 starts from."""
        return int8_onnx.prepare(self.fused(), self.width)


class Form(Protocol):
    """How an engine's graphs are written."""

    def write(self, encoder: Any, heads: Path, folder: Path, files: Sequence[str]) -> None:
        """Write a graph to `folder` from an encoder and an ONNX graph of heads."""
        ...

    def write_exit(
        self, encoder: Any, heads: Path, folder: Path, files: Sequence[str], full: Sequence[str]
    ) -> tuple[str, ...]:
        """The same of fewer layers, beside the graph `full`; returns the files that it opens."""
        ...

    def replace_heads(self, former: Path, heads: Path, folder: Path, files: Sequence[str]) -> None:
        """Write those of a graph's files that other heads change; `folder` has the rest."""
        ...

    def states(self, encoder: Any, source: Source) -> GraphEncoder:
        """The encoder as what computes states."""
        ...


class OnnxForm:
    """Files: the graph, the encoder's weights, the heads' weights."""

    def write(self, encoder: Any, heads: Path, folder: Path, files: Sequence[str]) -> None:
        graph, own, of_heads = files
        model = onnx_graph.join(encoder, onnx.load(str(heads)))
        onnx_graph.write(model, folder, graph, own, of_heads)

    def write_exit(
        self, encoder: Any, heads: Path, folder: Path, files: Sequence[str], full: Sequence[str]
    ) -> tuple[str, ...]:
        places = onnx_graph.places_of(folder, full[0])
        of_encoder = {digest: place for digest, place in places.items() if place[0] == full[1]}
        graph, own, of_heads = files
        model = onnx_graph.join(encoder, onnx.load(str(heads)))
        onnx_graph.write(model, folder, graph, own, of_heads, of_encoder)
        used = {place[0] for place in onnx_graph.places_of(folder, graph).values()}
        return (graph, *(name for name in (own, full[1]) if name in used), of_heads)

    def replace_heads(self, former: Path, heads: Path, folder: Path, files: Sequence[str]) -> None:
        onnx_graph.replace_heads(former, heads, folder, files)

    def states(self, encoder: Any, source: Source) -> GraphEncoder:
        run = onnx_graph.states_of(encoder, source.depth)
        identity = sha256(encoder.SerializeToString(deterministic=True)).hexdigest()
        return GraphEncoder(run, identity, source.depth + 1, source.width)


@dataclass(frozen=True, slots=True)
class OpenVinoForm:
    """Files: the encoder's graph and weights, the heads' graph and weights.

    Attributes:
        half: whether the encoder's weights are written in 16 bits.
    """

    half: bool = False

    def write(self, encoder: Any, heads: Path, folder: Path, files: Sequence[str]) -> None:
        openvino_graph.write(encoder, folder / files[0], self.half)
        self.replace_heads(folder, heads, folder, files)

    def write_exit(
        self, encoder: Any, heads: Path, folder: Path, files: Sequence[str], full: Sequence[str]
    ) -> tuple[str, ...]:
        self.write(encoder, heads, folder, files)
        return tuple(files)

    def replace_heads(self, former: Path, heads: Path, folder: Path, files: Sequence[str]) -> None:
        openvino_graph.write(openvino_graph.read(heads), folder / files[2])

    def states(self, encoder: Any, source: Source) -> GraphEncoder:
        run = openvino_graph.states_of(encoder, source.depth)
        return GraphEncoder(run, openvino_graph.digest(encoder), source.depth + 1, source.width)


def _onnx_int8(source: Source) -> onnx.ModelProto:
    prepared, settings = source.prepared(), source.settings
    calibration, reduce_range = source.calibration, settings.reduce_range
    keep = []
    if settings.keep_worst:
        noises = noise_of(prepared, source.width, calibration, reduce_range)
        keep = worst(noises, settings.keep_worst)
    encoder = int8_onnx.quantize(prepared, source.width, calibration, reduce_range, keep)
    if source.kept is not None:
        encoder, _ = smaller.trim_vocabulary(encoder, source.kept, source.unknown)
    return smaller.embeddings_in_4_bits(encoder) if settings.four_bits else encoder


def _openvino_int8(source: Source) -> ov.Model:
    encoder = int8_openvino.quantize(source)
    if source.kept is not None:
        encoder, _ = smaller.trim_vocabulary_openvino(encoder, source.kept, source.unknown)
    if source.settings.four_bits:
        encoder = smaller.embeddings_in_4_bits_openvino(encoder)
    return encoder


def _onnx_fp16(source: Source) -> onnx.ModelProto:
    # Inputs and outputs keep their types, so that heads and runtime need not know.
    half: onnx.ModelProto = convert_float_to_float16(source.fused(), keep_io_types=True)
    return half


@dataclass(frozen=True, slots=True)
class Target:
    """A form of the graph.

    Attributes:
        files: what the engine opens, then its companions.
        heads: positions of those files that new heads replace.
        encoder: makes the encoder that `form` writes.
        size: bytes that a weight of the encoder takes on disk.
        use: when to choose it.
    """

    engine: str
    precision: str
    form: Form
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
        first, *rest = self.form.write_exit(encoder, heads, folder, files, self.files)
        return ExitGraph(first, tuple(rest), tuple(files[place] for place in self.heads))


def _onnx(precision: str, encoder: Callable[[Source], Any], size: str, use: str) -> Target:
    names = (f"model.{precision}.onnx", f"encoder.{precision}.bin", f"heads.{precision}.bin")
    return Target("onnxruntime", precision, OnnxForm(), names, (0, 2), encoder, size, use)


def _openvino(precision: str, encoder: Callable[[Source], Any], size: str, use: str) -> Target:
    parts = (f"openvino.{precision}", f"openvino.heads.{precision}")
    names = tuple(f"{part}.{kind}" for part in parts for kind in ("xml", "bin"))
    form = OpenVinoForm(half=precision == "bf16")
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

DEFAULT = ("onnx-int8", "openvino-int8")


def targets_of(names: str) -> list[str]:
    """Targets as a user lists them, separated by commas.

    Raises:
        OptionError: one is unknown, or there is none.
    """
    targets = list(dict.fromkeys(filter(None, names.split(","))))
    if unknown := [t for t in targets if t not in TARGETS]:
        raise OptionError(f"--targets {unknown[0]}: unknown; there are {', '.join(TARGETS)}")
    if not targets:
        raise OptionError(f"--targets is empty; there are {', '.join(TARGETS)}")
    return targets
