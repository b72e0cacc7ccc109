"""How each engine's graphs are written: encoder and heads, in files that can be replaced apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import onnx

from mtl_edge.export.graphs import onnx_graph, openvino_graph
from mtl_edge.export.graphs.source import Source
from mtl_edge.export.int8.refit import GraphEncoder

__all__ = ["GraphFormat", "OnnxFormat", "OpenVinoFormat"]


class GraphFormat(Protocol):
    """Files of one engine's graphs; `encoder` below is a model of the engine's own type."""

    def write(self, encoder: Any, heads: Path, folder: Path, files: Sequence[str]) -> None:
        """Write a graph to `folder` from an encoder and an ONNX graph of heads."""
        ...

    def write_exit(
        self, encoder: Any, heads: Path, folder: Path, files: Sequence[str], full: Sequence[str]
    ) -> tuple[str, ...]:
        """Write an early exit beside the graph `full`; returns the files that it opens."""
        ...

    def replace_heads(self, former: Path, heads: Path, folder: Path, files: Sequence[str]) -> None:
        """Write those of a graph's files that other heads change; `folder` has the rest."""
        ...

    def states(self, encoder: Any, source: Source) -> GraphEncoder:
        """The encoder as what computes states."""
        ...


class OnnxFormat:
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
class OpenVinoFormat:
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
