"""The table that decides: what each contender gains and loses, and what to know to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_edge.benchmarks.bench.cells import Table, by_shape, percent, title_of, to_first
from mtl_edge.benchmarks.bench.schema import Report, Score
from mtl_edge.benchmarks.bench.scores import BASELINES

__all__ = ["machine_of", "notes_of", "overview"]

MAIN_SHAPES = ("1x32", "32x32")


def overview(report: Report) -> Table:
    """A row for each contender, and for the baselines: what is gained and what is lost."""
    first = next(iter(report.stream.single))
    columns = _accuracy_columns(report)
    shapes = [name for name in MAIN_SHAPES if name in by_shape(report)] or list(by_shape(report))[
        :2
    ]
    header = ["model", *(title for title, _ in columns), "agrees %", "MB"]
    for shape in shapes:
        header += [f"ms {shape}", f"to {first}"]
    header += ["ms p50", "p99", "texts/s", f"to {first}"]
    rows = [_overview_row(report, c.name, c.bytes, columns, shapes) for c in report.contenders]
    for title in BASELINES.values():
        cells = [percent(models.get(title)) for _, models in columns]
        if any(cells):
            rows.append([title, *cells, *[""] * (len(header) - 1 - len(cells))])
    failed = "; failed: not timed" if any(c.failed for c in report.contenders) else ""
    return Table(
        "Side by side", header, rows,
        f"BATCHxTOKENS: the engine's own call; p50, p99 and texts/s: {report.stream.texts} "
        f"texts of {', '.join(report.stream.source)} through the whole runtime, one at a "
        f"time and in one call. To {first}: times as fast{failed}",
    )  # fmt: skip


def _overview_row(
    report: Report,
    name: str,
    size: int,
    columns: Sequence[tuple[str, Mapping[str, Score]]],
    shapes: Sequence[str],
) -> list[str]:
    found = [models.get(name) for _, models in columns]
    agreements = [score.agreement.value for score in found if score and score.agreement]
    agrees = f"{100 * min(agreements):.1f}" if agreements else ""
    row = [name, *map(percent, found), agrees, f"{size / 1e6:.0f}"]
    if name not in report.stream.single:
        return [*row, "failed", *[""] * (2 * len(shapes) + 3)]
    for shape in shapes:
        rounds = by_shape(report)[shape]
        row += [f"{rounds.times[name].median:.2f}", to_first(rounds.pairs, name)]
    single, bulk = report.stream.single[name], report.stream.bulk
    row += [f"{single.p50:.2f}", f"{single.p99:.2f}"]
    return [*row, f"{bulk.speeds[name].texts_per_second:,.0f}", to_first(bulk.pairs, name)]


def _accuracy_columns(report: Report) -> list[tuple[str, Mapping[str, Score]]]:
    return [(f"{title_of(report, scores)} %", scores.models) for scores in report.scores]


def notes_of(report: Report) -> list[str]:
    """What a reader of the overview has to know."""
    where = [
        f"{title_of(report, scores)} on {scores.rows:,} rows"
        + ("" if scores.measured == "now" else f" {scores.measured}")
        for scores in report.scores
    ]
    first = next(iter(report.stream.single))
    notes = [
        f"{report.threads} threads; medians of rounds in random order; the first contender "
        f"against itself: up to ±{100 * report.noise:.0f} % between rounds",
    ]
    if where:
        notes.append(
            f"Accuracy: {', '.join(where)}, ± half of its 95 % interval; agrees: share of rows "
            f"with the label of {first}, the lowest over the files"
        )
    if any(title in scores.models for scores in report.scores for title in BASELINES.values()):
        notes.append(
            "Usual recipe: mean pooling + logistic regression on the same encoder; "
            "bag of words: TF-IDF + logistic regression, no encoder"
        )
    return notes


def machine_of(report: Report) -> str:
    """Processor, instructions and versions in a line."""
    machine = report.machine
    packages = ("torch", "onnxruntime", "openvino")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in packages
                         if name in machine.versions)  # fmt: skip
    return f"{machine.processor} ({', '.join(machine.instructions)}); {versions}"
