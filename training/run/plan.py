"""What a run is going to do, and whether its options fit together and fit the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_edge.bundle import Task
from mtl_edge.errors import OptionError
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData
from mtl_edge.training.folds import require_texts
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.scenarios import Learning, learning_of

__all__ = ["RunPlan", "plan_run"]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The tasks, parts and depths of a run.

    Attributes:
        tasks: with rows of their own.
        kept_tasks: of `start` without rows here; their heads stay as they are, to the bit.
        depths: that get heads, the model's own last.
        start: goes on from its backbone and heads; none: from fresh heads.
    """

    tasks: Sequence[TaskData]
    kept_tasks: Sequence[Task]
    options: TrainOptions
    learning: Learning
    depths: Sequence[int]
    start: Checkpoint | None

    @property
    def depth(self) -> int:
        """Layers that the model uses."""
        return self.depths[-1]

    @property
    def names(self) -> list[str]:
        """All tasks of the checkpoint that comes of it, in order."""
        return _names(self.kept_tasks, self.tasks)

    @property
    def learning_tasks(self) -> list[TaskData]:
        """Tasks whose heads learn, in order."""
        return [task for task in self.tasks if task.name in self.learning.heads]


def _names(kept: Sequence[Task], tasks: Sequence[TaskData]) -> list[str]:
    return [*(task.name for task in kept), *(task.name for task in tasks)]


def plan_run(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: TrainOptions,
    start: Checkpoint | None,
) -> RunPlan:
    """
    Raises:
        OptionError: options that do not fit together or do not fit the tasks.
    """
    own = {task.name for task in tasks}
    kept = [task for task in (start.tasks if start else ()) if task.name not in own]
    learning = learning_of(
        options.scenario,
        _names(kept, tasks),
        learn=options.learn,
        freeze=options.freeze,
        top_layers=options.top_layers,
        fixed=[task.name for task in kept],
    )
    if kept and learning.backbone != "frozen":
        raise OptionError(
            f"--scenario {options.scenario} changes the backbone under task "
            f"{', '.join(t.name for t in kept)}; give its rows with --task too, or freeze backbone"
        )
    if options.refit and (learning.backbone != "frozen" or any(t.dev is None for t in tasks)):
        raise OptionError(
            "--refit teaches on the rows that would be reported on, and only heads; give --dev for "
            "each task, and a --scenario that leaves the backbone frozen"
        )
    _require_kinds(tasks, options)
    if start is not None:
        _require_same_limits(options, tasks, start)
    if options.exits:
        _require_exits(options, learning, tasks, start)
    depths = (
        _depths(options, learning, backbone)
        if start is None
        else _depths_of_start(options, learning, start)
    )
    return RunPlan(tasks, kept, options, learning, depths, start)


def _require_kinds(tasks: Sequence[TaskData], options: TrainOptions) -> None:
    """
    Raises:
        OptionError: an option means nothing for a task of that kind.
    """
    for task in tasks:
        kind = task.task.kind
        if options.abstain is not None and kind != "single":
            raise OptionError(
                f"--abstain marks answers of one label a text, and task {task.name!r} is of kind "
                f"{kind}; leave it out, or train {task.name!r} by itself"
            )
        if kind == "score" and options.exits:
            raise OptionError(
                f"--exits answers texts early that a stage is sure of, and of a score such as "
                f"{task.name!r} nothing says how sure it is; leave it out, or train {task.name!r} "
                "in a model of its own"
            )
        if kind == "score" and options.recipe.class_weights:
            raise OptionError(f"--class-weights is about labels, and {task.name!r} is a score")


def _require_same_limits(
    options: TrainOptions, tasks: Sequence[TaskData], start: Checkpoint
) -> None:
    """
    Raises:
        OptionError: `start` has other maximum tokens, or its heads may have been trained on rows
            that have to be new to them.
    """
    most = options.max_tokens
    if most is not None and min(most, start.backbone.max_tokens) != start.max_tokens:
        raise OptionError(
            f"--max-tokens is {most}, and the checkpoint was taught with {start.max_tokens}; leave "
            "--max-tokens out"
        )
    if options.abstain is not None and (trained := _trained_before(tasks, start)):
        raise OptionError(
            f"--abstain fits thresholds on rows that heads have not seen, and the checkpoint's of "
            f"task {trained[0]!r} may have seen them; train it anew, without --extend"
        )


def _trained_before(tasks: Sequence[TaskData], start: Checkpoint | None) -> list[str]:
    """Names of the tasks that `start` has heads for."""
    return [task.name for task in tasks if start is not None and task.name in start.heads]


def _require_exits(
    options: TrainOptions,
    learning: Learning,
    tasks: Sequence[TaskData],
    start: Checkpoint | None,
) -> None:
    """
    Raises:
        OptionError: the heads of a fold would not be such as those that ship, or have no rows.
    """
    if learning.backbone != "frozen":
        raise OptionError("--exits needs a frozen backbone; choose another --scenario")
    if fixed := [task.name for task in tasks if task.name not in learning.heads]:
        raise OptionError(f"--exits needs heads that learn, and {fixed[0]!r} does not; let it")
    if trained := _trained_before(tasks, start):
        raise OptionError(
            f"--exits asks heads for rows that they have not seen, and the checkpoint's of task "
            f"{trained[0]!r} may have seen them; train it anew, without --extend"
        )
    if not 2 <= options.exit_folds <= 50:
        raise OptionError(f"--exit-folds is {options.exit_folds}, expected 2 to 50")
    for task in tasks:
        require_texts(task.name, [*task.train.texts, *task.validation.texts], options.exit_folds)


def _depths_of_start(options: TrainOptions, learning: Learning, start: Checkpoint) -> list[int]:
    """Depths that get heads: those that the checkpoint has heads for.

    Raises:
        OptionError: another depth is named.
    """
    if options.depth not in (None, start.depth):
        raise OptionError(f"the checkpoint has depth {start.depth}; leave --depth out")
    if options.all_depths and not start.shallower and start.depth:
        raise OptionError(
            f"the checkpoint has heads for depth {start.depth} alone; leave --all-depths out"
        )
    if learning.backbone != "frozen":
        return [start.depth]
    if missing := [one for one in options.exits if one not in start.shallower]:
        raise OptionError(
            f"--exits {missing[0]}: the checkpoint has heads for depth "
            f"{', '.join(map(str, [*start.shallower, start.depth]))} alone"
        )
    return [*start.shallower, start.depth]


def _depths(options: TrainOptions, learning: Learning, backbone: Backbone) -> list[int]:
    """Depths that get heads, the one to use last.

    Raises:
        OptionError: the backbone has no such depth, or an exit is not below the model's.
        BackboneError: the backbone cannot be cut there.
    """
    layers = backbone.info.layers
    depth = layers if options.depth is None else options.depth
    if not 0 <= depth <= layers:
        raise OptionError(f"--depth is {depth}, and the backbone has layers 0 to {layers}")
    if options.all_depths and learning.backbone != "frozen":
        raise OptionError("--all-depths needs a frozen backbone; choose another --scenario")
    if high := [one for one in options.exits if not 0 <= one < depth]:
        raise OptionError(
            f"--exits {high[0]}: a cheaper stage has fewer layers than the model's {depth}"
        )
    depths = sorted({*(range(depth) if options.all_depths else options.exits), depth})
    for one in depths:
        backbone.require_depth(one)
    return depths
