"""Torch: on NVIDIA's GPUs with CUDA; on the CPU to compare and to debug.

It runs a bundle's ONNX graphs, so that no file is added to a bundle and nothing is unpickled:

    onnx_reader      the file as nodes and numpy arrays
    onnx_lowering    fused and quantized operators as plain ones, on float weights
    torch_program    nodes as torch functions, in one flat list
    torch_buckets    shapes rounded up to a few, each captured in a CUDA graph

What is computed in, by the graph's precision and the device:

    graph    CUDA                                           CPU
    fp32     float32                                        float32
    fp16     float16, heads float32                         float32 on weights rounded to float16
    int8     float16 on weights rounded to int8, heads      float32 on weights rounded to int8
             float32; activations are not rounded

So an fp32 graph's logits stay within the 1e-4 that export promises, unless the caller's own setting
allows TF32. An int8 graph loses one of two roundings: of MiniLM's answers to 600 texts of SST-2 and
AG News, 2 are other than in ONNX Runtime.

No setting of torch is changed. It has no number of threads but one for the process, so
`Setup.threads` is left alone: call `torch.set_num_threads` for the CPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch

from mtl_edge.engines import CPU, Logits, Setup
from mtl_edge.engines.onnx_lowering import lower
from mtl_edge.engines.onnx_reader import read
from mtl_edge.engines.torch_buckets import BucketEngine, Cuda
from mtl_edge.engines.torch_inputs import Ids, Limits, failure, finite
from mtl_edge.engines.torch_program import Plan, Program, compile_graph
from mtl_edge.errors import EngineError

__all__ = ["TorchEngine", "start"]

CUDA = "CUDA"
MOST_PLANS = 256  # shapes to remember


class TorchEngine:
    """A program run as it is, step by step; safe to run from several threads."""

    multiple = 1
    tokens_per_batch = 2048
    fixed_shapes: tuple[tuple[int, int], ...] = ()

    def __init__(self, program: Program, limits: Limits) -> None:
        self._program = program
        self._limits = limits
        self._plans: OrderedDict[tuple[int, ...], Plan] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self._limits.check(input_ids, attention_mask)
        plan = self._plan(input_ids.shape)
        try:
            with torch.inference_mode(), torch.autocast("cpu", enabled=False):
                ids, mask = (torch.tensor(x, device="cpu") for x in (input_ids, attention_mask))
                made = self._program.run(plan, ids, mask)
        except RuntimeError as error:
            raise failure(error, input_ids.shape) from error
        return finite({name: value.numpy() for name, value in made.items()})

    def _plan(self, shape: tuple[int, ...]) -> Plan:
        """The shape's; those used least recently are forgotten."""
        with self._lock:
            plan = self._plans.setdefault(shape, self._program.plan())
            self._plans.move_to_end(shape)
            if len(self._plans) > MOST_PLANS:
                self._plans.popitem(last=False)
            return plan

    def close(self) -> None:
        del self._program
        self._plans.clear()


def start(files: Sequence[Path], setup: Setup) -> TorchEngine | BucketEngine:
    """
    Args:
        files: an ONNX graph and the files of its weights.

    Raises:
        EngineError: the device is not there, or the graph cannot be read or run in torch.
        MissingPackageError: the package onnx is not installed.
    """
    device = _device(setup.device)
    exact = setup.precision == "fp32" or device.type == "cpu"
    graph = lower(read(files))
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            program = compile_graph(graph, device, torch.float32 if exact else torch.float16)
    except RuntimeError as error:
        if isinstance(error, EngineError):
            raise
        raise EngineError(f"torch cannot run {files[0]} on {setup.device}: {error}") from error
    limits = Limits(setup.max_tokens, program.vocabulary)
    if device.type == "cpu":
        return TorchEngine(program, limits)
    return BucketEngine(program, limits, Cuda(device))


def _device(name: str) -> torch.device:
    """`CPU`, `CUDA`, or a certain one of several as `CUDA:1`."""
    known = {CPU: "cpu"}
    if torch.cuda.is_available():
        known[CUDA] = f"cuda:{torch.cuda.current_device()}"
        known |= {f"{CUDA}:{i}": f"cuda:{i}" for i in range(torch.cuda.device_count())}
    if name not in known:
        built = "" if torch.version.cuda else "; this build of torch is for the CPU alone"
        raise EngineError(
            f"torch finds no device {name!r} here; it finds {', '.join(known)}{built}"
        )
    return torch.device(known[name])
