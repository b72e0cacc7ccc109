"""Put the records of `benchmarks/results` into README.md and docs, between their markers.

    python -m mtl_edge.benchmarks.experiments.readme [FOLDER]

Each record is written by `... --out benchmarks/results/NAME --overwrite` of the command that stands
in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mtl_edge.benchmarks import frontier, limits
from mtl_edge.benchmarks.bench import report as bench
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.core.report import Report, block
from mtl_edge.benchmarks.experiments import exits_report, runtime_report, shapes
from mtl_edge.benchmarks.peers import report as peers

__all__ = ["REPORTS", "blocks", "fill"]

# By name of the record: what makes a report of it, and the document that shows it.
REPORTS: Mapping[str, tuple[Callable[[Record], Report], str]] = {
    "shapes": (shapes.report_of, "benchmarks.md"),
    "frontier": (frontier.report_of, "export.md"),
    "exits": (exits_report.report_of, "export.md"),
    "runtime": (runtime_report.report_of, "runtime.md"),
    "peers": (peers.report_of, "peers.md"),
    "limits": (limits.report_of, "limits.md"),
}


def blocks(root: Path) -> dict[str, dict[str, str]]:
    """By document, the text of each block in it; of a clone at `root`."""
    results = root / "benchmarks" / "results"

    def read(name: str) -> Record:
        return read_record(results / name / f"{name}.json")

    study = (results / "study" / "study.md").read_text(encoding="utf-8")
    real = bench.report_of(read("bench"))
    found = {
        "README.md": {
            "peers": block(peers.summary_of(read("peers"))),
            "study": study,
            "real": block(real, real.tables[:1]),
        }
    }
    for name, (report_of, document) in REPORTS.items():
        found.setdefault(f"docs/{document}", {})[name] = block(report_of(read(name)))
    return found


def fill(root: Path) -> None:
    """Replace the blocks of a clone; what stands outside the markers is kept."""
    for name, contents in blocks(root).items():
        file = root / name
        text = file.read_text(encoding="utf-8")
        for title, content in contents.items():
            text = _replace(text, title, content)
        file.write_text(text, encoding="utf-8")


def _replace(text: str, title: str, content: str) -> str:
    begin, end = f"<!-- {title}: begin -->", f"<!-- {title}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"there is no block {begin} ... {end}")
    return f"{before}{begin}\n{content}{end}{after}"


if __name__ == "__main__":
    fill(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
