"""Systems on a GPU, its own clock, and what the card can do: for `bench --device CUDA`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge import engines
from mtl_edge.answers.predictions import predictions_of
from mtl_edge.answers.probabilities import softmax
from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks.core.system import System, checkpoint_of, graph_system
from mtl_edge.benchmarks.roofline.bandwidth import read_rates, sizes_for, triad_rate
from mtl_edge.benchmarks.roofline.rates import MachineLimits
from mtl_edge.bundle import Bundle
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import EngineError
from mtl_edge.timing import Clock
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["card", "clock", "limits", "systems_of"]

SIDES = (2048, 4096, 8192)  # of square matrices
ROUNDS = 10
BATCH_TOKENS = 16384
# How torch multiplies in each precision, and what it is told about float32 then.
PRECISIONS = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
}
EAGER, COMPILED = ("fp32", "tf32", "fp16"), ("fp16",)


def _device(name: str) -> torch.device:
    """
    Raises:
        EngineError: torch sees no such GPU.
    """
    found = torch.device(name.lower())
    if found.type != "cuda" or not torch.cuda.is_available():
        raise EngineError(
            f"--device {name}: torch {torch.__version__} sees no GPU here; expected CPU, or CUDA "
            "where a card, its driver and a build of torch for it are installed"
        )
    return found


def card(device: str) -> str:
    """The card, as a record names it."""
    found = torch.cuda.get_device_properties(_device(device))
    return f"{found.name} ({found.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda})"


def systems_of(
    bundle: Bundle,
    checkpoint: Path | None,
    threads: int,
    texts: Sequence[str],
    stack: ExitStack,
    *,
    device: str,
) -> tuple[list[System], list[str]]:
    """Torch eager in several precisions and compiled, then the bundle's float graphs on the card.

    Int8 graphs are left out: the provider has no kernels for them and would go to the CPU for each.

    Returns:
        also, names of the graphs that are not measured.
    """
    systems: list[System] = []
    if checkpoint is not None:
        model = checkpoint_of(bundle, checkpoint)
        systems += [_torch(model, precision, device, bundle) for precision in EAGER]
        systems += [_torch(model, p, device, bundle, compiled=True) for p in COMPILED]
    graphs = [g for g in bundle.manifest.graphs if g.engine == "onnxruntime"]
    floats = [g for g in graphs if g.precision != "int8" and engines.available(g.engine)]
    systems += [
        graph_system(bundle, graph, threads, stack, name=f"{graph.target} CUDA", device=device)
        for graph in floats
    ]
    if not systems:
        raise EngineError(
            "the bundle has no float graph of ONNX Runtime, which a GPU runs; give --checkpoint, "
            "or export with --targets onnx-fp16"
        )
    return systems, [g.target for g in bundle.manifest.graphs if g not in floats]


def _torch(
    checkpoint: Checkpoint, precision: str, device: str, bundle: Bundle, *, compiled: bool = False
) -> System:
    """The torch model on the card; `compiled` records CUDA graphs, one for each shape."""
    dtype, float32 = PRECISIONS[precision]
    place, tasks = _device(device), checkpoint.tasks
    source = checkpoint.model().eval()
    source.encoder.set_attn_implementation("sdpa")
    names = source.tasks
    model: Callable[..., Sequence[torch.Tensor]] = copy.deepcopy(source).to(place, dtype)
    size = sum(p.numel() * dtype.itemsize for p in source.parameters())
    if compiled:
        model = torch.compile(model, dynamic=False, mode="reduce-overhead")

    @torch.inference_mode()
    def run(input_ids: Ids, mask: Ids) -> Logits:
        arrays = [torch.from_numpy(values).to(place) for values in (input_ids, mask)]
        with _float32_products(float32):
            outputs = model(*arrays)
        return {t: out.float().cpu().numpy() for t, out in zip(names, outputs, strict=True)}

    encoder = checkpoint.backbone.text_encoder(bundle.manifest.max_tokens)

    def logits(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        return in_batches(run, encoder(texts), BATCH_TOKENS)

    def probabilities(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        found = logits(texts)
        return {task.name: softmax(found[task.name], task.temperature) for task in tasks}

    return System(
        name=f"torch {precision}{' compiled' if compiled else ''} CUDA",
        engine="torch",
        precision=precision,
        bytes=size,
        run=run,
        ids=encoder,
        logits=logits,
        answer=lambda text: predictions_of(tasks, probabilities([text]), checkpoint.depth)[0],
        answer_all=probabilities,
        batch_tokens=BATCH_TOKENS,
    )


@contextlib.contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    """Products of float32 in TF32 (`high`) or not (`highest`); then the setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def clock(device: str) -> Clock:
    """Milliseconds by events on the card, around a call that ends with its answers on the host."""
    place = _device(device)

    def measured(call: Callable[[], object]) -> float:
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        torch.cuda.synchronize(place)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(place)
        return float(start.elapsed_time(end))

    return measured


def limits(device: str) -> MachineLimits:
    """The card's matrix products by precision, and its memory; some seconds."""
    place, timed = _device(device), clock(device)

    def best(call: Callable[[], object]) -> float:
        call()
        return min(timed(call) for _ in range(ROUNDS))

    cache = getattr(torch.cuda.get_device_properties(place), "L2_cache_size", None)
    sizes = sizes_for(cache)
    return MachineLimits(
        threads=0,
        tops={name: max(_rate(name, side, place, best) for side in SIDES) for name in PRECISIONS},
        triad_gb_s=triad_rate(3 * max(sizes), place, best),
        reads=read_rates(sizes, place, best),
        cache=int(cache) if cache else None,
    )


def _rate(
    precision: str, side: int, device: torch.device, best: Callable[[Callable[[], object]], float]
) -> float:
    dtype, float32 = PRECISIONS[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _float32_products(float32):
        return 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out)) / 1e9
