"""Put the figures of `benchmarks/results` into README.md and docs, between their markers.

    python -m mtl_edge.benchmarks.readme [FOLDER]

`figures.json` is written by `python -m mtl_edge.benchmarks.figures`, `real.json` by
`mtl-edge bench ... --json benchmarks/results/real.json`, `study` by
`mtl-edge study ... --out benchmarks/results/study`, `frontier` by
`mtl-edge frontier ... --out benchmarks/results/frontier`, `exits` by
`python -m mtl_edge.benchmarks.exits BUNDLE ... --out benchmarks/results/exits`, `runtime` by
`python -m mtl_edge.benchmarks.runtime`, `limits` by
`python -m mtl_edge.benchmarks.limits BUNDLE ... --out benchmarks/results/limits`, `peers` by
`python -m mtl_edge.benchmarks.peers --work FOLDER ... --out benchmarks/results/peers`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks import figures
from mtl_edge.benchmarks.bench import record
from mtl_edge.benchmarks.bench.overview import machine_of, notes_of, overview
from mtl_edge.benchmarks.bench.schema import Report
from mtl_edge.benchmarks.peers import report as peers_report
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.table import markdown_table

__all__ = ["fill"]


def fill(folder: Path) -> None:
    """Replace the blocks of a clone at `folder`; what stands outside the markers is kept."""
    results, docs = folder / "benchmarks" / "results", folder / "docs"
    readme = {
        "peers": peers_report.summary(_read(results / "peers" / "peers.json")),
        "study": (results / "study" / "study.md").read_text(encoding="utf-8"),
        "real": _real(record.read(results / "real.json")),
    }
    _fill(folder / "README.md", readme)
    shapes = figures.markdown(_read(results / "figures.json"))
    _fill(docs / "benchmarks.md", {"figures": shapes})
    for document, name in (
        ("export", "frontier/frontier"),
        ("export", "exits/exits"),
        ("runtime", "runtime"),
        ("peers", "peers/peers"),
        ("limits", "limits/limits"),
    ):
        content = (results / f"{name}.md").read_text(encoding="utf-8")
        _fill(docs / f"{document}.md", {Path(name).name: content})


def _fill(file: Path, blocks: dict[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for block, content in blocks.items():
        text = _replace(text, block, content)
    file.write_text(text, encoding="utf-8")


def _real(report: Report) -> str:
    table = overview(report)
    notes = ". ".join([table.note, *notes_of(report)])
    return (
        f"{markdown_table(table.header, table.rows)}\n\n"
        f"{machine_of(report)}, {report.date[:10]}. {notes}.\n"
    )


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def _replace(text: str, block: str, content: str) -> str:
    begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"there is no block {begin} ... {end}")
    return f"{before}{begin}\n{content}{end}{after}"


if __name__ == "__main__":
    take_any_text()
    fill(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
