"""The loop in which everything learns: steps, figures, the best epoch, stops and restarts."""

from __future__ import annotations

import copy
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mtl_edge.errors import MtlEdgeError
from mtl_edge.training.journal import Journal
from mtl_edge.training.progress import Progress

__all__ = ["Learner", "Loop", "Score", "score"]

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Score:
    """How one part does on the rows that choose."""

    accuracy: float
    loss: float
    rows: int


@dataclass(frozen=True, slots=True)
class Learner:
    """A module that keeps the weights of its best epoch.

    Attributes:
        judged_by: parts whose mean loss and accuracy decide.
    """

    module: nn.Module
    judged_by: Sequence[str]


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
        judge: Callable[[], Mapping[str, Score]],
        rows_of: Callable[[Batch], Sequence[Mapping[str, str]]],
        weigh: Callable[[str, Tensor], Tensor] = lambda part, loss: loss,
    ) -> dict[str, dict[str, Any]]:
        """Teach the learners in place; each ends with the weights of its best epoch.

        A run that was stopped goes on where it was, and ends with the same weights to the bit.

        Args:
            batches: the same ones in the same order every time.
            losses_of: each part's loss of a batch.
            weigh: how much a part's loss counts; the sum of all is lowered.
            judge: every part's score after an epoch.
            rows_of: a batch as it should be shown to the user if it is at fault.

        Returns:
            Per learner, its best `epoch` (from 1), its mean `accuracy` and `loss` then, and by
            `parts` each one's own.

        Raises:
            MtlEdgeError: a loss is not a number.
            KeyboardInterrupt: the user stopped the run; its message says how to go on.
        """
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
        state = _State(learners, optimizer, schedule)
        state.resume(self.journal, self.name)
        batches = itertools.islice(batches, state.step, None)  # what was learnt from before
        with (
            Progress(self.title, total=total, unit="steps", done=state.step) as progress,
            _stoppable(self.journal.folder is not None) as stopped,
        ):
            while state.step < total and not state.finished:
                for module in self.training:
                    module.train()
                batch = next(batches)
                losses = losses_of(batch)
                self._check(losses, state.step // self.steps + 1, lambda b=batch: rows_of(b))  # type: ignore[misc]
                optimizer.zero_grad()
                torch.autograd.backward([weigh(part, loss) for part, loss in losses.items()])
                if self.clip is not None:
                    parameters = [p for group in self.groups for p in group["params"]]
                    nn.utils.clip_grad_norm_(parameters, self.clip)
                optimizer.step()
                schedule.step()
                state.count(losses)
                progress.update()
                if state.step % self.steps == 0:
                    accuracy = self._judge(state, judge())
                    progress.update(0, f"selection {accuracy:.1%}")
                elif stopped() or self.journal.due():
                    state.save(self.journal, self.name)
                if stopped():
                    raise KeyboardInterrupt(self.journal.advice)
        return state.restore()

    def _judge(self, state: _State, scores: Mapping[str, Score]) -> float:
        """Keep what became better, write the epoch's figures; the mean accuracy."""
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
                selection_accuracy=found.accuracy,
                selection_loss=found.loss,
            )
        state.losses.clear()
        state.save(self.journal, self.name)
        return sum(s.accuracy for s in scores.values()) / len(scores)

    def _check(
        self,
        losses: Mapping[str, Tensor],
        epoch: int,
        rows: Callable[[], Sequence[Mapping[str, str]]],
    ) -> None:
        for part, loss in losses.items():
            if not torch.isfinite(loss):
                raise MtlEdgeError(
                    f"{part}: the loss became {loss.item()} in epoch {epoch}; lower "
                    f"{self.rate_option} (it is {self.rate}){self.journal.reject(rows())}"
                )


class _State:
    """Everything that decides how a run goes on."""

    def __init__(
        self,
        learners: Mapping[str, Learner],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.learners = learners
        self.schedule = schedule
        self._optimizer = optimizer
        self.step = 0
        self.stale = 0
        self.finished = False
        self.losses: dict[str, list[float]] = {}
        self._earlier = 0.0
        self._started = time.monotonic()
        self._kept = {
            name: copy.deepcopy(one.module.state_dict()) for name, one in learners.items()
        }
        self._best: dict[str, dict[str, Any]] = {}

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def count(self, losses: Mapping[str, Tensor]) -> None:
        self.step += 1
        for part, loss in losses.items():
            self.losses.setdefault(part, []).append(float(loss.detach()))

    def mean_loss(self, part: str) -> float | None:
        values = self.losses.get(part)
        return sum(values) / len(values) if values else None

    def improve(self, name: str, epoch: int, scores: Mapping[str, Score]) -> bool:
        """Keep a learner's weights if they are the best so far."""
        learner = self.learners[name]
        judged = [scores[part] for part in learner.judged_by]
        accuracy = sum(s.accuracy for s in judged) / len(judged)
        loss = sum(s.loss for s in judged) / len(judged)
        best = self._best.get(name)
        if best is not None:
            # The loss decides, which is far less noisy, unless accuracy clearly says otherwise: by
            # more than a standard error, as in Breiman et al. 1984.
            rows = sum(s.rows for s in judged)
            error = math.sqrt(best["accuracy"] * (1 - best["accuracy"]) / rows)
            gain = accuracy - best["accuracy"]
            if gain < -error or (gain <= error and loss >= best["loss"]):
                return False
        self._best[name] = {
            "epoch": epoch,
            "accuracy": accuracy,
            "loss": loss,
            "parts": {
                part: {"accuracy": scores[part].accuracy, "loss": scores[part].loss}
                for part in learner.judged_by
            },
        }
        self._kept[name] = copy.deepcopy(learner.module.state_dict())
        return True

    def restore(self) -> dict[str, dict[str, Any]]:
        """Give each learner the weights of its best epoch."""
        for name, learner in self.learners.items():
            learner.module.load_state_dict(self._kept[name])
            learner.module.eval()
        return self._best

    def save(self, journal: Journal, name: str) -> None:
        if journal.folder is None:
            return
        journal.save(
            name,
            {
                "step": self.step,
                "stale": self.stale,
                "finished": self.finished,
                "losses": self.losses,
                "seconds": self.seconds,
                "modules": {n: one.module.state_dict() for n, one in self.learners.items()},
                "optimizer": self._optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all(),
                "kept": self._kept,
                "best": self._best,
            },
        )

    def resume(self, journal: Journal, name: str) -> None:
        saved = journal.load(name)
        parts = [part for one in self.learners.values() for part in one.judged_by]
        journal.forget_after(parts, 0 if saved is None else saved["step"])
        if saved is None:
            return
        for key in ("step", "stale", "finished", "losses"):
            setattr(self, key, saved[key])
        self._earlier, self._kept, self._best = saved["seconds"], saved["kept"], saved["best"]
        for key, learner in self.learners.items():
            learner.module.load_state_dict(saved["modules"][key])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        torch.cuda.set_rng_state_all(saved["random_cuda"])


@contextmanager
def _stoppable(active: bool) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of a step; a second one stops at once."""
    asked = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def score(logits: Tensor, labels: Sequence[int]) -> Score:
    """Accuracy and mean cross-entropy of logits `[rows, labels]`."""
    targets = torch.as_tensor(labels)
    return Score(
        float((logits.argmax(1) == targets).float().mean()),
        float(nn.functional.cross_entropy(logits, targets)),
        len(targets),
    )
