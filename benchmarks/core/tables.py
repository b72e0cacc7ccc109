"""Tables made from records: what a table is, how its cells are written, and those that recur."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mtl_edge.benchmarks.core.record import (
    Estimate,
    Machine,
    Pair,
    Record,
    Rounds,
    Score,
    Scores,
    Timed,
)

__all__ = [
    "Column",
    "Table",
    "across",
    "checks_table",
    "interval",
    "latency_table",
    "limits_table",
    "machine_line",
    "milliseconds",
    "over",
    "pair_of",
    "pairs_table",
    "percent",
    "ratio",
    "scores_table",
    "seen",
    "sparkline",
    "spread",
    "title_of",
    "to_first",
]

BARS = "▁▂▃▄▅▆▇█"
BINS = 24
Column = tuple[str, Callable[[str], str]]  # its header, and the cell of a system


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text.

    Attributes:
        note: what a reader has to know to read it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def over(
    title: str,
    names: Sequence[str],
    columns: Sequence[Column],
    note: str = "",
    first: str = "model",
) -> Table:
    """A table with a row for each name."""
    return Table(
        title,
        [first, *(header for header, _ in columns)],
        [[name, *(cell(name) for _, cell in columns)] for name in names],
        note,
    )


def across(title: str, names: Mapping[str, str], rows: Sequence[Column], note: str = "") -> Table:
    """A table with a column for each name, and a row for each quantity.

    Args:
        names: their titles.
    """
    return Table(
        title,
        ["", *names.values()],
        [[what, *(seen(cell)(name) for name in names)] for what, cell in rows],
        note,
    )


def seen(cell: Callable[[str], str]) -> Callable[[str], str]:
    """A cell that is empty where there is no such figure."""

    def found(name: str) -> str:
        try:
            return cell(name)
        except (KeyError, StopIteration):
            return ""

    return found


def milliseconds(rounds: Rounds) -> Callable[[str], str]:
    """Median and tenths of a system's rounds."""
    return lambda name: f"{rounds.times[name].median:.2f}"


def spread(time: Timed, digits: int = 2) -> str:
    """From the tenth to the ninetieth hundredth, or nothing where they were not kept."""
    return "" if time.p10 is None else f"{time.p10:.{digits}f}-{time.p90:.{digits}f}"


def pair_of(pairs: Sequence[Pair], name: str, to: str) -> Pair:
    return next(pair for pair in pairs if (pair.system, pair.to) == (name, to))


def to_first(rounds: Rounds, reference: str | None = None) -> Callable[[str], str]:
    """How many times as fast a system is as the first one, or as another reference."""

    def cell(name: str) -> str:
        to = reference or (rounds.pairs[0].to if rounds.pairs else name)
        if name == to:
            return "1.0x"
        return f"{pair_of(rounds.pairs, name, to).times_as_fast.value:.1f}x"

    return cell


def ratio(found: Estimate) -> str:
    digits = 1 if found.value >= 10 else 2
    text = f"{found.value:.{digits}f}x"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({found.low:.{digits}f}-{found.high:.{digits}f})"


def percent(score: Score | None) -> str:
    """Accuracy, ± half of its interval."""
    if score is None:
        return ""
    found = score.accuracy
    if found.low is None or found.high is None:
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} ± {50 * (found.high - found.low):.1f}"


def interval(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    text = f"{100 * found.value:{sign}.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"


def sparkline(counts: Sequence[float]) -> str:
    """A histogram in a line of text."""
    most = max(*counts, 0)
    return "".join(
        " " if not count else BARS[min(len(BARS) - 1, int(len(BARS) * count / most))]
        for count in counts
    )


def title_of(record: Record, scores: Scores) -> str:
    """The task, and the file where the task has several."""
    several = sum(other.task == scores.task for other in record.scores) > 1
    return f"{scores.task} {scores.file}" if several else scores.task


def machine_line(machine: Machine) -> str:
    """Processor, instructions and versions in a line."""
    packages = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in packages
                         if name in machine.versions)  # fmt: skip
    card = f", {machine.accelerator}" if machine.accelerator else ""
    return f"{machine.processor}{card} ({', '.join(machine.instructions)}); {versions}"


def latency_table(record: Record, title: str = "Latency by shape, ms") -> Table:
    """Each system's own call at each shape, with the share of the roofline where it is known."""
    shapes = record.shapes()

    def cell(rounds: Rounds) -> Callable[[str], str]:
        def found(name: str) -> str:
            time = rounds.times[name]
            share = time.share_of_roofline
            reached = "" if share is None else f", {100 * share:.0f} %"
            return f"{time.median:.2f} ({spread(time)}){reached}"

        return found

    known = any(t.share_of_roofline for r in shapes for t in r.times.values())
    return over(
        title, record.timed, [(rounds.name, cell(rounds)) for rounds in shapes],
        "BATCHxTOKENS of random ids, the engine's own call: median (p10-p90) over rounds"
        + ("; after it, the share reached of the machine's roofline" if known else ""),
    )  # fmt: skip


def pairs_table(record: Record, parts: Sequence[Rounds]) -> Table:
    """How many times as fast each is as each other, and the noise beneath it."""
    first = record.timed[0]
    rows = [
        [f"{one.system} to {one.to}",
         *(ratio(pair_of(part.pairs, one.system, one.to).times_as_fast) for part in parts)]
        for one in parts[0].pairs
    ]  # fmt: skip
    noises = [
        "" if part.noise is None
        else f"{part.noise.median:.2f}x ±{100 * part.noise.spread:.0f} %" for part in parts
    ]  # fmt: skip
    return Table(
        "Times as fast, in pairs",
        ["pair", *(part.name for part in parts)],
        [*rows, [f"noise: {first} to itself", *noises]],
        "Median of the rounds' ratios and its 95 % bootstrap interval; fewer than six rounds "
        "cannot bound a median that well (four: at most 87.5 %). Noise: the first system "
        "timed twice in each round; ± is how far the quartiles of that ratio lie from 1",
    )


def scores_table(record: Record) -> Table:
    """Accuracy, macro-F1 and agreement of each system on each labelled file."""
    rows = []
    for scores in record.scores:
        for name, score in scores.models.items():
            first = name == next(iter(scores.models))
            differences = (score.accuracy_to_first, score.macro_f1_to_first)
            rows.append(
                [
                    title_of(record, scores), name, f"{scores.rows:,}", interval(score.accuracy),
                    interval(score.macro_f1), interval(score.agreement),
                    *("" if first else interval(found, "+") for found in differences),
                ]
            )  # fmt: skip
    return Table(
        "Accuracy by labelled file, %",
        ["file", "model", "rows", "accuracy", "macro-F1", "agrees", "accuracy to first",
         "macro-F1 to first"],
        rows,
        "95 % percentile-bootstrap intervals of 1,000 resamples; differences are resampled in "
        "pairs, and one whose interval holds 0 may be chance",
    )  # fmt: skip


def checks_table(record: Record) -> Table:
    """Whether the systems answer alike."""
    checks = {check.system: check for check in record.checks}

    def difference(name: str) -> str:
        found = checks[name].largest_difference
        return "not finite" if found is None else f"{found:.2g}"

    def agreement(name: str) -> str:
        found = checks[name].agreement
        return "" if found is None else f"{100 * found:.1f}"

    columns: list[Column] = [
        ("texts", lambda name: str(checks[name].texts)),
        ("token ids", lambda name: "the same" if checks[name].same_ids else "differ"),
        ("largest logit difference", difference),
        ("labels agree %", agreement),
    ]
    return over(
        "Outputs, compared before any timing", list(checks), columns,
        f"Against {record.checks[0].system}, on the texts of the stream",
    )  # fmt: skip


def limits_table(limits: Mapping[str, float]) -> Table:
    """What the machine can do in a second."""
    return Table(
        "What the machine can do",
        ["limit", "value"],
        [[name.replace("_", " "), f"{value:.3g}"] for name, value in limits.items()],
        "Measured in this run: `mtl_edge.benchmarks.limits`",
    )
