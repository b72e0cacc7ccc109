"""Files to tasks: read, split, and remarked on where a careful reader would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.io.labels import NUMBER, label_list, look_alikes, ordered
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData, build_task, conflicts, names_of
from mtl_edge.training.label_counts import require_labels, seen_once

__all__ = ["LABEL_NAMES", "TaskFiles", "read_tasks"]

LABEL_NAMES = "names"


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """Where one task's rows are.

    Attributes:
        train: a path, or `hub:NAME[:SUBSET][:SPLIT]`.
        dev: the same, of rows to report figures on; none: validation rows are reported on.
        how: how labels stand in the files.
        labels: in the order that they shall have; none: that of the checkpoint if it has the same
            ones, else see `mtl_edge.io.labels.ordered`.
        describe: a file of descriptions as texts of their labels, or `names`: the labels themselves
            say what they mean; none: they are not described.
        none: what stands in the place of a label in rows that have none.
    """

    name: str
    train: str
    dev: str | None = None
    how: LabelOptions = field(default_factory=LabelOptions)
    labels: Sequence[str] | None = None
    describe: str | None = None
    none: str | None = None


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
    def read(file: str, how: LabelOptions, known: Sequence[str] | None) -> Rows:
        rows = read_rows(files.name, file, options, how, known)
        if rows.note:
            note(f"task {files.name}: {file}: {rows.note}")
        return rows

    order = files.labels
    in_place = () if files.none is None else (files.none,)
    train, none = _without(files, read(files.train, files.how, order and [*order, *in_place]))
    if files.none is not None and not none:
        raise DataError(
            f"task {files.name!r}: no row of {files.train} has the label {files.none!r} that "
            f"--none names; expected some beside {label_list(ordered(names_of(train)))}"
        )
    require_labels(files.name, train)
    names = names_of(train)
    if order is None and {*before} == names:
        order = before
    how = replace(files.how, kind=train.kind)
    known = None if train.kind == "score" else order or ordered(names)
    dev: Rows | None = None
    none_of_dev: tuple[str, ...] = ()
    if files.dev is not None:
        dev, none_of_dev = _without(files, read(files.dev, how, known and [*known, *in_place]))
    task = build_task(
        files.name, train, dev, seed, order,
        described=_described(files, train, lambda file: read(file, how, known)),
        set_aside=set_aside(files.name, train),
    )  # fmt: skip
    task = replace(task, none=none, none_of_dev=none_of_dev)
    if files.how.kind is None and (said := _why(train)):
        note(f"task {files.name}: {said}")
    for remark in _remarks(train, dev):
        note(f"task {files.name}: {remark}")
    return task


def _without(files: TaskFiles, rows: Rows) -> tuple[Rows, tuple[str, ...]]:
    """The rows that have a label, and the texts of those that have none, as `--none` says.

    Raises:
        DataError: no other rows are there.
    """
    if files.none is None:
        return rows, ()
    marks = (files.none, (files.none,))
    kept = [place for place, label in enumerate(rows.labels) if label not in marks]
    if not kept:
        raise DataError(
            f"task {files.name!r}: all rows of {rows.source['file']} have the label {files.none!r} "
            "that --none names; expected others as well"
        )
    texts = {rows.texts[place] for place in kept}
    none = [t for t, label in zip(rows.texts, rows.labels, strict=True) if label in marks]
    return replace(rows.take(kept), note=rows.note), tuple(t for t in none if t not in texts)


def _described(files: TaskFiles, train: Rows, read: Callable[[str], Rows]) -> Rows | None:
    """Descriptions of labels as rows; of `names` each label is a text of its own.

    Raises:
        OptionError: scores have no labels to describe.
    """
    if files.describe is None:
        return None
    if train.kind == "score":
        raise OptionError(f"--describe: task {files.name!r} has scores; only labels are described")
    if files.describe != LABEL_NAMES:
        return read(files.describe)
    labels = ordered(names_of(train))
    texts = tuple(" ".join(label.replace("_", " ").split()) for label in labels)
    own = labels if train.kind == "single" else [(label,) for label in labels]
    return replace(train, texts=texts, labels=tuple(own), source={"file": LABEL_NAMES}, note=None)


def _why(train: Rows) -> str | None:
    """Why a task is of the kind that it is, where another may have been meant."""
    if train.kind == "multi":
        return "its rows have several labels, so that it is of kind multi"
    if train.kind == "score":
        return "its labels are numbers with fractions, so that it is of kind score"
    if all(NUMBER.fullmatch(str(label)) for label in train.labels) and len(names_of(train)) > 2:
        return "its labels are numbers and taken for names; as a scale: --kind TASK=score"
    return None


def _remarks(train: Rows, dev: Rows | None) -> list[str]:
    """What a careful reader of the data would mention."""
    remarks = []
    if alike := look_alikes(ordered(names_of(train))):
        pairs = ", ".join(f"{one!a} and {other!a}" for one, other in alike[:3])
        remarks.append(f"the labels {pairs} look alike and are taken for different ones")
    if once := seen_once(train):
        remarks.append(once)
    if count := sum(not text.strip() for text in train.texts):
        remarks.append(f"{count} texts of train are empty")
    if count := conflicts(train):
        remarks.append(f"{count} texts stand in train with more than one label")
    if dev is not None and (shared := len(set(train.texts) & set(dev.texts))):
        remarks.append(f"{shared} texts stand in train and in dev")
    return remarks
