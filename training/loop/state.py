"""Where learning stands: what a stopped run goes on from, and each learner's best epoch so far."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_edge.training.journal import Journal
from mtl_edge.training.loop.learner import Learner, ValidationScore, improves

__all__ = ["LoopState"]


class LoopState:
    """Everything that decides how a loop goes on.

    Attributes:
        step: optimizer steps that were made.
        stale: epochs since the last improvement.
        finished: whether patience ran out.
        losses: by part, of each step of this epoch.
    """

    def __init__(
        self,
        learners: Mapping[str, Learner],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.learners = learners
        self.optimizer = optimizer
        self.schedule = schedule
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
        """Of learning, those before a stop included."""
        return self._earlier + time.monotonic() - self._started

    def count(self, losses: Mapping[str, Tensor]) -> None:
        """Record a step and its losses."""
        self.step += 1
        for part, loss in losses.items():
            self.losses.setdefault(part, []).append(float(loss.detach()))

    def mean_loss(self, part: str) -> float | None:
        """Of this epoch so far; none if no batch was of this part."""
        values = self.losses.get(part)
        return sum(values) / len(values) if values else None

    def improve(self, name: str, epoch: int, scores: Mapping[str, ValidationScore]) -> bool:
        """Keep a learner's weights if they are the best so far."""
        learner = self.learners[name]
        own = [scores[part] for part in learner.scored_by]
        found = ValidationScore(
            sum(s.score for s in own) / len(own),
            sum(s.loss for s in own) / len(own),
            sum(s.rows for s in own),
        )
        best = self._best.get(name)
        if best is not None:
            before = ValidationScore(best["score"], best["loss"], found.rows)
            if not improves(found, before):
                return False
        self._best[name] = {
            "epoch": epoch,
            "score": found.score,
            "loss": found.loss,
            "parts": {
                part: {"score": scores[part].score, "loss": scores[part].loss}
                for part in learner.scored_by
            },
        }
        self._kept[name] = copy.deepcopy(learner.module.state_dict())
        return True

    def restore_best(self) -> dict[str, dict[str, Any]]:
        """Give each learner the weights of its best epoch; returns that epoch's figures."""
        for name, learner in self.learners.items():
            learner.module.load_state_dict(self._kept[name])
            learner.module.eval()
        return self._best

    def save(self, journal: Journal, name: str) -> None:
        """Write all of it, generators of random numbers included."""
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
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all(),
                "kept": self._kept,
                "best": self._best,
            },
        )

    def resume(self, journal: Journal, name: str) -> None:
        """Take up what a stopped run saved, if it got that far."""
        saved = journal.load(name)
        parts = [part for one in self.learners.values() for part in one.scored_by]
        journal.forget_after(parts, 0 if saved is None else saved["step"])
        if saved is None:
            return
        for key in ("step", "stale", "finished", "losses"):
            setattr(self, key, saved[key])
        self._earlier, self._kept, self._best = saved["seconds"], saved["kept"], saved["best"]
        for key, learner in self.learners.items():
            learner.module.load_state_dict(saved["modules"][key])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        torch.cuda.set_rng_state_all(saved["random_cuda"])
