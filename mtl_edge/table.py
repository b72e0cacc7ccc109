"""Plain-text and Markdown tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["clip", "markdown_table", "text_table"]

Rows = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Rows) -> str:
    """A table for a terminal: columns aligned, those of numbers to the right."""
    cells = [[_printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    right = [_numeric(column) for column in zip(*rows, strict=True)] or [False] * len(header)
    lines = []
    for row in cells:
        parts = [
            " " * (width - _width(cell)) + cell if at_right else cell + " " * (width - _width(cell))
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """The same table in Markdown."""
    right = [_numeric(column) for column in zip(*rows, strict=True)] or [False] * len(header)
    rule = ["---:" if at_right else "---" for at_right in right]
    lines = ["| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in row) + " |"
             for row in (header, rule, *rows)]  # fmt: skip
    return "\n".join(lines)


def clip(text: str, width: int) -> str:
    """`text` on one line of at most `width` columns, with `…` where it was cut."""
    line = " ".join(text[: 4 * width].split())
    if _width(line) <= width and len(text) <= 4 * width:
        return line
    while _width(line) >= width:
        line = line[:-1]
    return line + "…"


def _printable(cell: str) -> str:
    """`cell` without control characters, which could move a terminal's cursor."""
    cell = cell.encode("utf-8", "replace").decode()
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in cell)


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _numeric(column: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or cell[:1] in "-+–" or not cell for cell in column)
