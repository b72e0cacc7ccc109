"""A report's three pictures, as PNG for a folder and as SVG for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from mtl_edge.benchmarks.bench.schema import Report
from mtl_edge.training.drawing import attempted, style

__all__ = ["PICTURES", "Picture", "drawn_of", "png", "svg"]

T = TypeVar("T")

# Of Okabe and Ito's palette, which the colour-blind can tell apart; mid tones, for light and dark.
COLORS = ("#7f8fa1", "#d55e00", "#0b8fd6", "#009e73", "#cc79a7", "#b58900")
INK = "#010203"  # stands for the page's own colour
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """
    Attributes:
        draw: onto matplotlib's axes.
        shows: whether the report has what it takes.
        words: for who cannot see it.
    """

    draw: Callable[[Report, Any], None]
    shows: Callable[[Report], bool]
    words: str


def _accuracy(report: Report, axis: Any) -> None:
    """Mean accuracy over the files against the latency of the stream, its frontier as a line."""
    points = _points(report)
    colors = _colors(report)
    for name, (ms, accuracy, low, high) in points.items():
        error = [[100 * (accuracy - low)], [100 * (high - accuracy)]]
        axis.errorbar(
            ms, 100 * accuracy, yerr=error, fmt="o", color=colors[name], capsize=2, label=name
        )
    best = _frontier({name: (ms, accuracy) for name, (ms, accuracy, _, _) in points.items()})
    line = sorted((points[name][0], 100 * points[name][1]) for name in best)
    axis.step(*zip(*line, strict=True), where="post", color=INK, lw=0.8, ls="--", zorder=0,
              label="Pareto frontier")  # fmt: skip
    axis.set_xlim(0, 1.15 * max(ms for ms, *_ in points.values()))
    axis.set(xlabel="ms for one text, median", ylabel="accuracy, %", title="Accuracy and latency")
    axis.legend(fontsize=8)


def _points(report: Report) -> dict[str, tuple[float, float, float, float]]:
    """By contender: ms, and accuracy with its interval, each the mean over the files."""
    points = {}
    for name, single in report.stream.single.items():
        found = [s.models[name].accuracy for s in report.scores if name in s.models]
        if found:
            lows = [one.value if one.low is None else one.low for one in found]
            highs = [one.value if one.high is None else one.high for one in found]
            points[name] = single.p50, fmean(o.value for o in found), fmean(lows), fmean(highs)
    return points


def _frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Those that no other is as fast as and as accurate as, and better in one of the two."""

    def beaten(ms: float, accuracy: float) -> bool:
        return any(
            m <= ms and a >= accuracy and (m < ms or a > accuracy) for m, a in points.values()
        )

    return [name for name, point in points.items() if not beaten(*point)]


def _distribution(report: Report, axis: Any) -> None:
    for name, single in report.stream.single.items():
        axis.plot(single.hundredths[:100], np.arange(100), color=_colors(report)[name], label=name)
    axis.set_xlim(0, 1.05 * max(single.p99 for single in report.stream.single.values()))
    axis.set_ylim(0, 100)
    axis.set(
        xlabel="ms for one text", ylabel="% of texts answered within",
        title="Latency over the stream",
    )  # fmt: skip
    axis.legend(fontsize=8, loc="lower right")


def _throughput(report: Report, axis: Any) -> None:
    sizes = [rounds.batch for rounds in report.sweep]
    for name in report.stream.single:
        rates = [1e3 * rounds.batch / rounds.times[name].median for rounds in report.sweep]
        axis.plot(sizes, rates, "o-", ms=3.5, color=_colors(report)[name], label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.set_ylim(0)
    axis.set(
        xlabel=f"texts of {report.sweep[0].tokens} tokens in a batch", ylabel="texts a second",
        title="Throughput by size of the batch",
    )  # fmt: skip
    axis.legend(fontsize=8)


PICTURES: Mapping[str, Picture] = {
    "accuracy": Picture(
        _accuracy,
        lambda report: bool(_points(report)),
        "Accuracy of each model against its median latency, with the Pareto frontier",
    ),
    "latency": Picture(
        _distribution, lambda _: True, "Share of texts that each model answers within a time"
    ),
    "throughput": Picture(
        _throughput, lambda _: True, "Texts a second of each model against the size of the batch"
    ),
}


def drawn_of(report: Report, draw: Callable[[Report, Picture], T], kind: str) -> dict[str, T]:
    """By name, those pictures that the report has what it takes for, and that could be drawn."""
    tried = {
        name: attempted(f"{name}.{kind}", draw, report, picture)
        for name, picture in PICTURES.items()
        if picture.shows(report)
    }
    return {name: found for name, found in tried.items() if found is not None}


def png(report: Report, picture: Picture) -> bytes:
    """On white."""
    data = io.BytesIO()
    _save(report, picture, data, "png", {"dpi": 150, "facecolor": "white"})
    return data.getvalue()


def svg(report: Report, picture: Picture) -> str:
    """An element for a page, in the page's own colour and fonts."""
    data = io.BytesIO()
    _save(report, picture, data, "svg", {"transparent": True, "metadata": {"Date": None}})
    text = data.getvalue().decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # The page says how wide it is; the picture keeps its shape by its view box.
    text = re.sub(r'^<svg ([^>]*?)\bheight="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'^<svg ([^>]*?)\bwidth="[^"]*"', r"<svg \1", text, count=1)
    words = picture.words.replace("&", "&amp;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1)


def _save(report: Report, picture: Picture, data: io.BytesIO, kind: str, how: Any) -> None:
    from matplotlib.figure import Figure

    # The hash makes ids: equal ones in two pictures of a page would clash.
    with style({**STYLE, "svg.hashsalt": picture.words}):
        figure = Figure(figsize=(5, 3.3), layout="constrained")
        picture.draw(report, figure.subplots())
        figure.savefig(data, format=kind, **how)


def _colors(report: Report) -> dict[str, str]:
    return dict(zip((c.name for c in report.contenders), cycle(COLORS)))
