"""The report of `mtl-edge bench`: its tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from mtl_edge.benchmarks.bench.measure import SWEEP
from mtl_edge.benchmarks.core.measure import ALL, ONE
from mtl_edge.benchmarks.core.panels import Point, curves, lines, pareto, scatter
from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record, Score, Timed
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.scores import BASELINES
from mtl_edge.benchmarks.core.tables import (
    BINS,
    Column,
    Table,
    checks_table,
    latency_table,
    limits_table,
    milliseconds,
    over,
    pairs_table,
    percent,
    scores_table,
    sparkline,
    title_of,
    to_first,
)

__all__ = ["overview", "report_of"]

MAIN_SHAPES = ("1x32", "32x32")
METHOD = (
    "Outputs first: every system gets the same texts, and its token ids, logits and labels are "
    "compared with the first one's. One that disagrees on more than a tenth of the texts, or gives "
    "numbers that are not finite, is reported as failed and not timed.",
    "Then times, on one machine, in one process, with the same number of threads for all. In each "
    "round every system runs once untimed, since the one before has emptied the caches, and "
    "once timed; the order is drawn anew for each round. Starting, compiling and warming up are "
    "not in the figures.",
    "Ratios are taken round by round, so that a busy moment of the machine falls on both sides; "
    "what is printed is their median and its 95 % percentile-bootstrap interval. Fewer than six "
    "rounds cannot bound a median that well: four cover it with 87.5 % at most.",
    "Noise: the first system takes part twice in each round, as if it were two. A difference "
    "that is not larger than that of one model to itself means nothing.",
    "Not measured: cold start, memory, energy, several processes at once, and other machines.",
)


def report_of(record: Record) -> Report:
    """All tables and pictures of a record of `mtl-edge bench`."""
    assert record.model is not None
    parts = [*record.shapes(), record.on(ONE), record.on(ALL)]
    tables = [
        overview(record),
        latency_table(record),
        pairs_table(record, parts),
        _stream(record),
        _sweep(record),
        *([scores_table(record)] if record.scores else []),
        checks_table(record),
        *([limits_table(record.limits)] if record.limits else []),
    ]
    return Report(
        record,
        f"{record.model.folder}: {', '.join(record.model.tasks)}",
        tables,
        _pictures(record),
        _notes(record),
        METHOD,
    )


def overview(record: Record) -> Table:
    """A row for each system, and for the baselines: what is gained and what is lost."""
    first = record.timed[0]
    shapes = {rounds.name: rounds for rounds in record.shapes()}
    main = [shapes[name] for name in MAIN_SHAPES if name in shapes] or list(shapes.values())[:2]
    scores = [(f"{title_of(record, found)} %", found.models) for found in record.scores]
    sizes = {system.name: system.bytes for system in record.systems}
    one, bulk = record.on(ONE), record.on(ALL)
    costs: list[Column] = []
    for rounds in main:
        costs += [(f"ms {rounds.name}", milliseconds(rounds)), (f"to {first}", to_first(rounds))]
    costs += [
        ("ms p50", milliseconds(one)),
        ("p99", lambda name: f"{one.times[name].p99:.2f}"),
        ("texts/s", lambda name: f"{bulk.texts * 1e3 / bulk.times[name].median:,.0f}"),
        (f"to {first}", to_first(bulk)),
    ]
    header = ["model", *(title for title, _ in scores), "agrees %", "MB", *(h for h, _ in costs)]
    rows = []
    for system in record.systems:
        found = [models.get(system.name) for _, models in scores]
        row = [system.name, *map(percent, found), _agrees(found), f"{sizes[system.name] / 1e6:.0f}"]
        failed = system.failed is not None
        row += (
            ["failed", *[""] * (len(costs) - 1)] if failed else [c(system.name) for _, c in costs]
        )
        rows.append(row)
    for title in BASELINES.values():
        cells = [percent(models.get(title)) for _, models in scores]
        if any(cells):
            rows.append([title, *cells, *[""] * (len(header) - 1 - len(cells))])
    failed_note = "; failed: not timed" if len(record.timed) < len(record.systems) else ""
    return Table(
        "Side by side", header, rows,
        f"BATCHxTOKENS: the engine's own call; p50, p99 and texts/s: {record.inputs['texts']} "
        f"texts of {', '.join(record.inputs['source'])} through the whole runtime, one at a "
        f"time and in one call. To {first}: times as fast{failed_note}",
    )  # fmt: skip


def _agrees(found: Sequence[Score | None]) -> str:
    values = [score.agreement.value for score in found if score and score.agreement]
    return f"{100 * min(values):.1f}" if values else ""


def _notes(record: Record) -> list[str]:
    """What a reader of the overview has to know."""
    where = [
        f"{title_of(record, scores)} on {scores.rows:,} rows"
        + ("" if scores.measured == "now" else f" {scores.measured}")
        for scores in record.scores
    ]
    notes = [
        "Medians of rounds in random order; the first system "
        f"against itself: up to ±{100 * (record.noise or 0):.0f} % between rounds",
    ]
    if where:
        notes.append(
            f"Accuracy: {', '.join(where)}, ± half of its 95 % interval; agrees: share of rows "
            f"with the label of {record.timed[0]}, the lowest over the files"
        )
    if any(title in scores.models for scores in record.scores for title in BASELINES.values()):
        notes.append(
            "Usual recipe: mean pooling + logistic regression on the same encoder; "
            "bag of words: TF-IDF + logistic regression, no encoder"
        )
    return notes


def _stream(record: Record) -> Table:
    one, bulk, inputs = record.on(ONE), record.on(ALL), record.inputs
    longest = max(time.p99 for time in one.times.values())
    columns: list[Column] = [
        ("ms p50", milliseconds(one)),
        ("p90", lambda name: f"{one.times[name].p90:.2f}"),
        ("p99", lambda name: f"{one.times[name].p99:.2f}"),
        (f"0 to {longest:.1f} ms", lambda name: sparkline(_histogram(one.times[name], longest))),
        ("texts/s", lambda name: f"{1e3 * bulk.texts / bulk.times[name].median:,.0f}"),
        ("tokens/s", lambda name: f"{1e3 * inputs['tokens'] / bulk.times[name].median:,.0f}"),
    ]
    torch, passes = inputs["torch_batch_tokens"], inputs["passes"]
    return over(
        "Texts through the whole runtime", record.timed, columns,
        f"{inputs['texts']} of {inputs['of']:,} texts of {', '.join(inputs['source'])}: median "
        f"{inputs['median_tokens']} tokens, most {inputs['most_tokens']}; {passes} "
        f"{'pass' if passes == 1 else 'passes'} one at a time, then all in one call, "
        "tokenization and probabilities included"
        + ("" if torch is None else f". Torch: the same ids, sorted by length, in batches of "
           f"{torch:,} tokens, its best size of four"),
    )  # fmt: skip


def _histogram(time: Timed, longest: float) -> list[float]:
    """Shares of the times in bins of equal width; what took longer is in the last one."""
    edges = np.linspace(0, longest, BINS + 1)
    if len(time.values) == time.count:
        counts: list[float] = np.histogram(np.minimum(time.values, longest), edges)[0].tolist()
        return counts
    shares = np.interp(edges, sorted(time.values), np.linspace(0, 1, len(time.values)))
    shares[0], shares[-1] = 0.0, 1.0
    found: list[float] = np.diff(shares).tolist()
    return found


def _sweep(record: Record) -> Table:
    sizes = [rounds for rounds in record.rounds if rounds.name.startswith(SWEEP)]

    def column(texts: int, times: Mapping[str, Timed]) -> Column:
        return str(texts), lambda name: f"{1e3 * texts / times[name].median:,.0f}"

    return over(
        "Throughput by size of the batch, texts/s", record.timed,
        [column(rounds.texts, rounds.times) for rounds in sizes],
        f"The engine's own call on texts of {sizes[0].tokens} tokens, the stream's median",
    )  # fmt: skip


def _pictures(record: Record) -> list[Picture]:
    one, points = record.on(ONE), _points(record)
    sizes = [rounds for rounds in record.rounds if rounds.name.startswith(SWEEP)]
    rates = {
        name: [1e3 * rounds.texts / rounds.times[name].median for rounds in sizes]
        for name in record.timed
    }
    accuracy = Picture(
        "accuracy",
        "Accuracy of each model against its median latency, with the Pareto frontier",
        [scatter(
            points, xlabel="ms for one text, median", title="Accuracy and latency",
            frontier=pareto(points), names=False,
        )],
    )  # fmt: skip
    return [
        *([accuracy] if points else []),
        Picture(
            "latency",
            "Share of texts that each model answers within a time",
            [curves(
                {name: sorted(time.values) for name, time in one.times.items()},
                xlabel="ms for one text", title="Latency over the stream",
            )],
        ),
        Picture(
            "throughput",
            "Texts a second of each model against the size of the batch",
            [lines(
                [rounds.texts for rounds in sizes], rates, ylabel="texts a second",
                xlabel=f"texts of {sizes[0].tokens} tokens in a batch",
                title="Throughput by size of the batch",
            )],
        ),
    ]  # fmt: skip


def _points(record: Record) -> list[Point]:
    """Latency of one text and mean accuracy over the files."""
    points = []
    for name, time in record.on(ONE).times.items():
        found = [s.models[name].accuracy for s in record.scores if name in s.models]
        if found:
            lows = [one.value if one.low is None else one.low for one in found]
            highs = [one.value if one.high is None else one.high for one in found]
            mean = fmean(one.value for one in found)
            points.append(Point(name, time.median, mean, fmean(lows), fmean(highs)))
    return points
