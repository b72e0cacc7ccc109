"""What each step from a plain capture to the shipped int8 graph of ONNX Runtime gives and costs.

    python -m mtl_edge.benchmarks.steps [--out benchmarks/results]

Trains two heads of MiniLM on the demo data and builds the graph in every state on its way. All are
timed in alternating rounds of one run, on the same token ids and threads, beside OpenVINO's; each
is compared with torch on the demo's held-out rows; and the same text is asked alone and among
others. Writes `steps.json` and `steps.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
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
from mtl_edge.benchmarks.demo_tasks import demo_tasks
from mtl_edge.benchmarks.machine import describe, processor_of
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines import Engine, Logits, Setup
from mtl_edge.engines.cores import default_threads
from mtl_edge.export import int8_onnx, int8_openvino, onnx_graph, openvino_graph
from mtl_edge.export.capture import INPUTS, capture_heads
from mtl_edge.export.source import Source, captured
from mtl_edge.table import markdown_table
from mtl_edge.timing import alternate
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.model import logits_of
from mtl_edge.training.progress import Progress
from mtl_edge.training.run import train

SHAPES = ((1, 32), (32, 32))
ROUNDS = 60
SECONDS = 120.0
MATES = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--threads", type=int, default=default_threads())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        figures = _measure(Path(work), args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "steps.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (args.out / "steps.md").write_text(markdown(figures), encoding="utf-8")
    print(markdown(figures))


def _measure(work: Path, threads: int) -> dict[str, Any]:
    checkpoint = train(demo_tasks(), load_backbone("minilm"))
    running = _graphs(checkpoint, work, threads)
    texts = [sample.text for sample in checkpoint.samples if sample.split == "dev"]
    ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)(texts)
    expected = logits_of(checkpoint.model(), ids)
    rng = np.random.default_rng(0)
    latency: dict[str, Any] = {}
    for shape in SHAPES:
        asked = rng.integers(0, checkpoint.backbone.info.vocabulary, shape)
        mask = np.ones_like(asked)
        name = f"{shape[0]}x{shape[1]}"
        with Progress(f"timing {name}", total=ROUNDS, unit="rounds") as progress:
            times = alternate(
                {
                    step: lambda e=engine, a=asked, m=mask: e.run(a, m)  # type: ignore[misc]
                    for step, engine in running.items()
                },
                rounds=ROUNDS,
                seconds=SECONDS,
                between=progress.update,
            )
        latency[name] = {step: time.to_json() for step, time in times.items()}
    return {
        "command": "python -m mtl_edge.benchmarks.steps",
        "date": date.today().isoformat(),
        "machine": describe(),
        "threads": threads,
        "rows": len(texts),
        "steps": {
            step: {
                **_faithful(engine, ids, expected),
                "moved_by_batch_mates": _moved(engine, ids),
                "latency_ms": {shape: times[step] for shape, times in latency.items()},
            }
            for step, engine in running.items()
        },
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
    running["openvino-int8 as shipped"] = engines.start("openvino", [encoder, heads], setup)
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


def _faithful(
    engine: Engine, ids: Sequence[Sequence[int]], expected: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float]:
    """The lowest agreement with torch over the tasks, and the root mean square of differences."""
    logits = in_batches(engine.run, ids)
    return {
        "agreement": min(
            float((logits[task].argmax(1) == wanted.argmax(1)).mean())
            for task, wanted in expected.items()
        ),
        "rms": max(
            float(np.sqrt(((logits[task] - wanted) ** 2).mean()))
            for task, wanted in expected.items()
        ),
    }


def _moved(engine: Engine, ids: Sequence[Sequence[int]]) -> float:
    """The most that a text's logits move when it is asked among others instead of alone."""
    run: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Logits] = engine.run
    some = [*sorted(ids[: MATES - 1], key=len), max(ids, key=len)]
    together = run(*pad(some))
    return max(
        float(np.abs(run(*pad([tokens]))[task][0] - logits[row]).max())
        for row, tokens in enumerate(some)
        for task, logits in together.items()
    )


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with what a reader has to know."""
    steps = figures["steps"]
    reference = list(steps.values())[-1]["latency_ms"]
    shapes = list(reference)
    header = ["graph"]
    for shape in shapes:
        header += [f"ms {shape}", "p10-p90", "to OpenVINO"]
    rows = []
    for name, found in steps.items():
        row = [name]
        for shape in shapes:
            time = found["latency_ms"][shape]
            ratio = time["median"] / reference[shape]["median"]
            row += [f"{time['median']:.2f}", f"{time['p10']:.2f}-{time['p90']:.2f}"]
            row.append(f"{ratio:.2f}x")
        row += [f"{100 * found['agreement']:.1f}", f"{found['rms']:.4f}"]
        rows.append([*row, f"{found['moved_by_batch_mates']:.0e}"])
    header += ["agrees %", "rms of logits", "moved by batch-mates"]
    machine = figures["machine"]
    return (
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads; MiniLM with two "
        "heads; medians of alternating rounds of one run. A row that begins with + has all of the "
        f"rows above it that do. Agreement and root mean square against torch: {figures['rows']} "
        "held-out rows. Moved by batch-mates: the most that a logit changes between a text alone "
        f"and among {MATES}.\n\n{markdown_table(header, rows)}\n"
    )


if __name__ == "__main__":
    take_any_text()
    main()
