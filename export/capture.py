"""A torch model as a plain fp32 ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from optimum.utils import DummyTextInputGenerator, NormalizedConfigManager

from mtl_edge.export.heads import fused
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["INPUTS", "capture"]

INPUTS = ("input_ids", "attention_mask")
OPSET = 17


def capture(checkpoint: Checkpoint, file: Path) -> None:
    """Write encoder and heads as one ONNX graph, batch and length dynamic.

    The TorchScript exporter and eager attention give the form that ONNX Runtime's optimizer fuses
    and that OpenVINO runs fastest; the newer exporter's graphs keep Q, K and V apart.
    """
    whole = checkpoint.model()
    model = fused(whole)
    config = checkpoint.backbone.encoder.config
    sizes = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    generator = DummyTextInputGenerator(
        "feature-extraction", sizes, batch_size=2, sequence_length=min(16, checkpoint.max_tokens)
    )
    ids = generator.generate("input_ids", framework="pt")
    mask = torch.ones_like(ids)
    mask[1, mask.shape[1] // 2 :] = 0  # padding, so that no mask is folded away as all ones
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    axes |= {task: {0: "batch"} for task in whole.tasks}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's age and constants of the trace
        torch.onnx.export(
            model,
            (ids, mask),
            str(file),
            input_names=list(INPUTS),
            output_names=list(whole.tasks),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
