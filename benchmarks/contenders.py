"""What is measured: the bundle's graphs and the torch model, behind one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge import engines
from mtl_edge.bundle import Bundle
from mtl_edge.choosing import bundle_engine
from mtl_edge.engines import Logits
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["Contender", "from_bundle", "from_checkpoint"]

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that turns token ids into every task's logits.

    Attributes:
        run: from `input_ids` and `attention_mask`, both `[batch, tokens]`, to logits
            `[batch, labels]` per task.
        size: bytes on disk.
    """

    name: str
    run: Callable[[Ids, Ids], Logits]
    size: int


def from_bundle(bundle: Bundle, threads: int) -> list[Contender]:
    """The bundle's graphs whose engine is installed."""
    return [
        Contender(
            graph.target,
            bundle_engine(bundle, graph, engines.Setup(threads)).run,
            bundle.size_of(graph),
        )
        for graph in bundle.manifest.graphs
        if engines.available(graph.engine)
    ]


def from_checkpoint(checkpoint: Checkpoint, threads: int) -> Contender:
    """The torch model in fp32, with the attention that torch runs fastest."""
    torch.set_num_threads(threads)
    model = checkpoint.model()
    model.encoder.set_attn_implementation("sdpa")

    @torch.inference_mode()
    def run(input_ids: Ids, mask: Ids) -> Logits:
        outputs = model(torch.from_numpy(input_ids), torch.from_numpy(mask))
        return {task: out.numpy() for task, out in zip(model.tasks, outputs, strict=True)}

    return Contender("torch fp32", run, sum(4 * p.numel() for p in model.parameters()))
