"""Heads fitted once more on the states of a quantized encoder.

Their targets are what the checkpoint's heads say on the fp32 encoder's states (distillation, Hinton
et al. 2015, arXiv:1503.02531), so texts are enough and no labels are needed.
The tables of n-grams do not depend on states and stay as they are.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_edge.batches.planning import Tokens, pad
from mtl_edge.bundle import Task, TaskKind
from mtl_edge.export.compared import agreement
from mtl_edge.training.batches import endless
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.fit import predict
from mtl_edge.training.heads import AttentionHead, Head
from mtl_edge.training.loop import Learner, Loop, ValidationScore
from mtl_edge.training.states import Kind, StateCache, States, Values, digest

__all__ = ["FEWEST", "GraphEncoder", "refitted"]

EPOCHS = 3
BATCH_SIZE = 32
LEARNING_RATE = 2e-4
VALIDATION = 10  # one text in so many is a validation text
FEWEST = 100  # texts

Ids = npt.NDArray[np.int64]


class GraphEncoder:
    """A quantized encoder that computes states, as `mtl_edge.training.states` takes one.

    Args:
        run: from `input_ids` and `attention_mask` to states by name, the embeddings' first.
        identity: digest of the encoder's graph.
    """

    def __init__(
        self,
        run: Callable[[Ids, Ids], Mapping[str, npt.NDArray[np.float32]]],
        identity: str,
        states: int,
        width: int,
    ) -> None:
        self._run = run
        self.space = digest("graph", identity)
        self.states, self.width = states, width
        self.kind: Kind = np.float16

    def encode(self, texts: Sequence[Tokens]) -> Values:
        """States `[batch, tokens, states, width]`."""
        values = self._run(*pad(texts))
        with np.errstate(over="ignore"):  # infinite, as is asked for
            return np.stack([value.astype(self.kind) for value in values.values()], 2)


def refitted(
    checkpoint: Checkpoint, encoder: GraphEncoder, ids: Sequence[Tokens], cache: StateCache
) -> dict[str, Head]:
    """The checkpoint's heads, fitted to the encoder's states; as they were, if that is no better.

    Args:
        ids: tokens of texts like those that will be asked, at least `FEWEST`.
    """
    exact = cache.states(checkpoint.backbone, ids)
    rounded = cache.of(encoder, ids, checkpoint.backbone.excerpt)
    checkpoint.backbone.encoder.cpu()
    return {
        task.name: _fitted(task, checkpoint.heads[task.name], exact, rounded)
        for task in checkpoint.tasks
    }


def _fitted(task: Task, head: Head, exact: States, rounded: States) -> Head:
    everything = range(len(exact))
    wanted, divergence = predict(head, exact, everything), DIVERGENCES[task.kind]
    validation = [row for row in everything if row % VALIDATION == 0]
    train = [row for row in everything if row % VALIDATION]
    learner = copy.deepcopy(head).eval().requires_grad_(True)
    steps = -(-len(train) // BATCH_SIZE)

    def losses_of(batch: Sequence[int]) -> dict[str, Tensor]:
        rows = [train[i] for i in batch]
        values, mask, ids = rounded.batch(rows, learner.config.states)
        return {task.name: divergence(learner(values, mask, ids), wanted[rows])}

    def judge() -> dict[str, ValidationScore]:
        logits = predict(learner, rounded, validation)
        same = agreement(task, logits.numpy(), wanted[validation].numpy()).mean()
        loss = float(divergence(logits, wanted[validation]))
        return {task.name: ValidationScore(float(same), loss, len(validation))}

    Loop(
        name=task.name,
        title=f"task {task.name} on int8",
        groups=[{"params": _parameters(learner), "lr": LEARNING_RATE}],
        epochs=EPOCHS,
        steps=steps,
        weight_decay=0.0,
        warmup=0.1,
        training=[],  # no dropout: the targets are no noisy labels
        rate_option="the learning rate",
        rate=LEARNING_RATE,
    ).run(
        {task.name: Learner(learner, [task.name])},
        endless([int(rounded.lengths[row]) for row in train], BATCH_SIZE, random.Random(0)),
        losses_of,
        judge,
        lambda batch: [],
    )
    learner.finish()
    before, after = (
        float(divergence(predict(one, rounded, validation), wanted[validation]))
        for one in (head, learner)
    )
    return learner if after < before else head


def _parameters(head: Head) -> list[nn.Parameter]:
    """Those that depend on states."""
    table = head.ngrams if isinstance(head, AttentionHead) else None
    fixed = set(map(id, table.parameters())) if table is not None else set()
    return [parameter for parameter in head.parameters() if id(parameter) not in fixed]


def _of_one(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the logits' probabilities from those of `wanted`."""
    found, target = torch.log_softmax(logits, 1), torch.log_softmax(wanted, 1)
    return nn.functional.kl_div(found, target, reduction="batchmean", log_target=True)


def _of_each(logits: Tensor, wanted: Tensor) -> Tensor:
    """The same of each label by itself, summed over a text's."""
    signs = torch.tensor([1.0, -1.0]).view(2, 1, 1)  # of having the label, and of not having it
    found, target = (nn.functional.logsigmoid(v * signs) for v in (logits, wanted))
    return nn.functional.kl_div(found, target, reduction="sum", log_target=True) / len(logits)


# How far a task's logits are from those wanted, `[rows, outputs]` both.
DIVERGENCES: Mapping[TaskKind, Callable[[Tensor, Tensor], Tensor]] = {
    "single": _of_one,
    "multi": _of_each,
    "score": nn.functional.mse_loss,
}
