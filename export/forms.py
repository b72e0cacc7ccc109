"""What is written besides the graphs on request: ones that take strings, ONNX Runtime's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl_edge.bundle import Graph
from mtl_edge.export.graphs import ort_format
from mtl_edge.export.settings import Settings
from mtl_edge.export.step import step
from mtl_edge.export.text import text_graph

__all__ = ["add_forms"]


def add_forms(staging: Path, graphs: Sequence[Graph], max_tokens: int, settings: Settings) -> None:
    """Write what is asked for besides the graphs."""
    of_onnxruntime = [graph for graph in graphs if graph.engine == "onnxruntime"]
    if settings.with_tokenizer:
        with step("tokenizer"):
            for graph in of_onnxruntime:
                name = text_graph.name_of(graph.file)
                text_graph.with_tokenizer_onnx(staging, graph.file, name, max_tokens)
            if len(of_onnxruntime) < len(graphs):
                text_graph.with_tokenizer_openvino(staging, text_graph.OPENVINO, max_tokens)
    if settings.ort:
        with step("ort"):
            for graph in of_onnxruntime:
                ort_format.write_ort(staging, graph.file)
