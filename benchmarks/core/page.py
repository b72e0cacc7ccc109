"""A report as one HTML page, which needs no script, font or picture from outside."""

from __future__ import annotations

from html import escape

from mtl_edge.benchmarks.core.pictures import svg
from mtl_edge.benchmarks.core.record import Machine
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.tables import Table, machine_line

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9dce0; --page: #fff;
  --shade: #f6f7f8; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4a9b2; --line: #3a3f47;
  --page: #16181c; --shade: #1e2126; --warn: #fdba74; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; color: var(--ink);
  background: var(--page); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
p, li { max-width: 44rem; }
p.about, p.note, figcaption { color: var(--soft); font-size: .9rem; margin: .4rem 0; }
.warning { border-left: 3px solid var(--warn); padding: .1rem .9rem; margin: 1rem 0; }
.warning li { color: var(--warn); }
.wide { overflow-x: auto; margin: 0 -1.25rem; padding: 0 1.25rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; color: var(--soft); white-space: normal; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); }
td.number, th.number { text-align: right; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1rem 1.5rem; margin: 1.5rem 0; }
figure { margin: 0; break-inside: avoid; }
svg { width: 100%; height: auto; display: block; font-family: inherit; }
code { font: .85em/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere;
  background: var(--shade); padding: .1em .3em; border-radius: 3px; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff;
  --shade: #fff; --warn: #000; } @page { size: A4 landscape; margin: 12mm; }
  html { font-size: 9.5pt; } body { font-size: 1rem; max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; margin: 0; padding: 0; } table { font-size: 7.5pt; }
  th, td { padding-right: .6rem; white-space: normal; } tr { break-inside: avoid; } }
"""


def page(report: Report) -> str:
    """The whole document."""
    record, title = report.record, report.title
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in record.warnings)
    drawn = [element for picture in report.pictures if (element := svg(picture)) is not None]
    steps = "".join(f"<li>{escape(step)}</li>" for step in report.method)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(_about(report))}</p>',
        f'<div class="warning" role="note"><ul>{warnings}</ul></div>' if warnings else "",
        _section(report.tables[0], report.notes),
        '<div class="pictures">',
        *(f"<figure>{element}</figure>" for element in drawn),
        "</div>",
        *(_section(table, []) for table in report.tables[1:]),
        f"<h2>Method</h2><ol>{steps}</ol>" if steps else "",
        "<h2>Machine and command</h2>",
        f"<p>{escape(_machine(record.machine))} {record.date}.</p>",
        f"<p><code>{escape(record.command)}</code></p>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _about(report: Report) -> str:
    record, model = report.record, report.record.model
    about = (
        ""
        if model is None
        else f"{model.backbone}, {model.depth} layers, at most {model.max_tokens} tokens. "
    )
    return (
        f"{about}{machine_line(record.machine)}. {record.date[:10]}, {record.threads} threads, "
        f"{record.seconds:.0f} s of measuring."
    )


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    load = "" if machine.load_before is None else f", load before {machine.load_before:.2f}"
    return (
        f"{machine.processor}, {machine.cores} cores ({', '.join(machine.instructions)}), "
        f"{machine.system}{load}. Python {machine.python}, {versions}."
    )


def _section(table: Table, notes: list[str]) -> str:
    numeric = [
        all(row[i][:1] in "+-0123456789" for row in table.rows if row[i])
        for i in range(len(table.header))
    ]
    marks = [' class="number"' if number else "" for number in numeric]
    head = "".join(f"<th{m}>{escape(c)}</th>" for m, c in zip(marks, table.header, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{m}>{escape(c)}</td>" for m, c in zip(marks, row, strict=True))
        + "</tr>"
        for row in table.rows
    )  # fmt: skip
    below = "".join(
        f'<p class="note">{escape(note[:1].upper() + note[1:])}.</p>'
        for note in (table.note, *notes)
        if note
    )
    return (
        f"<section><h2>{escape(table.title)}</h2>\n"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
        f"</div>\n{below}</section>"
    )
