"""Accuracy against speed: ours as a line, each of the others as a point with its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.training.drawing import without_formulas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

OURS, OTHERS, LINE = "#0b6e4f", "#b5442e", "#5f6368"
FONT = 7.5
LINE_HEIGHT = 1.35  # of a label, in its font size


def draw(figures: Mapping[str, Any], frontier: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel for the mean over the tasks, and one for each task.

    Args:
        frontier: those of ours that are drawn as a line, from slow to fast.
    """
    from matplotlib.figure import Figure

    tasks = list(figures["rows"])
    panels: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "mean of the tasks": lambda way: float(np.mean(list(way["accuracy"].values())))
    }
    for task in tasks:
        panels[task] = lambda way, task=task: way["accuracy"][task]  # type: ignore[misc]
    figure = Figure(figsize=(10, 5.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)
    for axis, (title, score) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, figures, frontier, title, score)
    figure.draw_without_rendering()
    for axis, (_, score) in zip(axes[:, 0], panels.items(), strict=True):
        _label(axis, figures["ways"], score)
    return figure


def _panel(
    axis: Any,
    figures: Mapping[str, Any],
    frontier: Sequence[Mapping[str, Any]],
    title: str,
    score: Callable[[Mapping[str, Any]], float],
) -> None:
    for ours, color, marker in ((True, OURS, "o"), (False, OTHERS, "D")):
        own = [way for way in figures["ways"] if way["ours"] is ours]
        axis.plot(
            [way["texts_per_second"] for way in own],
            [100 * score(way) for way in own],
            marker,
            color=color,
            markersize=5,
            label="mtl-edge" if ours else "others",
        )
    axis.plot(
        [way["texts_per_second"] for way in frontier],
        [100 * score(way) for way in frontier],
        color=OURS,
        linewidth=1.2,
        alpha=0.6,
    )
    axis.set_xscale("log")
    without_formulas(axis.xaxis)
    rows = figures["rows"].get(title)
    axis.set_title(f"{title}, {rows['reported']} rows" if rows else title, fontsize=10, loc="left")
    axis.set_xlabel(
        f"texts per second, all tasks answered, {figures['threads']} threads (log)", fontsize=9
    )
    axis.set_ylabel("accuracy, %", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.14, y=0.12)
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False, loc="lower left")


def _label(
    axis: Any, ways: Sequence[Mapping[str, Any]], score: Callable[[Mapping[str, Any]], float]
) -> None:
    """A name beside each point, at the nearest free place around it."""
    to_pixels = axis.transData.transform
    points = to_pixels([(way["texts_per_second"], 100 * score(way)) for way in ways])
    pixels_a_point = axis.figure.dpi / 72
    height = FONT * LINE_HEIGHT * pixels_a_point
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    inside = axis.get_window_extent()
    for way, (x, y) in sorted(zip(ways, points, strict=True), key=lambda pair: -pair[1][1]):
        width = 0.56 * FONT * len(way["name"]) * pixels_a_point
        box = _free(x, y, width, height, taken, inside)
        taken.append(box)
        left, low, _, _ = box
        color = OURS if way["ours"] else OTHERS
        far = abs(low + height / 2 - y) > height or not -8 <= left - x <= 16
        axis.annotate(
            way["name"],
            axis.transData.inverted().transform((x, y)),
            xytext=axis.transData.inverted().transform((left, low + height / 2)),
            textcoords="data",
            va="center",
            fontsize=FONT,
            color=color,
            arrowprops={"arrowstyle": "-", "color": LINE, "linewidth": 0.4} if far else None,
        )


def _free(
    x: float, y: float, width: float, height: float, taken: Sequence[tuple[float, ...]], inside: Any
) -> tuple[float, float, float, float]:
    """The place for a label nearest to its point that touches nothing and stays inside."""
    tried = []
    for step in range(24):
        for up in (step, -step):
            low = y - height / 2 + up * height * 0.5
            for left in (x + 9, x - 9 - width):
                box = (left, low, left + width, low + height)
                if box[0] < inside.x0 or box[2] > inside.x1:
                    continue
                overlap = sum(
                    max(0.0, min(box[2], b[2]) - max(box[0], b[0]))
                    * max(0.0, min(box[3], b[3]) - max(box[1], b[1]))
                    for b in taken
                )
                if overlap == 0 and inside.y0 <= low and low + height <= inside.y1:
                    return box
                tried.append((overlap, box))
    return min(tried)[1]
