"""Files to tasks: read, split, and remarked on where a careful reader would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.io.labels import look_alikes, ordered
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData, build_task, conflicts

__all__ = ["LABEL_NAMES", "TaskFiles", "read_tasks"]

LABEL_NAMES = "names"


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """Where one task's rows are.

    Attributes:
        train: a path, or `hub:NAME[:SUBSET][:SPLIT]`.
        dev: the same, of rows to report figures on; none: validation rows are reported on.
        label_column: none: `label`, else the task's name.
        labels: in the order that they shall have; none: that of the checkpoint if it has the same
            ones, else see `mtl_edge.io.labels.ordered`.
        describe: a file of descriptions as texts of their labels, or `names`: the labels themselves
            say what they mean; none: they are not described.
    """

    name: str
    train: str
    dev: str | None = None
    label_column: str | None = None
    labels: Sequence[str] | None = None
    describe: str | None = None


def read_tasks(
    files: Sequence[TaskFiles],
    options: ReadOptions,
    seed: int,
    note: Callable[[str], None],
    start: Checkpoint | None = None,
    set_aside: Callable[[str, Rows], bool] = lambda task, rows: True,
) -> list[TaskData]:
    """Read every task's rows and set validation rows aside.

    Args:
        seed: of the split.
        note: is told what was passed over and what looks wrong.
        start: a task that it has as well keeps the order of its labels.
        set_aside: whether a task with such training rows gets validation rows.

    Raises:
        DataError: a file that cannot be used.
    """
    before = {task.name: task.labels for task in start.tasks} if start else {}
    return [
        _read_task(one, options, seed, note, before.get(one.name, ()), set_aside) for one in files
    ]


def _read_task(
    files: TaskFiles,
    options: ReadOptions,
    seed: int,
    note: Callable[[str], None],
    before: Sequence[str],
    set_aside: Callable[[str, Rows], bool],
) -> TaskData:
    def read(file: str, known: Sequence[str] | None) -> Rows:
        rows = read_rows(files.name, file, options, files.label_column, known)
        if rows.note:
            note(f"task {files.name}: {file}: {rows.note}")
        return rows

    order = files.labels
    train = read(files.train, order)
    if order is None and {*before} == {*train.labels}:
        order = before
    dev = None if files.dev is None else read(files.dev, order or ordered(train.labels))
    described = None
    if files.describe == LABEL_NAMES:
        described = _names(train)
    elif files.describe is not None:
        described = read(files.describe, order or ordered(train.labels))
    task = build_task(
        files.name, train, dev, seed, order,
        described=described, set_aside=set_aside(files.name, train),
    )  # fmt: skip
    for remark in _remarks(train, dev):
        note(f"task {files.name}: {remark}")
    return task


def _names(train: Rows) -> Rows:
    """Each label as a text of its own."""
    labels = ordered(train.labels)
    texts = [" ".join(label.replace("_", " ").split()) for label in labels]
    return Rows(tuple(texts), tuple(labels), {"file": LABEL_NAMES, "rows": len(labels)})


def _remarks(train: Rows, dev: Rows | None) -> list[str]:
    """What a careful reader of the data would mention."""
    remarks = []
    if alike := look_alikes(ordered(train.labels)):
        pairs = ", ".join(f"{one!a} and {other!a}" for one, other in alike[:3])
        remarks.append(f"the labels {pairs} look alike and are taken for different ones")
    if count := sum(not text.strip() for text in train.texts):
        remarks.append(f"{count} texts of train are empty")
    if count := conflicts(train):
        remarks.append(f"{count} texts stand in train with more than one label")
    if dev is not None and (shared := len(set(train.texts) & set(dev.texts))):
        remarks.append(f"{shared} texts stand in train and in dev")
    return remarks
