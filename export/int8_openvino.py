"""A plain fp32 ONNX graph in int8 for OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import nncf
import openvino as ov
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from mtl_edge.export.int8_onnx import SMOOTHING
from mtl_edge.planning import pad

__all__ = ["quantize"]

# In float32: the heads, which are cheap and whose few numbers carry the answer, and the small
# tables of positions and segments, which every state starts from (with them in int8, MiniLM's
# probabilities move by 1.4 times as much).
KEPT = [r".*/heads\.\d+/.*", r".*(position|token_type)_embeddings.*"]


def quantize(source: Path, calibration: Sequence[Sequence[int]], target: Path) -> None:
    """Write `target` (.xml, with its .bin beside it) from the fp32 ONNX graph `source`.

    Static int8 by NNCF with SmoothQuant (Xiao et al. 2023, arXiv:2211.10438).

    Args:
        calibration: token ids of real texts, whose activations set the scales.
    """
    rows = [dict(zip(("input_ids", "attention_mask"), pad([t]), strict=True)) for t in calibration]
    with _quiet():
        quantized = nncf.quantize(
            ov.Core().read_model(str(source)),
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(patterns=KEPT, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
            ),
        )
    ov.save_model(quantized, str(target), compress_to_fp16=False)


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Without NNCF's bars and notices, which go to standard output."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
