"""A report as tables: the same rows on the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_edge.benchmarks.bench.schema import Check, Estimate, Pair, Report, Rounds, Score, Scores
from mtl_edge.benchmarks.bench.scores import BASELINES

__all__ = ["Table", "machine_of", "notes_of", "overview", "tables_of"]

MAIN_SHAPES = ("1x32", "32x32")
SHARE = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Table:
    """
    Attributes:
        note: what a reader has to know to read it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def tables_of(report: Report) -> list[Table]:
    """All of them, the overview first."""
    found = [overview(report), _latency(report), _pairs(report), _stream(report), _sweep(report)]
    found += [_scores(report)] if report.scores else []
    return [*found, _checks(report), *([_limits(report)] if report.limits else [])]


def overview(report: Report) -> Table:
    """A row for each contender, and for the baselines: what is gained and what is lost."""
    first = next(iter(report.stream.single))
    columns = _accuracy_columns(report)
    shapes = [name for name in MAIN_SHAPES if name in _by_shape(report)] or list(_by_shape(report))[
        :2
    ]
    header = ["model", *(title for title, _ in columns), "agrees %", "MB"]
    for shape in shapes:
        header += [f"ms {shape}", f"to {first}"]
    header += ["ms p50", "p99", "texts/s", f"to {first}"]
    rows = [_overview_row(report, c.name, c.bytes, columns, shapes) for c in report.contenders]
    for title in BASELINES.values():
        cells = [_percent(models.get(title)) for _, models in columns]
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
    row = [name, *map(_percent, found), agrees, f"{size / 1e6:.0f}"]
    if name not in report.stream.single:
        return [*row, "failed", *[""] * (2 * len(shapes) + 3)]
    for shape in shapes:
        rounds = _by_shape(report)[shape]
        row += [f"{rounds.times[name].median:.2f}", _to_first(rounds.pairs, name)]
    single, bulk = report.stream.single[name], report.stream.bulk
    row += [f"{single.p50:.2f}", f"{single.p99:.2f}"]
    return [*row, f"{bulk.speeds[name].texts_per_second:,.0f}", _to_first(bulk.pairs, name)]


def _latency(report: Report) -> Table:
    shapes = _by_shape(report)
    rows = [
        [name, *(_latency_cell(rounds, name) for rounds in shapes.values())]
        for name in report.stream.single
    ]
    floors = any(t.share_of_floor for r in report.shapes for t in r.times.values())
    return Table(
        "Latency by shape, ms",
        ["model", *shapes],
        rows,
        "BATCHxTOKENS of random ids, the engine's own call: median (p10-p90) over rounds"
        + ("; after it, the share reached of the machine's floor" if floors else ""),
    )


def _latency_cell(rounds: Rounds, name: str) -> str:
    time = rounds.times[name]
    floor = "" if time.share_of_floor is None else f", {100 * time.share_of_floor:.0f} %"
    return f"{time.median:.2f} ({time.p10:.2f}-{time.p90:.2f}){floor}"


def _pairs(report: Report) -> Table:
    parts = {name: (r.pairs, r.noise) for name, r in _by_shape(report).items()}
    parts["one at a time"] = (report.stream.pairs, report.stream.noise)
    parts["in one call"] = (report.stream.bulk.pairs, report.stream.bulk.noise)
    names = [(pair.contender, pair.to) for pair in report.stream.pairs]
    rows = [
        [f"{name} to {to}", *(_ratio(_pair(pairs, name, to)) for pairs, _ in parts.values())]
        for name, to in names
    ]
    first = next(iter(report.stream.single))
    rows.append(
        [
            f"noise: {first} to itself",
            *(
                "" if noise is None else f"{noise.median:.2f}x ±{100 * noise.spread:.0f} %"
                for _, noise in parts.values()
            ),
        ]
    )
    return Table(
        "Times as fast, in pairs", ["pair", *parts], rows,
        "Median of the rounds' ratios and its 95 % bootstrap interval. Noise: the first contender "
        "timed twice in each round; ± is how far the quartiles of that ratio lie from 1",
    )  # fmt: skip


def _stream(report: Report) -> Table:
    stream = report.stream
    rows = []
    for name, single in stream.single.items():
        speed = stream.bulk.speeds[name]
        rows.append(
            [
                name, f"{single.p50:.2f}", f"{single.p90:.2f}", f"{single.p99:.2f}",
                sparkline(stream.histogram.counts[name]),
                f"{speed.texts_per_second:,.0f}", f"{speed.tokens_per_second:,.0f}",
            ]
        )  # fmt: skip
    torch = stream.bulk.torch_batch_tokens
    return Table(
        "Texts through the whole runtime",
        ["model", "ms p50", "p90", "p99", f"0 to {stream.histogram.edges[-1]:.1f} ms",
         "texts/s", "tokens/s"],
        rows,
        f"{stream.texts} of {stream.of:,} texts of {', '.join(stream.source)}: median "
        f"{stream.median_tokens} tokens, most {stream.most_tokens}; {stream.passes} "
        f"{'pass' if stream.passes == 1 else 'passes'} one at a time, then all in one call, "
        "tokenization and probabilities included"
        + ("" if torch is None else f". Torch: the same ids, sorted by length, in batches of "
           f"{torch:,} tokens, its best size of four"),
    )  # fmt: skip


def sparkline(counts: Sequence[int]) -> str:
    """A histogram in a line of text."""
    most = max(*counts, 1)
    return "".join(
        " " if not count else SHARE[min(len(SHARE) - 1, len(SHARE) * count // most)]
        for count in counts
    )


def _sweep(report: Report) -> Table:
    rows = []
    for name in report.stream.single:
        rows.append([name, *(f"{1e3 * r.batch / r.times[name].median:,.0f}" for r in report.sweep)])
    return Table(
        "Throughput by size of the batch, texts/s",
        ["model", *(str(rounds.batch) for rounds in report.sweep)],
        rows,
        f"The engine's own call on texts of {report.sweep[0].tokens} tokens, the stream's median",
    )


def _scores(report: Report) -> Table:
    rows = []
    for scores in report.scores:
        for name, score in scores.models.items():
            rows.append(
                [
                    _title(report, scores), name, f"{scores.rows:,}", _interval(score.accuracy),
                    _interval(score.macro_f1), _interval(score.agreement),
                    *(
                        ("", "")
                        if score.accuracy_to_first is None or name == next(iter(scores.models))
                        else (
                            _interval(score.accuracy_to_first, "+"),
                            _interval(score.macro_f1_to_first, "+"),
                        )
                    ),
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


def _checks(report: Report) -> Table:
    return Table(
        "Outputs, compared before any timing",
        ["model", "texts", "token ids", "largest logit difference", "labels agree %"],
        [_check_row(check) for check in report.checks],
        f"Against {report.checks[0].contender}, on the texts of the stream",
    )


def _check_row(check: Check) -> list[str]:
    return [
        check.contender,
        str(check.texts),
        "the same" if check.same_ids else "differ",
        "not finite"
        if check.most_logit_difference is None
        else f"{check.most_logit_difference:.2g}",
        "" if check.agreement is None else f"{100 * check.agreement:.1f}",
    ]


def _limits(report: Report) -> Table:
    return Table(
        "What the machine can do",
        ["limit", "value"],
        [[name.replace("_", " "), f"{value:.3g}"] for name, value in report.limits.items()],
        "Measured in this run: `mtl_edge.benchmarks.limits`",
    )


def notes_of(report: Report) -> list[str]:
    """What a reader of the overview has to know."""
    where = [
        f"{_title(report, scores)} on {scores.rows:,} rows"
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


def _accuracy_columns(report: Report) -> list[tuple[str, Mapping[str, Score]]]:
    return [(f"{_title(report, scores)} %", scores.models) for scores in report.scores]


def _title(report: Report, scores: Scores) -> str:
    """The task, and the file where the task has several."""
    several = sum(other.task == scores.task for other in report.scores) > 1
    return f"{scores.task} {scores.file}" if several else scores.task


def _by_shape(report: Report) -> dict[str, Rounds]:
    return {f"{rounds.batch}x{rounds.tokens}": rounds for rounds in report.shapes}


def _pair(pairs: Sequence[Pair], name: str, to: str) -> Pair:
    return next(pair for pair in pairs if (pair.contender, pair.to) == (name, to))


def _to_first(pairs: Sequence[Pair], name: str) -> str:
    """Times as fast as the first contender, which is the first that any is compared to."""
    if not pairs or name == pairs[0].to:
        return "1.0x"
    return f"{_pair(pairs, name, pairs[0].to).times_as_fast.value:.1f}x"


def _ratio(pair: Pair) -> str:
    found = pair.times_as_fast
    return f"{found.value:.2f}x ({found.low:.2f}-{found.high:.2f})"


def _percent(score: Score | None) -> str:
    """Accuracy, ± half of its interval."""
    if score is None:
        return ""
    found = score.accuracy
    if found.low is None or found.high is None:
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} ± {50 * (found.high - found.low):.1f}"


def _interval(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    text = f"{100 * found.value:{sign}.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"
