"""The heads that a run begins with: those of its start, and fresh ones for new tasks."""

from __future__ import annotations

import copy

import torch

from mtl_edge.answers.kinds import kind_of
from mtl_edge.bundle import Task
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.io.labels import label_list
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.data import TaskData
from mtl_edge.training.heads import (
    DEFAULT_HEAD,
    HEAD_FOR_FEW,
    Head,
    HeadConfig,
    build_head,
    head_config,
)
from mtl_edge.training.run.plan import RunPlan

__all__ = ["initial_heads", "initial_heads_by_depth"]


def initial_heads_by_depth(plan: RunPlan, backbone: Backbone) -> dict[int, dict[str, Head]]:
    """`initial_heads` of every depth of the run."""
    return {depth: initial_heads(plan, backbone, depth) for depth in plan.depths}


def initial_heads(plan: RunPlan, backbone: Backbone, depth: int) -> dict[str, Head]:
    """Heads of one depth by task: those of `start` where it has them, fresh ones for the rest.

    Raises:
        CheckpointError: `start` has other labels for one of the tasks.
        OptionError: there is no such head, or `start` has another.
    """
    seed = plan.options.recipe.seed
    torch.manual_seed(seed)  # also where no head is fresh: dropout draws from it
    start = plan.start
    trained = start.at(depth).heads if start else {}
    tasks_of_start = {task.name: task for task in start.tasks} if start else {}
    heads = {task.name: trained[task.name] for task in plan.kept_tasks}
    for task in plan.tasks:
        config = head_config(
            plan.options.heads.get(task.name, HEAD_FOR_FEW if task.few else DEFAULT_HEAD),
            states=depth + 1,
            width=backbone.width_at(depth),
            labels=task.task.outputs,
            relative=kind_of(task.task).relative,
        )
        if task.name in tasks_of_start:
            _require_same_labels(task, tasks_of_start[task.name])
            named = plan.options.heads.get(task.name)
            _require_same_head(task.name, named, config, trained[task.name].config)
            heads[task.name] = copy.deepcopy(trained[task.name])
        else:
            torch.manual_seed(seed)  # a head does not depend on which others there are
            heads[task.name] = build_head(config)
    return heads


def _require_same_labels(task: TaskData, of_start: Task) -> None:
    if of_start.kind != task.task.kind:
        raise CheckpointError(
            f"task {task.name!r} is of kind {task.task.kind} in {task.train.source['file']} and "
            f"{of_start.kind} in the checkpoint; give --kind, or the task another name"
        )
    if of_start.labels != task.labels:
        raise CheckpointError(
            f"task {task.name!r} has the labels {label_list(task.labels)} in "
            f"{task.train.source['file']} and {label_list(of_start.labels)} in the "
            "checkpoint; give the task another name, or start anew"
        )


def _require_same_head(
    task: str, named: str | None, config: HeadConfig, of_start: HeadConfig
) -> None:
    if named is not None and (config.kind, config.pooling) != (of_start.kind, of_start.pooling):
        raise OptionError(
            f"--head {named}: the checkpoint's head of task "
            f"{task!r} is {of_start.kind}, pooling {of_start.pooling}; leave --head out for "
            "it, or give the task another name"
        )
