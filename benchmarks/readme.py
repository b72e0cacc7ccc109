"""Put the figures of `benchmarks/results` into README.md, between its markers.

    python -m mtl_edge.benchmarks.readme [README.md] [benchmarks/results]

`figures.json` is written by `python -m mtl_edge.benchmarks.figures`, `real.json` by
`mtl-edge bench ... --json benchmarks/results/real.json`, `study` by
`mtl-edge study ... --out benchmarks/results/study`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks import figures
from mtl_edge.benchmarks.command import notes_of, table_of
from mtl_edge.table import markdown_table

__all__ = ["fill"]


def fill(readme: Path, results: Path) -> None:
    """Replace both blocks; what stands outside the markers is kept."""
    text = readme.read_text(encoding="utf-8")
    text = _replace(text, "figures", figures.markdown(_read(results / "figures.json")))
    text = _replace(text, "study", (results / "study" / "study.md").read_text(encoding="utf-8"))
    text = _replace(text, "real", _real(_read(results / "real.json")))
    readme.write_text(text, encoding="utf-8")


def _real(result: dict[str, Any]) -> str:
    header, rows = table_of(result)
    notes = ". ".join(note[0].upper() + note[1:] for note in notes_of(result))
    machine = result["machine"]
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"{machine['processor']} ({', '.join(machine['instructions'])}), {result['date']}. "
        f"{notes}.\n"
    )


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def _replace(text: str, block: str, content: str) -> str:
    begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"the README has no block {begin} ... {end}")
    return f"{before}{begin}\n{content}{end}{after}"


if __name__ == "__main__":
    defaults = ["README.md", "benchmarks/results"]
    given = sys.argv[1:3]
    fill(*map(Path, [*given, *defaults[len(given) :]]))
