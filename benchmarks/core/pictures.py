"""Pictures made of panels, as PNG for a folder and as SVG for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_edge.benchmarks.core.panels import INK, STYLE, Draw
from mtl_edge.training.drawing import attempted, style

__all__ = ["Picture", "png", "svg"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be drawn.

    Attributes:
        name: of its file.
        words: for who cannot see it.
        panels: each is drawn onto an axis of matplotlib's.
        size: width and height of a panel in inches.
        down: panels stand one below the other; else beside each other.
    """

    name: str
    words: str
    panels: Sequence[Draw]
    size: tuple[float, float] = (5, 3.3)
    down: bool = False


def png(picture: Picture) -> bytes | None:
    """On white; None if it could not be drawn, of which a note tells."""
    return attempted(f"{picture.name}.png", _saved, picture, "png",
                     {"dpi": 150, "facecolor": "white"})  # fmt: skip


def svg(picture: Picture) -> str | None:
    """An element for a page, in the page's own colour and fonts; None if it could not be drawn."""
    options = {"transparent": True, "metadata": {"Date": None}}
    data = attempted(f"{picture.name}.svg", _saved, picture, "svg", options)
    if data is None:
        return None
    text = data.decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # The page says how wide it is; the picture keeps its shape by its view box.
    for side in ("height", "width"):
        text = re.sub(rf'^<svg ([^>]*?)\b{side}="[^"]*"', r"<svg \1", text, count=1)
    words = picture.words.replace("&", "&amp;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1)


def _saved(picture: Picture, kind: str, options: Mapping[str, Any]) -> bytes:
    from matplotlib.figure import Figure

    data = io.BytesIO()
    # The hash makes ids: equal ones in two pictures of a page would clash.
    with style({**STYLE, "svg.hashsalt": picture.words}):
        count, (width, height) = len(picture.panels), picture.size
        rows, columns = (count, 1) if picture.down else (1, count)
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, axis in zip(picture.panels, axes, strict=True):
            panel(axis)
        figure.savefig(data, format=kind, **options)
    return data.getvalue()
