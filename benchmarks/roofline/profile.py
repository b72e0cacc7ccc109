"""Where a pass spends its time: each engine's own clock, operator by operator."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino as ov

from mtl_edge.bundle import Bundle, Graph
from mtl_edge.engines import Ids, Setup
from mtl_edge.engines import openvino as layout
from mtl_edge.engines.onnxruntime import session_options

__all__ = ["PROFILES", "profile", "share_of_products"]

PASSES, WARM_UP = 20, 5
# Operators that are a matrix product with weights, with whatever is fused into it.
PRODUCTS = {
    "QAttention", "Attention", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul",
    "FusedMatMul", "FusedGemm", "Gemm", "MatMul", "FullyConnected",
    "FullyConnectedQuantizedLegacy",
}  # fmt: skip


def profile(bundle: Bundle, graph: Graph, shape: tuple[int, int], threads: int) -> dict[str, float]:
    """Milliseconds of a pass by kind of operator, most first: means over some passes.

    An engine's clock takes time itself, so that the sum is more than a pass takes without it.

    Args:
        shape: texts and tokens.
    """
    ids = np.random.default_rng(0).integers(0, bundle.manifest.backbone.vocabulary, shape)
    found = PROFILES[graph.engine](bundle, graph, ids, threads)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def share_of_products(found: Mapping[str, float]) -> float:
    """What share of the time is in operators that multiply matrices."""
    return sum(ms for kind, ms in found.items() if kind in PRODUCTS) / sum(found.values())


def _onnxruntime(bundle: Bundle, graph: Graph, ids: Ids, threads: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(work) / "profile")
        session = ort.InferenceSession(
            str(bundle.file(graph.file)), options, providers=["CPUExecutionProvider"]
        )
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for _ in range(WARM_UP + PASSES):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen[event["name"]] += 1
            if seen[event["name"]] > WARM_UP:
                taken[event["args"]["op_name"]] += event["dur"]
    return {kind: us / 1e3 / PASSES for kind, us in taken.items()}


def _openvino(bundle: Bundle, graph: Graph, ids: Ids, threads: int) -> dict[str, float]:
    core = ov.Core()
    setup = Setup(threads=threads, precision=graph.precision)
    tokens = ids.shape[1] if len(ids) == 1 else None  # as the runtime has it for single texts
    model = layout.read(core, bundle.files_of(graph))
    compiled = layout.compiled(core, model, setup, tokens, {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    taken: Counter[str] = Counter()
    for number in range(WARM_UP + PASSES):
        request.infer(feeds, share_inputs=True)
        if number >= WARM_UP:
            for info in request.profiling_info:
                if info.status == info.Status.EXECUTED:
                    taken[info.node_type] += info.real_time.total_seconds()
    return {kind: 1e3 * seconds / PASSES for kind, seconds in taken.items()}


PROFILES: Mapping[str, Callable[[Bundle, Graph, Ids, int], dict[str, float]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
