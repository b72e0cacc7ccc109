"""The figures as tables, JSON and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.machine import processor_of
from mtl_edge.benchmarks.peers.fits import Bench, Fitted
from mtl_edge.benchmarks.peers.picture import draw
from mtl_edge.table import clip, markdown_table, text_table
from mtl_edge.training.drawing import drawn

__all__ = ["fitted", "frontier", "markdown", "summary", "text", "write"]

Figures = Mapping[str, Any]


def write(figures: Figures, folder: Path) -> None:
    """Write `peers.json`, `peers.md` and `peers.png`."""
    content = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (folder / "peers.json").write_text(content, encoding="utf-8")
    (folder / "peers.md").write_text(markdown(figures), encoding="utf-8")
    drawn(folder / "peers.png", draw, figures, frontier(figures))


def text(figures: Figures) -> str:
    """For a terminal."""
    parts = [text_table(*_table(figures)), text_table(*_costs(figures))]
    if figures["beaten_by"]:
        parts.append(text_table(*_against(figures)))
    parts += [f"{way['name']}: failed: {way['error']}" for way in figures["failed"]]
    return "\n\n".join([*parts, _notes(figures)])


def fitted(ways: Mapping[str, Fitted], bench: Bench, errors: Mapping[str, str]) -> str:
    """What is there to be timed, for a terminal."""
    rows = [
        [
            name,
            *(f"{100 * score:.1f}" for score in way.accuracy(bench).values()),
            f"{way.size / 1e6:.1f}",
            _seconds(way.fit_seconds),
        ]
        for name, way in ways.items()
    ]
    header = ["way", *(f"{task} %" for task in bench.reported), "MB to ship", "fit s"]
    return "\n".join(
        [text_table(header, rows), *(f"{name}: failed: {error}" for name, error in errors.items())]
    )


def markdown(figures: Figures) -> str:
    """All tables, with the command and the machine."""
    machine = figures["machine"]
    ours = {way["name"] for way in figures["ways"] if way["ours"]}
    parts = [
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads, everything pinned "
        f"to the same {len(figures['cores'])} cores.",
        _bold(*_table(figures), ours),
        _notes(figures),
    ]
    if figures["beaten_by"]:
        parts += [
            "Against each of the others, the fastest of ours that is at least as accurate on every "
            "task, by these rows:",
            markdown_table(*_against(figures)),
        ]
    parts += ["What each takes:", _bold(*_costs(figures), ours)]
    if figures["failed"]:
        rows = [[way["name"], way["title"], clip(way["error"], 300)] for way in figures["failed"]]
        parts += ["Failed:", markdown_table(["name", "what", "error"], rows)]
    return "\n\n".join(parts) + "\n"


def summary(figures: Figures) -> str:
    """The columns that a reader compares first, in Markdown."""
    machine = figures["machine"]
    ours = {way["title"] for way in figures["ways"] if way["ours"]}
    header = ["way", *(f"{task} %" for task in figures["rows"]), "texts/s"]
    if figures["reference"]:
        header.append(f"to {figures['reference']}")
    header += ["ms p50", "MB to ship", "MB installed", "packages"]
    rows = []
    for way in _ordered(figures):
        row = [way["title"], *(f"{100 * score:.1f}" for score in way["accuracy"].values())]
        row.append(f"{way['texts_per_second']:,.0f}")
        if figures["reference"]:
            row.append(_times(way["to_reference"]).partition(" ")[0])
        row += [f"{way['single_ms']['p50']:.2f}", f"{way['bytes'] / 1e6:.0f}"]
        row += [f"{way['environment']['bytes'] / 1e6:,.0f}", str(way["environment"]["packages"])]
        rows.append(row)
    reported = ", ".join(f"{task} on {n['reported']} rows" for task, n in figures["rows"].items())
    return (
        f"{_bold(header, rows, ours)}\n\n"
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads. Accuracy: "
        f"{reported}. Texts a second: {figures['texts']:,} texts in one call, others each time, "
        "median of alternating rounds; p50: one at a time.\n"
    )


def frontier(figures: Figures) -> list[dict[str, Any]]:
    """Those of ours that no other of ours beats in speed and mean accuracy, the slowest first."""
    best: list[dict[str, Any]] = []
    own = [way for way in figures["ways"] if way["ours"]]
    for way in sorted(own, key=lambda way: -way["texts_per_second"]):
        if not best or mean_accuracy(way) > mean_accuracy(best[-1]):
            best.append(way)
    return best[::-1]


def mean_accuracy(way: Mapping[str, Any]) -> float:
    scores = list(way["accuracy"].values())
    return float(sum(scores) / len(scores))


def _ordered(figures: Figures) -> list[dict[str, Any]]:
    """The most accurate first."""
    return sorted(figures["ways"], key=lambda way: (-mean_accuracy(way), -way["texts_per_second"]))


def _table(figures: Figures) -> tuple[list[str], list[list[str]]]:
    tasks = list(figures["rows"])
    header = ["way", *(f"{task} %" for task in tasks), "texts/s", "p10-p90"]
    if figures["reference"]:
        header.append(f"to {figures['reference']}")
    header += ["ms p50", "ms p99", "CPU s per 1,000", "MB to ship"]
    rows = []
    for way in _ordered(figures):
        bulk = way["bulk_ms"]
        row = [way["name"], *(f"{100 * way['accuracy'][task]:.1f}" for task in tasks)]
        row.append(f"{way['texts_per_second']:,.0f}")
        row.append("-".join(f"{1e3 * figures['texts'] / bulk[q]:,.0f}" for q in ("p90", "p10")))
        if figures["reference"]:
            row.append(_times(way["to_reference"]))
        row += [f"{way['single_ms'][q]:.2f}" for q in ("p50", "p99")]
        row += [f"{way['cpu_seconds_per_1000']:.2f}", f"{way['bytes'] / 1e6:.1f}"]
        rows.append(row)
    return header, rows


def _costs(figures: Figures) -> tuple[list[str], list[list[str]]]:
    header = ["way", "packages", "MB installed", "fit s", "first answer ms", "MB resident",
              "MB at most", "same alone %"]  # fmt: skip
    return header, [
        [
            way["name"],
            str(way["environment"]["packages"]),
            f"{way['environment']['bytes'] / 1e6:,.0f}",
            _seconds(way["fit_seconds"]),
            f"{way['first_answer_ms']['median']:,.0f}",
            *(
                f"{way['megabytes'][k]:,.0f}" if k in way["megabytes"] else ""
                for k in ("now", "peak")
            ),
            f"{100 * way['same_label_alone']:.1f}",
        ]
        for way in _ordered(figures)
    ]


def _against(figures: Figures) -> tuple[list[str], list[list[str]]]:
    rows = []
    for way in _ordered(figures):
        if way["ours"]:
            continue
        best = figures["beaten_by"][way["name"]]
        rows.append(
            [way["name"], "none", ""]
            if best is None
            else [way["name"], best["name"], _times(best["times_as_fast"])]
        )
    return ["way", "ours, as accurate", "times as fast (quartiles)"], rows


def _bold(header: Sequence[str], rows: Sequence[Sequence[str]], ours: set[str]) -> str:
    """In Markdown, with ours in bold."""
    return markdown_table(
        header, [[f"**{row[0]}**" if row[0] in ours else row[0], *row[1:]] for row in rows]
    )


def _half_interval(figures: Figures, task: str) -> float:
    """Of the best accuracy; a share, by the normal approximation."""
    best = max(way["accuracy"][task] for way in figures["ways"])
    rows: int = figures["rows"][task]["reported"]
    return 1.96 * math.sqrt(best * (1 - best) / rows)


def _seconds(found: float | None) -> str:
    return "" if found is None else f"{found:.0f}"


def _times(ratio: Sequence[float]) -> str:
    middle, low, high = ratio
    digits = 1 if middle >= 10 else 2
    return f"{middle:.{digits}f}x ({low:.{digits}f}-{high:.{digits}f})"


def _notes(figures: Figures) -> str:
    rows = ", ".join(
        f"{task} on {found['reported']} rows ({found['train']} to learn from)"
        for task, found in figures["rows"].items()
    )
    noise = figures["noise"]
    same = (
        f" Noise: {noise['name']} listed twice, the one {_times(noise['ratio'])} as fast as the "
        "other."
        if noise
        else ""
    )
    chance = ", ".join(
        f"{task} {100 * _half_interval(figures, task):.1f}" for task in figures["rows"]
    )
    return (
        f"All tasks answered for every text. Texts/s: {figures['texts']} texts in one call, others "
        "each time, of those that taught and those reported on; ms: "
        f"{figures['singles']} texts one at a time; medians of {figures['rounds']} alternating "
        f"rounds, one process at work at a time. Accuracy: {rows}; half of a 95% interval, in "
        f"points: {chance}. Ratios round by round, with "
        "quartiles. Fit: of ours, the one training of all depths, and the depth's export; bf16, "
        "compiled and optimum begin with the models of fp32, and take its time besides. "
        f"First answer: from the start of a process, median of {figures['starts']}. "
        f"Same alone: texts that get the label by themselves that they get in one call.{same}"
    )
