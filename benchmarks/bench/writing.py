"""What a measurement leaves: a JSON file, or a folder with all that can be looked at."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mtl_edge.benchmarks.bench.cells import Table
from mtl_edge.benchmarks.bench.overview import machine_of, notes_of
from mtl_edge.benchmarks.bench.page import METHOD, page
from mtl_edge.benchmarks.bench.pictures import PICTURES, drawn_of, png
from mtl_edge.benchmarks.bench.record import text_of
from mtl_edge.benchmarks.bench.schema import Report
from mtl_edge.benchmarks.bench.tables import tables_of
from mtl_edge.io.folders import staged_folder
from mtl_edge.table import markdown_table, text_table

__all__ = ["markdown", "terminal", "write_folder", "write_json", "write_text"]

JSON, MARKDOWN, HTML = "bench.json", "bench.md", "bench.html"


def terminal(report: Report) -> str:
    """All tables as text, warnings before the figures."""
    warnings = [f"warning: {warning}" for warning in report.warnings]
    parts = ["\n".join(warnings)] if warnings else []
    for number, table in enumerate(tables_of(report)):
        notes = [table.note, *(notes_of(report) if number == 0 else [])]
        lines = [f"{table.title}\n", text_table(table.header, table.rows), *filter(None, notes)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def markdown(report: Report, pictures: Collection[str] = ()) -> str:
    """All tables, the pictures of these names beside the file, the method."""
    tables = tables_of(report)
    warnings = "".join(f"> **Warning:** {warning}.\n>\n" for warning in report.warnings)
    shown = [f"![{PICTURES[name].words}]({name}.png)" for name in pictures]
    parts = [
        f"# {report.model.folder}: {', '.join(report.model.tasks)}",
        f"`{report.command}`, {report.date}: {machine_of(report)}.",
        warnings.removesuffix(">\n").rstrip(),
        _section(tables[0]),
        "\n".join(f"- {note}" for note in notes_of(report)),
        *shown,
        *map(_section, tables[1:]),
        "## Method\n\n" + "\n".join(f"{n}. {step}" for n, step in enumerate(METHOD, 1)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(table: Table) -> str:
    note = f"\n\n{table.note}." if table.note else ""
    return f"## {table.title}\n\n{markdown_table(table.header, table.rows)}{note}"


def write_json(report: Report, file: Path) -> None:
    """Replace `file` by the report, whole or not at all."""
    write_text(file, text_of(report))


def write_text(file: Path, text: str) -> None:
    """Replace a file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(report: Report, folder: Path, *, overwrite: bool) -> None:
    """Write `bench.json`, `bench.md`, `bench.html` and the pictures, whole or not at all.

    Raises:
        OutputExistsError: the folder exists and `overwrite` is false.
    """
    with staged_folder(folder, overwrite=overwrite) as stage:
        (stage / JSON).write_text(text_of(report), encoding="utf-8")
        pictures = drawn_of(report, png, "png")
        for name, data in pictures.items():
            (stage / f"{name}.png").write_bytes(data)
        (stage / MARKDOWN).write_text(markdown(report, pictures), encoding="utf-8")
        (stage / HTML).write_text(page(report), encoding="utf-8")
