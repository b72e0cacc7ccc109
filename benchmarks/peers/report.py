"""The peers' figures as tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

from mtl_edge.benchmarks.core.measure import ALL, ONE
from mtl_edge.benchmarks.core.panels import Draw, Point, pareto, scatter
from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.statistics import ratio as ratio_of
from mtl_edge.benchmarks.core.tables import Column, Table, milliseconds, over, pair_of, ratio, seen
from mtl_edge.benchmarks.peers.run import FIRST_ANSWER
from mtl_edge.benchmarks.peers.table import REFERENCE
from mtl_edge.table import clip

__all__ = ["fastest_as_accurate", "report_of", "summary_of"]


def report_of(record: Record) -> Report:
    """Accuracy and speed, ours against each of the others, and what each takes."""
    names = _ordered(record)
    tables = [_main(record, names), _against(record, names), _costs(record, names)]
    failed = [[s.name, s.title, clip(s.failed, 300)] for s in record.systems if s.failed]
    if failed:
        tables.append(Table("Failed", ["name", "what", "error"], failed))
    panels = [_panel(record, None), *(_panel(record, s.task) for s in record.scores)]
    words = "Accuracy against texts a second, ours and the others: the mean, and each task"
    pictures = [Picture("peers", words, panels, (10, 5.2), down=True)]
    own = record.inputs["own"]
    title = "Beside the usual ways"
    return Report(record, title, tables, pictures, _notes(record), bold=own)


def summary_of(record: Record) -> Report:
    """The columns that a reader compares first, by what each peer is."""
    names, titles = _ordered(record), {s.name: s.title for s in record.systems}
    bulk, one = record.on(ALL), record.on(ONE)
    columns = [*_accuracy(record), ("texts/s", _speed(record))]
    columns += [
        (header, lambda name, cell=cell: cell(name).partition(" ")[0])  # type: ignore[misc]
        for header, cell in _to_reference(record)
    ]
    columns += [
        ("ms p50", milliseconds(one)),
        ("MB to ship", _shipped(record)),
        ("MB installed", lambda n: f"{record.figures['MB installed'][n]:,.0f}"),
        ("packages", lambda n: f"{record.figures['packages'][n]:.0f}"),
    ]
    table = over("Beside the usual ways", names, columns, first="way")
    rows = [[titles[row[0]], *row[1:]] for row in table.rows]
    reported = ", ".join(f"{s.task} on {s.rows} rows" for s in record.scores)
    note = (
        f"Accuracy: {reported}. Texts a second: {bulk.texts} texts in one call, others each time, "
        "median of interleaved rounds; p50: one at a time"
    )
    bold = [titles[name] for name in record.inputs["own"]]
    return Report(record, table.title, [Table(table.title, table.header, rows, note)], bold=bold)


def _ordered(record: Record) -> list[str]:
    """The most accurate first."""
    times = record.on(ALL).times
    return sorted(times, key=lambda name: (-_mean(record, name), times[name].median))


def _mean(record: Record, name: str) -> float:
    return fmean(scores.models[name].accuracy.value for scores in record.scores)


def _accuracy(record: Record) -> list[Column]:
    return [
        (f"{s.task} %", lambda name, s=s: f"{100 * s.models[name].accuracy.value:.1f}")  # type: ignore[misc]
        for s in record.scores
    ]


def _speed(record: Record) -> Callable[[str], str]:
    bulk = record.on(ALL)
    return lambda name: f"{1e3 * bulk.texts / bulk.times[name].median:,.0f}"


def _shipped(record: Record) -> Callable[[str], str]:
    sizes = {system.name: system.bytes for system in record.systems}
    return lambda name: f"{sizes[name] / 1e6:.1f}"


def _to_reference(record: Record) -> list[Column]:
    pairs = record.on(ALL).pairs
    if REFERENCE not in record.on(ALL).times:
        return []

    def cell(name: str) -> str:
        return "1.00x" if name == REFERENCE else ratio(
            pair_of(pairs, name, REFERENCE).times_as_fast
        )  # fmt: skip

    return [(f"to {REFERENCE}", cell)]


def _main(record: Record, names: list[str]) -> Table:
    bulk, one = record.on(ALL), record.on(ONE)

    def spread(name: str) -> str:
        slow, fast = bulk.times[name].p90, bulk.times[name].p10
        return "-".join(f"{1e3 * bulk.texts / ms:,.0f}" for ms in (slow, fast) if ms is not None)

    columns = [*_accuracy(record), ("texts/s", _speed(record)), ("p10-p90", spread)]
    columns += [
        *_to_reference(record),
        ("ms p50", milliseconds(one)),
        ("ms p99", lambda name: f"{one.times[name].p99:.2f}"),
        ("CPU s per 1,000", lambda name: f"{record.figures['CPU s per 1,000'][name]:.2f}"),
        ("MB to ship", _shipped(record)),
    ]
    return over("Accuracy and speed", names, columns, first="way")


def _costs(record: Record, names: list[str]) -> Table:
    figures, starts = record.figures, record.on(FIRST_ANSWER)

    def of(quantity: str, times: float = 1, digits: int = 0) -> Callable[[str], str]:
        return seen(lambda name: f"{times * figures[quantity][name]:,.{digits}f}")

    columns: list[Column] = [
        ("packages", of("packages")),
        ("MB installed", of("MB installed")),
        ("fit s", of("fit s")),
        ("first answer ms", lambda name: f"{starts.times[name].median:,.0f}"),
        ("MB resident", of("MB now")),
        ("MB at most", of("MB peak")),
        ("same alone %", of("same label alone", 100, 1)),
    ]
    return over("What each takes", names, columns, first="way")


def fastest_as_accurate(record: Record, name: str) -> str | None:
    """The fastest of ours that is at least as accurate as a peer on every task."""
    times = record.on(ALL).times
    as_good = [
        own
        for own in record.inputs["own"]
        if all(s.models[own].accuracy.value >= s.models[name].accuracy.value for s in record.scores)
    ]
    return min(as_good, key=lambda own: times[own].median, default=None)


def _against(record: Record, names: list[str]) -> Table:
    times, rows = record.on(ALL).times, []
    for name in names:
        if name in record.inputs["own"]:
            continue
        best = fastest_as_accurate(record, name)
        faster = "" if best is None else ratio(ratio_of(times[best].values, times[name].values))
        rows.append([name, best or "none", faster])
    return Table(
        "Ours against each of the others", ["way", "ours, as accurate", "times as fast"], rows,
        "The fastest of ours that is at least as accurate on every task, by these rows",
    )  # fmt: skip


def _notes(record: Record) -> list[str]:
    inputs, rows = record.inputs, record.inputs["training_rows"]
    reported = ", ".join(
        f"{s.task} on {s.rows} rows ({rows[s.task]} to learn from)" for s in record.scores
    )
    chance = ", ".join(f"{s.task} {_half_interval(s.rows, best):.1f}" for s in record.scores
                       for best in [max(m.accuracy.value for m in s.models.values())])  # fmt: skip
    noise = record.on(ALL).noise
    first = next(iter(record.on(ALL).times))
    return [
        f"All tasks answered for every text. Texts/s: {inputs['texts']} texts in one call, others "
        f"each time, of all rows there are; ms: {inputs['singles']} texts one at a time; medians "
        f"of {inputs['rounds']} interleaved rounds, one process at work at a time, everything "
        f"pinned to the same {len(inputs['cores'])} cores",
        f"Accuracy: {reported}; half of a 95 % interval, in points: {chance}",
        "Ratios round by round, with their 95 % intervals",
        "Fit: of ours, the one training of all depths, and the depth's export; bf16, compiled and "
        "optimum begin with the models of fp32, and take its time besides",
        f"First answer: from the start of a process, median of {inputs['starts']}",
        "Same alone: texts that get the label by themselves that they get in one call",
        *([] if noise is None else [
            f"Noise: {first} listed twice, the one {noise.median:.2f}x "
            f"({noise.p25:.2f}-{noise.p75:.2f}) as fast as the other"]),
    ]  # fmt: skip


def _half_interval(rows: int, share: float) -> float:
    """Of an accuracy, in points, by the normal approximation."""
    return 100 * 1.96 * math.sqrt(share * (1 - share) / rows)


def _panel(record: Record, task: str | None) -> Draw:
    """Accuracy against speed: of a task, or the mean over all."""
    bulk = record.on(ALL)
    points = []
    for name, time in bulk.times.items():
        own = {s.task: s.models[name].accuracy.value for s in record.scores}
        score = fmean(own.values()) if task is None else own[task]
        group = "mtl-edge" if name in record.inputs["own"] else "others"
        points.append(Point(name, 1e3 * bulk.texts / time.median, score, group=group))
    ours = [point for point in points if point.group == "mtl-edge"]
    return scatter(
        points, title=clip("mean of the tasks" if task is None else task, 60), log=True,
        frontier=pareto(ours, less_is_faster=False),
        xlabel=f"texts a second, all tasks answered, {record.threads} threads (log)",
    )  # fmt: skip
