"""What each step from a plain capture to the shipped int8 graph of ONNX Runtime gives and costs.

Trains two heads of MiniLM on the demo data and builds the graph in every state on its way. All are
timed in interleaved rounds of one run, on the same token ids and threads, beside OpenVINO's; each
is compared with torch on the demo's held-out rows; and the same text is asked alone and among
others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from mtl_edge import engines
from mtl_edge.batches.planning import in_batches, pad
from mtl_edge.benchmarks.core.check import agreement
from mtl_edge.benchmarks.core.command import new_record, run_module
from mtl_edge.benchmarks.core.machine import describe
from mtl_edge.benchmarks.core.measure import at_shapes
from mtl_edge.benchmarks.core.record import Record, Rounds
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.system import System
from mtl_edge.benchmarks.core.tables import Column, over, spread
from mtl_edge.benchmarks.demo import demo_tasks
from mtl_edge.engines import Engine, Setup
from mtl_edge.export.graphs import onnx_graph, openvino_graph
from mtl_edge.export.graphs.capture import INPUTS, capture_heads
from mtl_edge.export.graphs.source import Source, captured
from mtl_edge.export.int8 import int8_onnx, int8_openvino
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.model import logits_of
from mtl_edge.training.run import train

SHAPES = ((1, 32), (32, 32))
ROUNDS, SECONDS = 60, 120.0
MATES = 32
SHIPPED = "openvino-int8 as shipped"


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.steps", __doc__, lambda parser: None, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    started, machine = time.monotonic(), describe()
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        checkpoint = train(demo_tasks(), load_backbone("minilm"))
        texts = [sample.text for sample in checkpoint.samples if sample.split == "dev"]
        ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)(texts)
        expected = logits_of(checkpoint.model(), ids)
        running = _graphs(checkpoint, Path(work), args.threads)
        systems = [System(step, "", "", 0, engine.run) for step, engine in running.items()]
        rounds = at_shapes(
            "timing", systems, SHAPES, checkpoint.backbone.info.vocabulary,
            rounds=ROUNDS, seconds=SECONDS, twice=False, references=[SHIPPED],
        )  # fmt: skip
        figures = _figures(running, ids, expected)
    return report_of(
        new_record(
            "steps", command, args.threads, started, machine=machine, inputs={"rows": len(texts)},
            systems=[system.info() for system in systems], rounds=rounds, figures=figures,
        )
    )  # fmt: skip


def _figures(
    running: Mapping[str, Engine],
    ids: Sequence[Sequence[int]],
    expected: Mapping[str, npt.NDArray[np.float32]],
) -> dict[str, dict[str, float]]:
    """How each step answers: agreement and root mean square beside torch, and batch-mates."""
    logits = {step: in_batches(engine.run, ids) for step, engine in running.items()}
    return {
        "agreement": {step: agreement(found, dict(expected)) for step, found in logits.items()},
        "rms of logits": {
            step: max(float(np.sqrt(((found[t] - expected[t]) ** 2).mean())) for t in expected)
            for step, found in logits.items()
        },
        "moved by batch-mates": {s: _moved(engine, ids) for s, engine in running.items()},
    }


def _graphs(checkpoint: Checkpoint, work: Path, threads: int) -> dict[str, Engine]:
    """The graph in every state, running."""
    source = captured(checkpoint, work)
    apart, joined = work / "apart.onnx", work / "heads.onnx"
    capture_heads(checkpoint, apart, joined=False)
    capture_heads(checkpoint, joined)
    setup = Setup(threads, checkpoint.max_tokens)
    running: dict[str, Engine] = {}

    def start(step: str, encoder: onnx.ModelProto, heads: Path) -> None:
        name = f"step{len(running)}"
        files = (f"{name}.onnx", f"{name}.encoder.bin", f"{name}.heads.bin")
        onnx_graph.write(onnx_graph.join(encoder, onnx.load(str(heads))), work, *files)
        running[step] = engines.start("onnxruntime", [work / files[0]], setup)

    fused, width, texts = source.fused(), source.width, source.calibration
    start("fp32, plain capture", onnx.load(str(source.file)), apart)
    start("fp32, fused", fused, apart)
    start("int8 dynamic, fused", _dynamic(fused, work), apart)
    start("int8 static, QDQ", _qdq(source, work), apart)
    with patch.object(int8_onnx, "UNEVEN", float("inf")):
        start("int8 with fixed scales, fused", int8_onnx.quantize(fused, width, texts), apart)
    start("+ SmoothQuant", int8_onnx.quantize(fused, width, texts), apart)
    prepared = int8_onnx.quantize(source.prepared(), width, texts)
    start("+ layer norm and GELU in faster kernels", prepared, apart)
    start("+ heads joined: onnx-int8 as shipped", prepared, joined)
    encoder, heads = work / "openvino.xml", work / "openvino.heads.xml"
    openvino_graph.write(int8_openvino.quantize(source), encoder)
    openvino_graph.write(openvino_graph.read(joined), heads)
    running[SHIPPED] = engines.start("openvino", [encoder, heads], setup)
    return running


def _dynamic(fused: onnx.ModelProto, work: Path) -> onnx.ModelProto:
    onnx.save(fused, str(work / "fused.onnx"))
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True}
    target = str(work / "dynamic.onnx")
    quantize_dynamic(
        str(work / "fused.onnx"), target, weight_type=QuantType.QInt8, extra_options=options
    )
    return onnx.load(target)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self._rows = iter(dict(zip(INPUTS, pad([tokens]), strict=True)) for tokens in texts)

    def get_next(self) -> dict[str, npt.NDArray[np.int64]] | None:
        return next(self._rows, None)


def _qdq(source: Source, work: Path) -> onnx.ModelProto:
    target = str(work / "qdq.onnx")
    quantize_static(
        str(source.file),
        target,
        _Reader(source.calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return onnx.load(target)


def _moved(engine: Engine, ids: Sequence[Sequence[int]]) -> float:
    """The most that a text's logits move when it is asked among others instead of alone."""
    some = [*sorted(ids[: MATES - 1], key=len), max(ids, key=len)]
    together = engine.run(*pad(some))
    return max(
        float(np.abs(engine.run(*pad([tokens]))[task][0] - logits[row]).max())
        for row, tokens in enumerate(some)
        for task, logits in together.items()
    )


def report_of(record: Record) -> Report:
    """One table: what each step costs, and how it answers."""
    figures = record.figures

    def times(rounds: Rounds) -> list[Column]:
        shipped = rounds.times[SHIPPED].median
        return [
            (f"ms {rounds.name}", lambda step: f"{rounds.times[step].median:.2f}"),
            ("p10-p90", lambda step: spread(rounds.times[step])),
            ("to OpenVINO", lambda step: f"{rounds.times[step].median / shipped:.2f}x"),
        ]

    columns: list[Column] = [column for rounds in record.rounds for column in times(rounds)]
    columns += [
        ("agrees %", lambda step: f"{100 * figures['agreement'][step]:.1f}"),
        ("rms of logits", lambda step: f"{figures['rms of logits'][step]:.4f}"),
        ("moved by batch-mates", lambda step: f"{figures['moved by batch-mates'][step]:.0e}"),
    ]
    table = over(
        "From a plain capture to the shipped graph", record.timed, columns,
        "MiniLM with two heads. A row that begins with + has all of the rows above it that do. "
        f"Agreement and root mean square against torch: {record.inputs['rows']} held-out rows. "
        "Moved by batch-mates: the most that a logit changes between a text alone and among "
        f"{MATES}",
        first="graph",
    )  # fmt: skip
    return Report(record, "Steps to the shipped graph", [table])


if __name__ == "__main__":
    main()
