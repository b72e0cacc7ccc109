"""`DomainGate`: which tasks a text is in the domain of, as a part of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_edge.bundle import Task
from mtl_edge.training.heads.pooled import POOLINGS

__all__ = ["DomainGate", "GateWeights", "certainty_of"]

GateWeights = Mapping[str, Tensor]
"""By task float32 `[width + 2]`: weights of the mean state, of the certainty, and the bias."""


def certainty_of(task: Task, logits: Tensor) -> Tensor:
    """How certain a task's logits `[n, outputs]` are, `[n]`: the logarithm of their exponentials'
    sum, the negative of the free energy (Liu et al. 2020, arXiv:2010.03759).

    Where logits count relative to each other alone, their mean is taken from them first.
    """
    if task.kind == "single":
        logits = logits - logits.mean(1, keepdim=True)
    return torch.logsumexp(logits, 1)


class DomainGate(nn.Module):
    """For each task that has a domain, the logit of whether a text is in it.

    Args:
        weights: of the tasks that have one.
        tasks: all tasks of the model.
    """

    def __init__(self, weights: GateWeights, tasks: Sequence[Task]) -> None:
        super().__init__()
        gated = [place for place, task in enumerate(tasks) if task.name in weights]
        columns = torch.stack([weights[tasks[place].name] for place in gated], 1)
        self._width = len(columns) - 2
        certain = [column for column in range(len(gated)) if float(columns[-2, column])]
        self._certain = [(gated[column], tasks[gated[column]]) for column in certain]
        self.weight = _constant(columns[:-2])
        self.certainty = _constant(torch.diag(columns[-2])[certain])
        self.bias = _constant(columns[-1])

    def forward(self, states: Sequence[Tensor], mask: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """Logits `[batch, tasks that have a domain]`.

        Args:
            states, mask: see `mtl_edge.training.heads`.
            logits: of every task of the model.
        """
        mean = POOLINGS["mean"](states[-1], mask.to(states[-1].dtype))
        found = mean @ self.weight + self.bias
        if not self._certain:
            return found
        certainties = [certainty_of(task, logits[place]) for place, task in self._certain]
        return found + torch.stack(certainties, 1) @ self.certainty


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)
