"""The runtime's figures as tables and pictures."""

from __future__ import annotations

from collections.abc import Callable

from mtl_edge.benchmarks.core.measure import ALL, ONE
from mtl_edge.benchmarks.core.panels import curves, stacked
from mtl_edge.benchmarks.core.pictures import Picture
from mtl_edge.benchmarks.core.record import Record
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.tables import (
    Column,
    Table,
    across,
    over,
    pair_of,
    ratio,
    seen,
    spread,
)
from mtl_edge.benchmarks.experiments.app_costs import SPINS, THREADS
from mtl_edge.benchmarks.experiments.cold_start import COLD, PARTS

__all__ = ["UNFIXED", "report_of"]

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
UNFIXED = "openvino, no fixed shapes"


def report_of(record: Record) -> Report:
    """Single texts, all at once, memory, cold start and what the runtime costs an app."""
    names = {name: title for name, title in TITLES.items() if name in record.on(ONE).times}
    inputs = record.inputs
    return Report(
        record,
        "The runtime's figures",
        [
            across(
                f"One text at a time ({inputs['texts']:,} texts in random order, median "
                f"{inputs['median_tokens']} tokens, most {inputs['most_tokens']})",
                names, _single(record),
            ),
            across("All texts in one call", names, _bulk(record)),
            across("Memory", names, _memory(record)),
            _starts(record),
            across("What it costs an app", names, _costs(record)),
        ],
        [*(_curve(record, name, title) for name, title in names.items()), _start_bars(record)],
        [
            "Bare: the tokenizers library's call and the engine's own call on arrays that are "
            "ready, one after the other; of all texts, batches of 32 in the order of arrival, each "
            "padded to its longest text, tokenization included",
            "Overhead: the median over pairs of one text",
            "Goals: overhead of 8 %, or 40 µs if more; a tail of 1.5 among texts of like length; "
            "1.8 times the bare speed in bulk; at most the bundle and 120 MB in memory; 400 ms to "
            "a first answer of MiniLM on ONNX Runtime",
        ],
    )  # fmt: skip


def _single(record: Record) -> list[Column]:
    times, figures = record.on(ONE).times, record.figures

    def quantiles(ending: str) -> Callable[[str], str]:
        def cell(name: str) -> str:
            found = times[f"{name}{ending}"]
            return f"{found.median:.2f} / {found.p90:.2f} / {found.p99:.2f}"

        return cell

    def tail(name: str) -> str:
        own, bare = (times[n].p99 / times[n].median for n in (name, f"{name}, bare"))
        return f"{own:.2f} ({bare:.2f})"

    def like(name: str) -> str:
        found = figures["tail of like length"]
        return f"{found[name]:.2f} ({found[f'{name}, bare']:.2f})"

    def overhead(name: str) -> str:
        us, share = (figures[f"overhead {kind}"][name] for kind in ("us", "percent"))
        return f"{us:.0f} µs, {share:.1f} %"

    return [
        ("predict, ms p50 / p90 / p99", quantiles("")),
        ("bare, ms p50 / p90 / p99", quantiles(", bare")),
        ("overhead", overhead),
        ("p99 to p50 (bare)", tail),
        ("the same among texts of like length (bare)", like),
    ]


def _bulk(record: Record) -> list[Column]:
    rounds, figures = record.on(ALL), record.figures
    tokens = record.inputs["tokens"]

    def speed(count: int, ending: str = "") -> Callable[[str], str]:
        return lambda name: f"{1e3 * count / rounds.times[f'{name}{ending}'].median:,.0f}"

    def faster(name: str) -> str:
        return ratio(pair_of(rounds.pairs, name, f"{name}, bare").times_as_fast)

    def limit(name: str) -> str:
        share = 100 * figures["share of the limit"][name]
        return f"{figures['TOPS'][name]:.2f} TOPS, {share:.0f} %"

    return [
        ("texts a second", speed(rounds.texts)),
        ("bare, texts a second", speed(rounds.texts, ", bare")),
        ("times as fast", faster),
        ("tokens a second", speed(tokens)),
        ("padding included", lambda name: f"{figures['padded tokens/s'][name]:,.0f}"),
        (f"of the machine's {record.limits['int8_tops']:.2f} int8 TOPS", limit),
    ]


def _memory(record: Record) -> list[Column]:
    sizes = {system.name: system.bytes for system in record.systems}

    def megabytes(stage: str) -> Callable[[str], str]:
        return lambda name: f"{record.figures[f'memory: {stage} MB'][name]:.0f}"

    whole = record.inputs["bundle_bytes"] / 1e6
    return [
        (f"bundle, MB: what this engine needs (of {whole:.0f})",
         lambda name: f"{sizes[name] / 1e6:.0f}"),
        ("resident, MB: all imported", megabytes("imported, now")),
        ("after load and an answer", megabytes("loaded, now")),
        ("after 200 texts and 1,000 in one call", megabytes("used, now")),
        ("at most", megabytes("used, peak")),
    ]  # fmt: skip


def _starts(record: Record) -> Table:
    rounds = record.on(COLD)

    def part(name: str) -> Column:
        found = record.figures.get(f"cold start: {name} ms", {})
        return name, seen(lambda system: f"{found[system]:.1f}")

    columns: list[Column] = [
        ("whole", lambda name: f"{rounds.times[name].median:.0f}"),
        ("p10-p90", lambda name: spread(rounds.times[name], 0)),
        *(part(name) for name in PARTS),
    ]
    count = next(iter(rounds.times.values())).count
    return over(
        "Cold start, ms from the start of a process to its first answer", list(rounds.times),
        columns, f"Medians of {count} processes, files in the system's cache", first="engine",
    )  # fmt: skip


def _costs(record: Record) -> list[Column]:
    def found(cost: str, name: str) -> float:
        return record.figures[f"app: {cost}"][name]

    def threads(name: str) -> str:
        equal = "equal to the bit" if found("bit equal", name) else "answers differ"
        many, one = (found(f"{n} texts/s", name) for n in ("many threads", "one thread"))
        return f"{many:.0f} against {one:.0f}, {equal}"

    def two(name: str) -> str:
        return f"{found('two classifier ms', name):.2f} against " \
               f"{found('one classifier ms', name):.2f}"  # fmt: skip

    def spin(way: str) -> Callable[[str], str]:
        def cell(name: str) -> str:
            ms, paused, cpu = (found(f"spin {way}: {kind}", name)
                               for kind in ("ms", "ms with pauses", "cpu s per 1,000"))  # fmt: skip
            return f"{ms:.2f} / {paused:.2f} / {cpu:.1f}"

        return cell

    def unfixed(name: str) -> str:
        if name != "openvino":
            return ""
        one = record.on(ONE).times
        loads = record.figures["cold start: load ms"]
        memory = record.figures.get("memory: used, now MB", {})
        taken = f", {memory[UNFIXED]:.0f} MB against {memory[name]:.0f}" if memory else ""
        return (f"{one[UNFIXED].median:.2f} ms a text against {one[name].median:.2f}, load "
                f"{loads[UNFIXED]:.0f} ms against {loads[name]:.0f}{taken}")  # fmt: skip

    pauses = "ms a text / with pauses of 5 ms / processor seconds of 1,000 such"
    return [
        (f"{THREADS} threads against one, texts a second", threads),
        ("two classifiers in turn against one, ms a text", two),
        *((f'spin="{way}": {pauses}', spin(way)) for way in SPINS),
        ("fixed_tokens=0 against the default", unfixed),
    ]


def _curve(record: Record, name: str, title: str) -> Picture:
    times = record.on(ONE).times
    us, share = (record.figures[f"overhead {kind}"][name] for kind in ("us", "percent"))
    return Picture(
        f"latency-{name}",
        f"Share of texts that {title} answers within a time, bare and through the runtime",
        [curves(
            {"tokenizer + engine, bare": sorted(times[f"{name}, bare"].values),
             "predict": sorted(times[name].values)},
            xlabel="ms for one text", title=f"{title}: {us:+.0f} µs ({share:+.1f} %)",
        )],
    )  # fmt: skip


def _start_bars(record: Record) -> Picture:
    times = record.on(COLD).times
    names = {name: title for name, title in TITLES.items() if name in times}
    parts = {
        title: {
            part: record.figures[key][name]
            for part in PARTS
            if name in record.figures.get(key := f"cold start: {part} ms", {})
        }
        for name, title in names.items()
    }
    words = {title: f"{times[name].median:.0f} ms" for name, title in names.items()}
    return Picture(
        "cold-start",
        "Milliseconds from the start of a process to its first answer, part by part",
        [stacked(parts, words=words, xlabel="ms", title="From process start to first answer")],
        (7, 3),
    )
