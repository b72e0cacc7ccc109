"""Subgraphs of a plain ONNX graph become ONNX Runtime's fused operators."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel

from mtl_edge.errors import ExportError
from mtl_edge.training.backbone import Backbone

__all__ = ["fuse"]

FUSES_WHOLE = ("bert", "distilbert", "electra")


def fuse(file: Path, backbone: Backbone, depth: int) -> onnx.ModelProto:
    """The graph in `file` with attention, layer norm, GELU and embeddings fused.

    What does not fuse stays as it is: exact, but slower. For the architectures that are known to
    fuse whole, that is an error.

    Raises:
        ExportError: a layer of such an architecture was left unfused.
    """
    if not depth:  # a table of vectors: nothing to fuse
        return onnx.load(str(file))
    logging.getLogger("onnxruntime.transformers").setLevel(logging.WARNING)
    model: onnx.ModelProto = optimizer.optimize_model(
        str(file),
        model_type="bert",
        num_heads=backbone.heads,
        hidden_size=backbone.width,
        opt_level=0,
        optimization_options=FusionOptions("bert"),
    ).model
    _one_embedding(model)
    count = Counter(node.op_type for node in model.graph.node)
    expected = {
        "EmbedLayerNormalization": 1,
        "Attention": depth,
        "SkipLayerNormalization": 2 * depth,
        "BiasGelu": depth,
    }
    architecture = backbone.info.architecture
    if missing := {op: n for op, n in expected.items() if count[op] < n}:
        got = ", ".join(f"{count[op]} of {n} {op}" for op, n in missing.items())
        if architecture in FUSES_WHOLE:
            raise ExportError(
                f"{architecture} was left unfused: the graph has {got}; install the onnxruntime "
                "and transformers of constraints.txt, or export with --targets openvino-int8"
            )
        print(f"\nnote: {architecture} fuses in part ({got}); exact, but slower", file=sys.stderr)
    if "com.microsoft" not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def _one_embedding(model: onnx.ModelProto) -> None:
    """The optimizer leaves the embeddings unfused beside the fused ones, as they are an output."""
    graph = model.graph
    first = graph.output[0].name
    fused = next((n for n in graph.node if n.op_type == "EmbedLayerNormalization"), None)
    unfused = next((n for n in graph.node if first in n.output), None)
    if fused is None or unfused is None or unfused.op_type != "LayerNormalization":
        return
    if fused.input[5] != unfused.input[1]:  # another norm: gamma tells
        return
    unfused.output[0] = f"{first}.unfused"
    for node in graph.node:
        node.input[:] = [first if name == fused.output[0] else name for name in node.input]
    fused.output[0] = first
    whole = OnnxModel(model)
    whole.prune_graph()
    whole.topological_sort()
