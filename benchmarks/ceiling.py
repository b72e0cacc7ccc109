"""How fast this machine multiplies matrices: the floor under any latency.

    python -m mtl_edge.benchmarks.ceiling

OpenVINO runs a chain of eight products of the shape that a feed-forward layer of DistilBERT has at
32 texts of 32 tokens, in float32 and in int8.
"""

from __future__ import annotations

import contextlib
import io
import logging
from functools import partial

import nncf
import numpy as np
import openvino as ov
from openvino import opset13 as op

from mtl_edge.engines.cores import default_threads
from mtl_edge.timing import alternate

__all__ = ["matrix_rates"]

ROWS, NARROW, WIDE, PAIRS = 1024, 768, 3072, 4


def matrix_rates(threads: int) -> dict[str, float]:
    """Tera-operations a second in `fp32` and `int8`; a multiplication and an addition are two."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((ROWS, NARROW)).astype(np.float32)
    model = _chain(rng)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF's bars
        quantized = nncf.quantize(model, nncf.Dataset([data]))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    calls = {
        name: partial(ov.Core().compile_model(graph, "CPU", settings), data)
        for name, graph in (("fp32", model), ("int8", quantized))
    }
    operations = 2 * 2 * PAIRS * ROWS * NARROW * WIDE
    return {
        name: operations / (timing.median / 1e3) / 1e12
        for name, timing in alternate(calls, rounds=20).items()
    }


def _chain(rng: np.random.Generator) -> ov.Model:
    start = op.parameter([ROWS, NARROW], np.float32, name="x")
    node = start
    for shape in [(NARROW, WIDE), (WIDE, NARROW)] * PAIRS:
        weight = (rng.standard_normal(shape) * shape[0] ** -0.5).astype(np.float32)
        node = op.relu(op.matmul(node, op.constant(weight), False, False))
    return ov.Model([node], [start])


if __name__ == "__main__":
    for precision, rate in matrix_rates(default_threads()).items():
        print(f"{precision}: {rate:.2f} TOPS")
