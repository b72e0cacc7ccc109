"""A trained model and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mtl_edge.bundle import Task
from mtl_edge.errors import OptionError
from mtl_edge.io.labels import Label
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.folds import OutOfFold
from mtl_edge.training.heads import Head
from mtl_edge.training.kinds import with_fitted
from mtl_edge.training.model import MultiTaskModel

__all__ = ["Checkpoint", "Sample", "Samples"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled text that the checkpoint carries along.

    Attributes:
        split: `calibration` (from train), `selection` or `dev`; `train`, where there are neither of
            these two: graphs can be compared on its rows, how right they are it cannot say.
        label: as the task's kind has it; of a soft one the most probable.
    """

    split: str
    task: str
    text: str
    label: Label


Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and what is known of it.

    Attributes:
        depth: how many of the backbone's layers it uses.
        shallower: heads for fewer layers, by depth and task, if they were trained.
        report: per task, the figures of training: see `mtl_edge.training.run`.
        run: scenario, recipe and versions of the run, for the record.
        config: the options of `mtl-edge train` that repeat the run.
        metrics: lines of figures by epoch: see `mtl_edge.training.loop`.
        out_of_fold: by task, logits that thresholds of early exits are fitted on, if `--exits` was
            given: see `mtl_edge.training.folds`.
    """

    backbone: Backbone
    depth: int
    tasks: tuple[Task, ...]
    heads: Mapping[str, Head]
    max_tokens: int
    samples: Samples
    report: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    shallower: Mapping[int, Mapping[str, Head]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    out_of_fold: Mapping[str, OutOfFold] = field(default_factory=dict)

    def at(self, depth: int) -> Checkpoint:
        """The same with fewer layers, and the heads that were trained for them.

        Raises:
            OptionError: there are no such heads.
        """
        if depth == self.depth:
            return self
        if depth not in self.shallower:
            known = ", ".join(map(str, [*self.shallower, self.depth]))
            raise OptionError(
                f"the checkpoint has heads for depth {known}, not {depth}; train with --depth "
                f"{depth}, or for all depths with --all-depths"
            )
        return replace(
            self,
            backbone=self.backbone.truncated(depth),
            depth=depth,
            tasks=tuple(self._task_at(task, depth) for task in self.tasks),
            heads=self.shallower[depth],
            shallower={d: heads for d, heads in self.shallower.items() if d < depth},
            out_of_fold={
                task: kept
                for task, found in self.out_of_fold.items()
                if (kept := found.at(depth)) is not None
            },
        )

    def _task_at(self, task: Task, depth: int) -> Task:
        found = self.report[task.name]["depths"][str(depth)]
        return with_fitted(task, found)

    def refitted(self, task: str) -> bool:
        """Whether the task's heads were trained on validation rows as well."""
        # Reports of earlier releases do not say; of those, the run does for all tasks.
        whole = self.run.get("refitted", False)
        return bool(self.report.get(task, {}).get("refitted", whole))

    def model(self) -> MultiTaskModel:
        """Encoder and heads in one module, in evaluation mode."""
        model = MultiTaskModel(self.backbone.encoder, self.heads)
        return model.eval().requires_grad_(False)
