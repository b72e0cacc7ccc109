"""Pictures of a run: learning curves and confusion matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from mtl_edge.bundle import Task

__all__ = ["draw_confusion", "draw_curves"]

MOST_CURVES = 8
WITH_NUMBERS = 12  # labels up to which cells are large enough to be read
TRAIN, SELECTION = "#8fa3b3", "#c0562b"


def draw_curves(metrics: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Loss of train and selection and accuracy of selection by epoch, one row a part."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    # Of heads for many depths the deepest are the ones of interest.
    # Heads of a fold only answer for others.
    named = dict.fromkeys(line["part"] for line in metrics)
    parts = [part for part in named if not re.search(r"\.fold\d+@", part)][-MOST_CURVES:]
    figure, axes = plt.subplots(
        len(parts), 2, figsize=(8, 0.6 + 2.2 * len(parts)), squeeze=False, sharex="row"
    )
    for (left, right), part in zip(axes, parts, strict=True):
        lines = [line for line in metrics if line["part"] == part]
        epochs = [line["epoch"] for line in lines]
        train = [np.nan if v["train_loss"] is None else v["train_loss"] for v in lines]
        left.plot(epochs, train, color=TRAIN, marker=".", label="train, with dropout")
        selection = [line["selection_loss"] for line in lines]
        left.plot(epochs, selection, color=SELECTION, marker=".", label="selection")
        accuracy = [100 * line["selection_accuracy"] for line in lines]
        right.plot(epochs, accuracy, color=SELECTION, marker=".")
        best = int(np.argmax(accuracy))
        right.annotate(
            f"{accuracy[best]:.1f}", (epochs[best], accuracy[best]), xytext=(0, 5),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
        left.set_title(f"{part}: loss", fontsize=9, loc="left")
        right.set_title(f"{part}: selection accuracy, %", fontsize=9, loc="left")
        right.margins(y=0.2)
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend(fontsize=8, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_confusion(tasks: Sequence[Task], report: Mapping[str, Any], file: Path) -> None:
    """One matrix a task: rows are the right labels, columns the answers, shade the row's share."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    sizes = [2.2 + 0.45 * min(len(task.labels), 2 * WITH_NUMBERS) for task in tasks]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(sum(sizes), max(sizes) + 0.4), squeeze=False, width_ratios=sizes
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        counts = np.array(report[task.name]["confusion"])
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Oranges", vmin=0, vmax=1)
        places = range(len(task.labels))
        axis.set_xticks(places, task.labels, fontsize=7, rotation=45, ha="right")
        axis.set_yticks(places, task.labels, fontsize=7)
        if len(task.labels) <= WITH_NUMBERS:
            for row in places:
                for column in places:
                    color = "white" if shares[row, column] > 0.6 else "black"
                    axis.text(column, row, counts[row, column], ha="center", va="center",
                              fontsize=8, color=color)  # fmt: skip
        found = report[task.name]
        axis.set_title(
            f"{task.name}, {found['reported']['split']}: {found['head']['accuracy']:.1%}",
            fontsize=9, loc="left",
        )  # fmt: skip
        axis.set_xlabel("answer", fontsize=8)
        axis.set_ylabel("right", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
