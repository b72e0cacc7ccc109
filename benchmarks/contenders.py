"""What is measured: the bundle's graphs and the torch model, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge import engines
from mtl_edge.bundle import Bundle
from mtl_edge.engines import Logits
from mtl_edge.planning import pad, plan
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.model import MultiTaskModel

__all__ = ["Contender", "from_bundle", "from_checkpoint", "from_model", "logits_of"]

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
            engines.start(graph.engine, bundle.file(graph.file), threads).run,
            bundle.size_of(graph),
        )
        for graph in bundle.manifest.graphs
        if engines.available(graph.engine)
    ]


def from_model(name: str, model: MultiTaskModel, threads: int) -> Contender:
    """The torch model in fp32, with the attention that torch runs fastest."""
    torch.set_num_threads(threads)
    model.encoder.set_attn_implementation("sdpa")
    model.eval()

    @torch.inference_mode()
    def run(input_ids: Ids, mask: Ids) -> Logits:
        outputs = model(torch.from_numpy(input_ids), torch.from_numpy(mask))
        return {task: out.numpy() for task, out in zip(model.tasks, outputs, strict=True)}

    return Contender(name, run, sum(4 * p.numel() for p in model.parameters()))


def from_checkpoint(checkpoint: Checkpoint, threads: int) -> Contender:
    """The checkpoint in torch fp32."""
    return from_model("torch fp32", checkpoint.model(), threads)


def logits_of(contender: Contender, ids: Sequence[Sequence[int]]) -> Logits:
    """Logits `[n, labels]` per task for texts given as token ids, batched by length."""
    order: list[int] = []
    parts: list[Logits] = []
    for batch in plan([len(tokens) for tokens in ids]):
        order += batch
        parts.append(contender.run(*pad([ids[position] for position in batch])))
    back = np.argsort(order)
    return {task: np.concatenate([part[task] for part in parts])[back] for task in parts[0]}
