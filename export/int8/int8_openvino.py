"""A plain fp32 encoder in int8 for OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING

import nncf
import openvino as ov
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from mtl_edge.batches.planning import pad
from mtl_edge.export.graphs.openvino_graph import feeds, read
from mtl_edge.export.int8.calibration import SMOOTHING

if TYPE_CHECKING:
    from mtl_edge.export.graphs.source import Source

__all__ = ["quantize"]

# In float32: the small tables of positions and segments, which every state starts from (with them
# in int8, MiniLM's probabilities move by 1.4 times as much).
KEPT = [r".*(position|token_type)_embeddings.*"]


def quantize(source: Source) -> ov.Model:
    """Static int8 by NNCF with SmoothQuant (Xiao et al. 2023, arXiv:2211.10438)."""
    model = read(source.file)
    rows = [feeds(model, *pad([tokens])) for tokens in source.calibration]
    with _quiet():
        quantized: ov.Model = nncf.quantize(
            model,
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(patterns=KEPT, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
            ),
        )
    return quantized


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
