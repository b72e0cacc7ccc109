"""A report as tables: the same rows on the terminal, in Markdown and in HTML."""

from __future__ import annotations

from mtl_edge.benchmarks.bench.cells import (
    Table,
    by_shape,
    interval,
    pair_of,
    ratio,
    sparkline,
    title_of,
)
from mtl_edge.benchmarks.bench.overview import overview
from mtl_edge.benchmarks.bench.schema import Check, Report, Rounds

__all__ = ["tables_of"]


def tables_of(report: Report) -> list[Table]:
    """All of them, the overview first."""
    found = [overview(report), _latency(report), _pairs(report), _stream(report), _sweep(report)]
    found += [_scores(report)] if report.scores else []
    return [*found, _checks(report), *([_limits(report)] if report.limits else [])]


def _latency(report: Report) -> Table:
    shapes = by_shape(report)
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
    parts = {name: (r.pairs, r.noise) for name, r in by_shape(report).items()}
    parts["one at a time"] = (report.stream.pairs, report.stream.noise)
    parts["in one call"] = (report.stream.bulk.pairs, report.stream.bulk.noise)
    names = [(pair.contender, pair.to) for pair in report.stream.pairs]
    rows = [
        [f"{name} to {to}", *(ratio(pair_of(pairs, name, to)) for pairs, _ in parts.values())]
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
        "Median of the rounds' ratios and its 95 % bootstrap interval; fewer than six rounds "
        "cannot bound a median that well (four: at most 87.5 %). Noise: the first contender "
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
                    title_of(report, scores), name, f"{scores.rows:,}", interval(score.accuracy),
                    interval(score.macro_f1), interval(score.agreement),
                    *(
                        ("", "")
                        if score.accuracy_to_first is None or name == next(iter(scores.models))
                        else (
                            interval(score.accuracy_to_first, "+"),
                            interval(score.macro_f1_to_first, "+"),
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
