"""Subgraphs of a plain ONNX graph become ONNX Runtime's fused operators."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

from mtl_edge.errors import ExportError
from mtl_edge.training.backbone import Backbone

__all__ = ["fuse"]


def fuse(file: Path, backbone: Backbone, depth: int) -> onnx.ModelProto:
    """The graph in `file` with attention, layer norm, GELU and embeddings fused.

    Raises:
        ExportError: a layer was left unfused, which would run at a fraction of the speed.
    """
    logging.getLogger("onnxruntime.transformers").setLevel(logging.WARNING)
    model: onnx.ModelProto = optimizer.optimize_model(
        str(file),
        model_type="bert",
        num_heads=backbone.heads,
        hidden_size=backbone.info.hidden_size,
        opt_level=0,
        optimization_options=FusionOptions("bert"),
    ).model
    count = Counter(node.op_type for node in model.graph.node)
    expected = {
        "EmbedLayerNormalization": 1 if depth else 0,  # found by the attention that follows it
        "Attention": depth,
        "SkipLayerNormalization": 2 * depth,
        "BiasGelu": depth,
    }
    if missing := {op: n for op, n in expected.items() if count[op] != n}:
        got = ", ".join(f"{count[op]} of {n} {op}" for op, n in missing.items())
        raise ExportError(
            f"{backbone.info.architecture} does not fuse: the graph has {got}; expected a "
            "post-norm encoder with GELU like bert or distilbert: export it with "
            "--targets openvino-int8"
        )
    if "com.microsoft" not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model
