"""Pictures of a run: learning curves and confusion matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.bundle import Task
from mtl_edge.table import clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_confusion", "draw_curves"]

MOST_CURVES = 8
MOST_NAMED, WIDEST = 72, 32  # labels that have room beside each other, and columns of one
WITH_NUMBERS = 12  # labels up to which cells are large enough to be read
TRAINING, VALIDATION = "#8fa3b3", "#c0562b"


def draw_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """By epoch: loss on training and validation rows, accuracy on the latter; one row a part."""
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
        selection = [line["selection_loss"] for line in lines]
        left.plot(epochs, selection, color=VALIDATION, marker=".", label="selection")
        accuracy = [100 * line["selection_accuracy"] for line in lines]
        right.plot(epochs, accuracy, color=VALIDATION, marker=".")
        best = int(np.argmax(accuracy))
        right.annotate(
            f"{accuracy[best]:.1f}", (epochs[best], accuracy[best]), xytext=(0, 5),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
        left.set_title(f"{clip(part, WIDEST)}: loss", fontsize=9, loc="left")
        right.set_title(f"{clip(part, WIDEST)}: selection accuracy, %", fontsize=9, loc="left")
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


def draw_confusion(tasks: Sequence[Task], report: Mapping[str, Any]) -> Figure:
    """One matrix a task: rows are the right labels, columns the answers, shade the row's share."""
    from matplotlib.figure import Figure

    sizes = [2.2 + 0.45 * min(len(task.labels), 2 * WITH_NUMBERS) for task in tasks]
    figure = Figure(figsize=(sum(sizes), max(sizes) + 0.4))
    axes = figure.subplots(1, len(tasks), squeeze=False, width_ratios=sizes)
    for axis, task in zip(axes[0], tasks, strict=True):
        counts = np.array(report[task.name]["confusion"])
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
        found = report[task.name]
        split, accuracy = found["reported"]["split"], found["head"]["accuracy"]
        title = f"{clip(task.name, WIDEST)}, {split}: {accuracy:.1%}"
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel("answer", fontsize=8)
        axis.set_ylabel("right", fontsize=8)
    figure.tight_layout()
    return figure
