"""How long and how fast to learn, and the steps themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.journal import Journal
from mtl_edge.training.loop.interrupt import deferred_interrupt
from mtl_edge.training.loop.learner import Learner, ValidationScore
from mtl_edge.training.loop.state import LoopState
from mtl_edge.training.progress import Progress

__all__ = ["Loop"]

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Loop:
    """How long and how fast to learn.

    Attributes:
        name: of what is learnt, by which a stopped run finds its place again.
        groups: parameters and their learning rates, as optimizers take them.
        steps: of one epoch.
        warmup: share of the steps on which the learning rate rises.
        clip: largest norm of all gradients together.
        patience: epochs without an improvement after which learning stops early.
        training: modules whose dropout is on in a step.
        rate_option, rate: what a user lowers when the loss is not a number, and what it is.
    """

    name: str
    title: str
    groups: Sequence[Mapping[str, Any]]
    epochs: int
    steps: int
    weight_decay: float
    warmup: float
    training: Sequence[nn.Module]
    rate_option: str
    rate: float
    clip: float | None = None
    patience: int | None = None
    journal: Journal = field(default_factory=Journal)

    def run(
        self,
        learners: Mapping[str, Learner],
        batches: Iterator[Batch],
        losses_of: Callable[[Batch], Mapping[str, Tensor]],
        evaluate: Callable[[], Mapping[str, ValidationScore]],
        describe: Callable[[Batch], Sequence[Mapping[str, Any]]],
        weigh: Callable[[str, Tensor], Tensor] = lambda part, loss: loss,
    ) -> dict[str, dict[str, Any]]:
        """Teach the learners in place; each ends with the weights of its best epoch.

        A run that was stopped goes on where it was, and ends with the same weights to the bit.

        Args:
            batches: the same ones in the same order every time.
            losses_of: each part's loss of a batch.
            evaluate: every part's score on its validation rows after an epoch.
            describe: a batch's rows as a user knows them, for the case that it is at fault.
            weigh: how much a part's loss counts; the sum of all is lowered.

        Returns:
            Per learner, its best `epoch` (from 1), its mean `score` and `loss` then, and by
            `parts` each one's own.

        Raises:
            MtlEdgeError: a loss is not a number.
            KeyboardInterrupt: the user stopped the run; its message says how to go on.
        """
        state = LoopState(learners, *self._optimizer())
        state.resume(self.journal, self.name)
        batches = itertools.islice(batches, state.step, None)  # what was learnt from before
        total = self.epochs * self.steps
        with (
            Progress(self.title, total=total, unit="steps", done=state.step) as progress,
            deferred_interrupt(self.journal.folder is not None) as stopped,
        ):
            while state.step < total and not state.finished:
                self._step(state, next(batches), losses_of, describe, weigh)
                progress.update()
                if state.step % self.steps == 0:
                    score = self._end_epoch(state, evaluate())
                    progress.update(0, f"validation {score:.1%}")
                elif stopped() or self.journal.due():
                    state.save(self.journal, self.name)
                if stopped():
                    raise KeyboardInterrupt(self.journal.advice)
        return state.restore_best()

    def _optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW and its one-cycle schedule over all steps."""
        optimizer = torch.optim.AdamW(
            [dict(group) for group in self.groups],
            weight_decay=self.weight_decay,
            fused=True,  # one pass over tables of n-grams in place of eight
        )
        total = self.epochs * self.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in self.groups],
            total_steps=total,
            # With one step of warm-up OneCycleLR divides by zero.
            pct_start=self.warmup * (1.5 if math.isclose(self.warmup * total, 1) else 1),
        )
        return optimizer, schedule

    def _step(
        self,
        state: LoopState,
        batch: Batch,
        losses_of: Callable[[Batch], Mapping[str, Tensor]],
        describe: Callable[[Batch], Sequence[Mapping[str, Any]]],
        weigh: Callable[[str, Tensor], Tensor],
    ) -> None:
        """Lower the losses of one batch.

        Raises:
            MtlEdgeError: one of them is not a number.
        """
        for module in self.training:
            module.train()
        losses = losses_of(batch)
        for part, loss in losses.items():
            if not torch.isfinite(loss):
                raise MtlEdgeError(
                    f"{part}: the loss became {loss.item()} in epoch "
                    f"{state.step // self.steps + 1}; lower {self.rate_option} "
                    f"(it is {self.rate}){self.journal.reject(describe(batch))}"
                )
        state.optimizer.zero_grad()
        torch.autograd.backward([weigh(part, loss) for part, loss in losses.items()])
        if self.clip is not None:
            parameters = [p for group in self.groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip)
        state.optimizer.step()
        state.schedule.step()
        state.count(losses)

    def _end_epoch(self, state: LoopState, scores: Mapping[str, ValidationScore]) -> float:
        """Keep what became better, write the epoch's figures; returns the mean score."""
        epoch = state.step // self.steps
        improved = [state.improve(name, epoch, scores) for name in state.learners]
        state.stale = 0 if any(improved) else state.stale + 1
        state.finished = self.patience is not None and state.stale >= self.patience
        for part, found in scores.items():
            self.journal.log(
                part=part,
                epoch=epoch,
                step=state.step,
                seconds=round(state.seconds, 3),
                learning_rate=float(state.schedule.get_last_lr()[-1]),
                train_loss=state.mean_loss(part),
                selection_score=found.score,
                selection_loss=found.loss,
            )
        state.losses.clear()
        state.save(self.journal, self.name)
        return sum(s.score for s in scores.values()) / len(scores)
