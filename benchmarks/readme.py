"""Put the figures of `benchmarks/results` into README.md and docs, between their markers.

    python -m mtl_edge.benchmarks.readme [FOLDER]

`figures.json` is written by `python -m mtl_edge.benchmarks.figures`, `real.json` by
`mtl-edge bench ... --json benchmarks/results/real.json`, `study` by
`mtl-edge study ... --out benchmarks/results/study`, `frontier` by
`mtl-edge frontier ... --out benchmarks/results/frontier`, `runtime` by
`python -m mtl_edge.benchmarks.runtime`, `limits` by
`python -m mtl_edge.benchmarks.limits BUNDLE ... --out benchmarks/results/limits`, `gpu` by
`python -m mtl_edge.benchmarks.gpu BUNDLE --checkpoint CHECKPOINT`.
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
from mtl_edge.errors import DataError
from mtl_edge.table import markdown_table

__all__ = ["fill"]


def fill(folder: Path) -> None:
    """Replace the blocks of a clone at `folder`; what stands outside the markers is kept."""
    results = folder / "benchmarks" / "results"
    blocks = {
        "figures": figures.markdown(_read(results / "figures.json")),
        "study": (results / "study" / "study.md").read_text(encoding="utf-8"),
    }
    try:
        blocks["real"] = _real(record.read(results / "real.json"))
    except DataError as error:  # of another schema: that keeps no other block from its figures
        print(f"the block real is left as it was: {error}", file=sys.stderr)
    _fill(folder / "README.md", blocks)
    for document, name in (
        ("export", "frontier/frontier"),
        ("runtime", "runtime"),
        ("limits", "limits/limits"),
        ("limits", "gpu/gpu"),
    ):
        content = (results / f"{name}.md").read_text(encoding="utf-8")
        _fill(folder / "docs" / f"{document}.md", {Path(name).name: content})


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
    fill(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
