"""Pictures of a run: learning curves, and where answers are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.bundle import Task, TaskKind
from mtl_edge.table import clip
from mtl_edge.training.kinds import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_errors"]

MOST_CURVES = 8
MOST_NAMED, WIDEST = 72, 32  # labels that have room beside each other, and columns of one
MOST_PAIRS = 40  # of labels that are confused
WITH_NUMBERS = 12  # labels up to which cells are large enough to be read
TRAINING, VALIDATION = "#8fa3b3", "#c0562b"


def draw_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """By epoch: loss on training and validation rows, score on the latter; one row a part."""
    from matplotlib.figure import Figure

    # Of heads for many depths the deepest are the ones of interest.
    # Heads of a fold are not those that ship.
    named = dict.fromkeys(line["part"] for line in metrics)
    parts = [part for part in named if not re.search(r"\.fold\d+@", part)][-MOST_CURVES:]
    figure = Figure(figsize=(8, 0.6 + 2.2 * len(parts)))
    axes = figure.subplots(len(parts), 2, squeeze=False, sharex="row")
    for (left, right), part in zip(axes, parts, strict=True):
        lines = [line for line in metrics if line["part"] == part]
        epochs = [line["epoch"] for line in lines]
        train = [np.nan if v["train_loss"] is None else v["train_loss"] for v in lines]
        left.plot(epochs, train, color=TRAINING, marker=".", label="train, with dropout")
        selection = [
            np.nan if line["selection_loss"] is None else line["selection_loss"] for line in lines
        ]
        left.plot(epochs, selection, color=VALIDATION, marker=".", label="validation")
        score = [100 * (line["selection_score"] or 0.0) for line in lines]
        right.plot(epochs, score, color=VALIDATION, marker=".")
        best = int(np.argmax(score))
        right.annotate(
            f"{score[best]:.1f}", (epochs[best], score[best]), xytext=(0, 5),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
        left.set_title(f"{clip(part, WIDEST)}: loss", fontsize=9, loc="left")
        right.set_title(f"{clip(part, WIDEST)}: score, %", fontsize=9, loc="left")
        right.margins(y=0.2)
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend(fontsize=8, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize=8)
    figure.tight_layout()
    return figure


def draw_errors(tasks: Sequence[Task], report: Mapping[str, Any]) -> Figure:
    """Where each task's answers are wrong: one picture beside the other."""
    from matplotlib.figure import Figure

    panels = [PANELS[task.kind] for task in tasks]
    sizes = [panel.size(task) for panel, task in zip(panels, tasks, strict=True)]
    figure = Figure(figsize=(sum(sizes), max(sizes) + 0.4))
    axes = figure.subplots(1, len(tasks), squeeze=False, width_ratios=sizes)
    for axis, panel, task in zip(axes[0], panels, tasks, strict=True):
        found = report[task.name]
        panel.draw(axis, task, found)
        said = shown(task, found["head"]).split(",")[0]
        title = f"{clip(task.name, WIDEST)}, {found['reported']['split']}: {said}"
        axis.set_title(title, fontsize=9, loc="left")
    figure.tight_layout()
    return figure


def _confusion(axis: Any, task: Task, found: Mapping[str, Any]) -> None:
    """Rows are the right labels, columns the answers, shade the row's share."""
    if "confused" in found:
        _confused(axis, task, found["confused"])
        return
    counts = np.array(found["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Oranges", vmin=0, vmax=1)
    places = range(len(task.labels))
    step = -(-len(places) // MOST_NAMED)
    labels = [clip(label, WIDEST) for label in task.labels[::step]]
    axis.set_xticks(places[::step], labels, fontsize=7, rotation=45, ha="right")
    axis.set_yticks(places[::step], labels, fontsize=7)
    if len(task.labels) <= WITH_NUMBERS:
        for row in places:
            for column in places:
                color = "white" if shares[row, column] > 0.6 else "black"
                axis.text(column, row, counts[row, column], ha="center", va="center",
                          fontsize=8, color=color)  # fmt: skip
    axis.set_xlabel("answer", fontsize=8)
    axis.set_ylabel("right", fontsize=8)


def _confused(axis: Any, task: Task, pairs: Sequence[Sequence[int]]) -> None:
    """Of more labels than a matrix has room for: what is most often taken for what."""
    shown = pairs[:MOST_PAIRS][::-1]
    names = [
        f"{clip(task.labels[right], WIDEST // 2)} → {clip(task.labels[answer], WIDEST // 2)}"
        for right, answer, _ in shown
    ]
    axis.barh(range(len(shown)), [rows for *_, rows in shown], color=VALIDATION)
    axis.set_yticks(range(len(shown)), names, fontsize=7)
    axis.margins(y=0.01)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("rows of the first label that got the second as answer", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _by_label(axis: Any, task: Task, found: Mapping[str, Any]) -> None:
    """F1 of each label, the best on top."""
    ordered = sorted(found["by_label"].items(), key=lambda item: item[1]["f1"])[-MOST_NAMED:]
    names = [f"{clip(label, WIDEST)} ({figures['rows']:.0f})" for label, figures in ordered]
    axis.barh(range(len(ordered)), [100 * figures["f1"] for _, figures in ordered],
              color=VALIDATION)  # fmt: skip
    axis.set_yticks(range(len(ordered)), names, fontsize=7)
    axis.set_xlim(0, 100)
    axis.set_xlabel("F1, % (rows that have the label)", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _points(axis: Any, task: Task, found: Mapping[str, Any]) -> None:
    """Answers against the right scores."""
    right, answers = np.array(found["points"]).T
    axis.scatter(right, answers, s=6, color=VALIDATION, alpha=0.4)
    ends = [right.min(), right.max()]
    axis.plot(ends, ends, color=TRAINING, linewidth=1)
    axis.set_xlabel("right", fontsize=8)
    axis.set_ylabel("answer", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True, slots=True)
class Panel:
    """How a kind of task is drawn, and how wide and high, in inches."""

    draw: Callable[[Any, Task, Mapping[str, Any]], None]
    size: Callable[[Task], float]


PANELS: Mapping[TaskKind, Panel] = {
    "single": Panel(_confusion, lambda task: 2.2 + 0.45 * min(len(task.labels), 2 * WITH_NUMBERS)),
    "multi": Panel(_by_label, lambda task: 2.8 + 0.15 * min(len(task.labels), MOST_NAMED)),
    "score": Panel(_points, lambda task: 4.0),
}
