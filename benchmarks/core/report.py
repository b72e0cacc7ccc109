"""A record with the tables and pictures that show it, as text for a terminal or a document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.tables import Table, machine_line
from mtl_edge.table import markdown_table, text_table

__all__ = ["Report", "block", "markdown", "terminal"]


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown of a record.

    Attributes:
        tables: the one that decides first.
        notes: what a reader of the first table has to know.
        method: how it was measured, step by step.
        bold: rows of tables that stand out, by their first cell.
    """

    record: Record
    title: str
    tables: Sequence[Table]
    pictures: Sequence[Picture] = ()
    notes: list[str] = field(default_factory=list)
    method: Sequence[str] = ()
    bold: Collection[str] = ()


def terminal(report: Report) -> str:
    """All tables as text, warnings before the figures."""
    warnings = [f"warning: {warning}" for warning in report.record.warnings]
    parts = ["\n".join(warnings)] if warnings else []
    for number, table in enumerate(report.tables):
        notes = [table.note, *(report.notes if number == 0 else [])]
        lines = [f"{table.title}\n", text_table(table.header, table.rows), *filter(None, notes)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _where(report.record).replace("`", "")])


def markdown(report: Report, pictures: Collection[str] = ()) -> str:
    """A document of its own: all tables, the pictures of these names beside it, the method."""
    record = report.record
    warnings = "".join(f"> **Warning:** {warning}.\n>\n" for warning in record.warnings)
    shown = [f"![{p.words}]({p.name}.png)" for p in report.pictures if p.name in pictures]
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(report.method, 1))
    first, *others = [f"## {table.title}\n\n{_table(report, table)}" for table in report.tables]
    parts = [
        f"# {report.title}",
        _where(record),
        warnings.removesuffix(">\n").rstrip(),
        first,
        "\n".join(f"- {note}" for note in report.notes),
        *shown,
        *others,
        f"## Method\n\n{steps}" if steps else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def block(report: Report, tables: Sequence[Table] | None = None) -> str:
    """Some tables, and then where they come from, for a place in another document."""
    wanted = report.tables if tables is None else tables
    titled = len(wanted) > 1
    parts = [f"{table.title}:\n\n" * titled + _table(report, table) for table in wanted]
    notes = f" {'. '.join(report.notes)}." if report.notes else ""
    return "\n\n".join([*parts, _where(report.record) + notes]) + "\n"


def _where(record: Record) -> str:
    return (
        f"`{record.command}`, {record.date[:10]}: {machine_line(record.machine)}; "
        f"{record.threads} threads."
    )


def _table(report: Report, table: Table) -> str:
    rows = [[f"**{row[0]}**" if row[0] in report.bold else row[0], *row[1:]] for row in table.rows]
    note = f"\n\n{table.note}." if table.note else ""
    return f"{markdown_table(table.header, rows)}{note}"
