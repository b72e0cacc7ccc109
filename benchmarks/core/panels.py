"""Panels of pictures: accuracy against speed, times as curves, rates as lines, or bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from mtl_edge.training.drawing import without_formulas

__all__ = [
    "INK",
    "STYLE",
    "Draw",
    "Point",
    "bars",
    "curves",
    "lines",
    "pareto",
    "scatter",
    "stacked",
]

# Of Okabe and Ito's palette, which the colour-blind can tell apart; mid tones, for light and dark.
COLORS = ("#7f8fa1", "#d55e00", "#0b8fd6", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#5b6470")
INK = "#010203"  # stands for the page's own colour
FONT = 7.5
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
}

Draw = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Point:
    """A system by its speed and its accuracy, a share.

    Attributes:
        x: the speed or the time.
        low, high: the interval of the accuracy; None: not known.
        group: points of a group have one colour.
    """

    name: str
    x: float
    accuracy: float
    low: float | None = None
    high: float | None = None
    group: str = ""


def pareto(points: Sequence[Point], *, less_is_faster: bool = True) -> list[Point]:
    """The points that no other point dominates in speed and accuracy."""
    sign = 1 if less_is_faster else -1

    def beaten(one: Point) -> bool:
        return any(
            sign * other.x <= sign * one.x
            and other.accuracy >= one.accuracy
            and (other.x != one.x or other.accuracy > one.accuracy)
            for other in points
        )

    return [one for one in points if not beaten(one)]


def scatter(
    points: Sequence[Point],
    *,
    xlabel: str,
    title: str,
    frontier: Sequence[Point],
    levels: Mapping[str, float] | None = None,
    log: bool = False,
    names: bool = True,
) -> Draw:
    """Accuracy against speed, with a frontier as a line.

    Args:
        levels: accuracies that are drawn as lines across, by name.
        log: the axis of speed is logarithmic.
        names: beside the points; else in a legend.
    """

    def draw(axis: Any) -> None:
        groups = dict.fromkeys(point.group for point in points)
        colors = dict(zip(groups, cycle(COLORS[1:]), strict=False))
        own = dict(zip((point.name for point in points), cycle(COLORS), strict=False))
        seen: set[str] = set()
        for point in points:
            color = colors[point.group] if point.group else own[point.name]
            label = point.group if names else point.name
            error = None
            if point.low is not None and point.high is not None:
                error = [
                    [100 * (point.accuracy - point.low)],
                    [100 * (point.high - point.accuracy)],
                ]
            axis.errorbar(
                point.x, 100 * point.accuracy, yerr=error, fmt="o", ms=4.5, color=color, capsize=2,
                label=None if label in seen or not label else label,
            )  # fmt: skip
            seen.add(label)
        line = sorted((point.x, 100 * point.accuracy) for point in frontier)
        axis.plot(*zip(*line, strict=True), color=INK, lw=0.8, ls="--", zorder=0,
                  label="Pareto frontier")  # fmt: skip
        for (name, share), dashes in zip((levels or {}).items(), cycle((":", "-.")), strict=False):
            axis.axhline(100 * share, ls=dashes, color=COLORS[0], lw=1, label=name)
        axis.set(xlabel=xlabel, ylabel="accuracy, %", title=title)
        if log:
            axis.set_xscale("log")
            without_formulas(axis.xaxis)
        axis.margins(x=0.14, y=0.12)
        axis.legend(loc="best")
        if names:
            _named(axis, points)

    return draw


def _named(axis: Any, points: Sequence[Point]) -> None:
    """A name beside each point, at the nearest of some places where it covers little."""
    axis.figure.draw_without_rendering()
    places = axis.transData.transform([(p.x, 100 * p.accuracy) for p in points])
    frame, scale = axis.get_window_extent(), axis.figure.dpi / 72
    height = 1.3 * FONT * scale
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    order = np.argsort([-y for _, y in places])
    for place in order.tolist():
        (x, y), name = places[place], points[place].name
        width = 0.56 * FONT * len(name) * scale
        tried = [
            (left, y - height / 2 + up * height / 2, left + width, y + height / 2 + up * height / 2)
            for up in sorted(range(-24, 25), key=abs)
            for left in (x + 7 * scale, x - 7 * scale - width)
        ]
        inside = [b for b in tried if b[0] >= frame.x0 and b[2] <= frame.x1] or tried
        box = min(inside, key=lambda b: sum(_overlap(b, other) for other in taken))
        taken.append(box)
        far = abs((box[1] + box[3]) / 2 - y) > height
        to_data = axis.transData.inverted().transform
        axis.annotate(
            name, to_data((x, y)), xytext=to_data((box[0], (box[1] + box[3]) / 2)),
            textcoords="data", va="center", fontsize=FONT,
            arrowprops={"arrowstyle": "-", "color": COLORS[0], "lw": 0.4} if far else None,
        )  # fmt: skip


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def curves(quantiles: Mapping[str, Sequence[float]], *, xlabel: str, title: str) -> Draw:
    """The share of texts that are answered within a time, from quantiles of equal distance."""

    def draw(axis: Any) -> None:
        for color, (name, values) in zip(cycle(COLORS), quantiles.items(), strict=False):
            shares = np.linspace(0, 100, len(values))
            most = max(2, len(values) - 1)  # the slowest would draw the picture out
            axis.plot(values[:most], shares[:most], color=color, label=name)
        longest = max(np.quantile(values, 0.99) for values in quantiles.values())
        axis.set_xlim(0, 1.05 * longest)
        axis.set_ylim(0, 100)
        axis.set(xlabel=xlabel, ylabel="% of texts answered within", title=title)
        axis.legend(loc="lower right")

    return draw


def lines(
    x: Sequence[float], y: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str, title: str
) -> Draw:
    """Rates against sizes that double."""

    def draw(axis: Any) -> None:
        for color, (name, values) in zip(cycle(COLORS), y.items(), strict=False):
            axis.plot(x, values, "o-", ms=3.5, color=color, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, [f"{size:g}" for size in x])
        axis.set_ylim(0)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axis.legend()

    return draw


def bars(
    values: Mapping[str, tuple[float, float, float]],
    words: Mapping[str, str],
    *,
    xlabel: str,
    title: str,
) -> Draw:
    """A bar for each median with its tenths, and words at its end."""

    def draw(axis: Any) -> None:
        names = list(values)[::-1]
        low, middle, high = np.array([values[name] for name in names]).T
        colors = [COLORS[0] if "torch" in name else COLORS[1] for name in names]
        axis.barh(names, middle, xerr=[middle - low, high - middle], color=colors, ecolor=INK,
                  capsize=2)  # fmt: skip
        for place, name in enumerate(names):
            axis.annotate(words[name], (high[place], place), (5, 0), textcoords="offset points",
                          va="center", fontsize=FONT)  # fmt: skip
        axis.set_xlim(0, 1.4 * max(high))
        axis.set(xlabel=xlabel, title=title)

    return draw


def stacked(
    parts: Mapping[str, Mapping[str, float]], *, xlabel: str, title: str, words: Mapping[str, str]
) -> Draw:
    """A bar for each name, made of parts one after the other."""

    def draw(axis: Any) -> None:
        names = list(parts)
        left = np.zeros(len(names))
        kinds = dict.fromkeys(kind for own in parts.values() for kind in own)
        for color, kind in zip(cycle(COLORS), kinds, strict=False):
            widths = np.array([parts[name].get(kind, 0.0) for name in names])
            axis.barh(names, widths, left=left, height=0.5, color=color, label=kind,
                      edgecolor="white", linewidth=0.5)  # fmt: skip
            left += widths
        for place, name in enumerate(names):
            axis.annotate(words[name], (left[place], place), (4, 0), textcoords="offset points",
                          va="center", fontsize=FONT)  # fmt: skip
        axis.set_xlim(0, left.max() * 1.2)
        axis.invert_yaxis()
        axis.set(xlabel=xlabel, title=title)
        axis.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))

    return draw
