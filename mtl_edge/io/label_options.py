"""How a file says which labels a row has, and of what kind the task is."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_edge.errors import OptionError
from mtl_edge.io.labels import TaskKind

__all__ = ["LabelOptions"]


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Where and how a task's labels stand in a file.

    Attributes:
        column: that holds them; default: `label`, or else the column of the task's name.
        columns: in place of it, a column a label, as `joy,anger` or `emotion_*`: 0 or 1, or
            probabilities. What `*` stands for is the label. Beside `column`, a row that has both
            gets their mean.
        logits: whether `columns` hold logits rather than probabilities.
        separator: between several labels in one cell.
        kind: of the task; default: as the values say.

    Raises:
        OptionError: they do not fit together.
    """

    column: str | None = None
    columns: str | None = None
    logits: bool = False
    separator: str | None = None
    kind: TaskKind | None = None

    def __post_init__(self) -> None:
        if self.logits and not self.columns:
            raise OptionError("--logits is about --label-columns; name them as well")
        if self.separator is not None and self.kind not in (None, "multi"):
            raise OptionError(f"--label-separator is for tasks of kind multi, not {self.kind}")
        if self.columns and self.kind == "score":
            raise OptionError("--label-columns has a column a label, and a score has no labels")
        if self.columns and self.columns.count("*") > 1:
            raise OptionError(
                f"--label-columns {self.columns}: expected one * in place of the label, as "
                "emotion_*, or names with commas between"
            )
