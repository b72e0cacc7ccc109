"""The ways to run a checkpoint's model, or its bundle's graphs, on a device: one table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnxruntime as ort
import torch
from torch import Tensor, nn

from mtl_edge.benchmarks.gpu.card import float32_products
from mtl_edge.bundle import Bundle, Graph
from mtl_edge.choosing import bundle_engine
from mtl_edge.engines import Ids, Logits, Setup
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["OURS", "REFERENCE", "Subject", "Way", "ways_of"]

REFERENCE = "torch fp32"
OURS = "mtl-edge torch engine"  # what the runtime uses
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# How engines call torch's kinds of devices.
DEVICES = {"cuda": "CUDA", "cpu": "CPU"}
Made = dict[str, Tensor]
OnDevice = Callable[[Tensor, Tensor], Made]


@dataclass(frozen=True, slots=True)
class Way:
    """Something that answers on a device.

    Attributes:
        computes: what its products with weights are computed in.
        weights: what those were rounded to: torch computes `int8` graphs in floats.
        whole: from ids and mask on the host, `[batch, tokens]`, to logits on the host.
        on_device: the same between tensors on the device, for the device's own clock; none: it
            begins and ends on the host.
    """

    name: str
    computes: str
    weights: str
    whole: Callable[[Ids, Ids], Logits]
    on_device: OnDevice | None = None


class Subject:
    """A model in several precisions on one device, and the bundle that was exported from it."""

    def __init__(self, bundle: Bundle, checkpoint: Checkpoint, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self._model = checkpoint.model().eval()
        self._model.encoder.set_attn_implementation("sdpa")
        self.tasks = self._model.tasks
        self._models: dict[torch.dtype, nn.Module] = {}

    def model(self, precision: str) -> nn.Module:
        """The model, all of it in this precision."""
        dtype = DTYPES[precision]
        if dtype not in self._models:
            self._models[dtype] = copy.deepcopy(self._model).to(self.device, dtype)
        return self._models[dtype]


@dataclass(frozen=True, slots=True)
class WayInfo:
    """
    Attributes:
        make: starts it.
        per_shape: it is made anew for each shape.
    """

    name: str
    make: Callable[[Subject], Way]
    per_shape: bool = False


def _of_torch(
    name: str, precision: str, subject: Subject, compiled: Mapping[str, Any] | None = None
) -> Way:
    """
    Args:
        compiled: options of `torch.compile`; none: the model is run step by step.
    """
    model = subject.model(precision)
    if compiled is not None:
        torch.compiler.reset()  # or it would give up after eight shapes
        options = dict(compiled) if subject.device.type == "cuda" else {"backend": "eager"}
        model = torch.compile(model, dynamic=False, **options)  # type: ignore[assignment]

    @torch.inference_mode()
    def on_device(ids: Tensor, mask: Tensor) -> Made:
        if compiled is not None:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with float32_products("high" if precision == "tf32" else "highest"):
            return dict(zip(subject.tasks, model(ids, mask), strict=True))

    def whole(ids: Ids, mask: Ids) -> Logits:
        made = on_device(*(torch.from_numpy(x).to(subject.device) for x in (ids, mask)))
        return {task: logits.float().cpu().numpy() for task, logits in made.items()}

    return Way(name, precision, precision, whole, on_device)


def _of_engine(engine: str, graph: Graph, name: str, subject: Subject) -> Way:
    """One of the runtime's engines on a graph of the bundle."""
    kind = subject.device.type
    setup = Setup(device=DEVICES[kind])
    started = bundle_engine(subject.bundle, graph, setup, engine)
    if kind == "cpu":
        return Way(name, "fp32", graph.precision, started.run)
    if graph.precision == "fp32" and engine == "onnxruntime":  # it takes TF32 unless told
        return Way(name, "tf32", "tf32", started.run)
    computes = "fp32" if graph.precision == "fp32" else "fp16"
    return Way(name, computes, graph.precision, started.run)


EAGER = {f"torch {p}": partial(_of_torch, f"torch {p}", p) for p in DTYPES}
COMPILED = {
    f"{title} {precision}": partial(
        _of_torch, f"{title} {precision}", precision, compiled={"mode": mode}
    )
    for title, mode in (
        ("torch.compile", "default"),
        ("torch.compile, CUDA graphs", "reduce-overhead"),
    )
    for precision in ("fp32", "fp16", "bf16")
}


def ways_of(subject: Subject) -> dict[str, WayInfo]:
    """All that can run here, the reference first; none is started yet."""
    ways = {name: WayInfo(name, make) for name, make in EAGER.items()}
    ways |= {name: WayInfo(name, make, per_shape=True) for name, make in COMPILED.items()}
    graphs = [g for g in subject.bundle.manifest.graphs if g.engine == "onnxruntime"]
    provider = f"{DEVICES[subject.device.type]}ExecutionProvider"
    found = {"torch": OURS}
    if provider in ort.get_available_providers():
        found["onnxruntime"] = "ONNX Runtime"
    for engine, title in found.items():
        for graph in graphs:
            if (engine, graph.precision, subject.device.type) == ("onnxruntime", "int8", "cuda"):
                continue  # it has no int8 operators there, and would go back to the CPU for each
            name = f"{title}, {graph.target}"
            ways[name] = WayInfo(name, partial(_of_engine, engine, graph, name))
    return ways
