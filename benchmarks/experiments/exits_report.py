"""What cheaper stages save, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_edge.benchmarks.core.measure import ONE
from mtl_edge.benchmarks.core.record import Record, Rounds
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.tables import Table

__all__ = ["BAG", "FULL", "STAGED", "report_of"]

STAGED, FULL, BAG = "staged", "full depth", "bag of words"


def report_of(record: Record) -> Report:
    """What stages save and cost, and bags of words beside them."""
    inputs = record.inputs
    note = (
        f"promised: at most {100 * inputs['drop']:g} points below full depth, "
        f"{inputs['confidence']:.0%} confidence"
    )
    if inputs["simulated"]:
        shares = ", ".join(f"{100 * share:g}%" for share in inputs["simulated"])
        note = (
            f"simulated: thresholds are such that {shares} of the texts exit, answers mean nothing"
        )
    counts = [one.times[FULL].count for one in _bulk(record)]
    notes = [
        note,
        f"Medians of {min(counts)} to {max(counts)} interleaved rounds, tokenization included",
    ]
    bags = _bags(record)
    tables = [_stages(record), *([bags] if bags.rows else [])]
    return Report(record, "What cheaper stages save", tables, notes=notes)


def _latency(record: Record, name: str, system: str) -> str:
    time_ = record.on(f"{name}, {ONE}").times[system]
    return f"{time_.median:.2f} / {time_.p90:.2f} / {time_.p99:.2f}"


def _speed(rounds: Rounds, system: str) -> str:
    return f"{1e3 * rounds.texts / rounds.times[system].median:,.0f}"


def _faster(rounds: Rounds, system: str) -> str:
    pair = next(pair for pair in rounds.pairs if pair.system == system)
    return f"{pair.times_as_fast.value:.2f}"


def _bulk(record: Record) -> list[Rounds]:
    return [one for one in record.rounds if not one.name.endswith(ONE)]


def _stages(record: Record) -> Table:
    depths, simulated = record.inputs["depths"], record.inputs["simulated"]
    header = ["graph", "texts and what is asked", "texts"]
    header += [f"exit at depth {depth} %" for depth in depths]
    header += [] if simulated else ["full depth %", "with stages %", "agrees %"]
    header += ["texts/s full", "texts/s staged", "times as fast"]
    header += ["ms single full p50/p90/p99", "ms single staged p50/p90/p99"]
    rows = []
    for rounds in _bulk(record):
        target, _, way = rounds.name.partition(": ")
        found = record.figures[rounds.name]

        def share(key: str, found: Mapping[str, float] = found) -> str:
            return f"{100 * found[key]:.1f}" if key in found else ""

        scores = [share(f"accuracy, {FULL}"), share(f"accuracy, {STAGED}"), share("agreement")]
        rows.append([
            target, way, str(rounds.texts),
            *(f"{100 * found[f'depth {depth}']:.0f}" for depth in depths),
            *([] if simulated else scores),
            _speed(rounds, FULL), _speed(rounds, STAGED), _faster(rounds, STAGED),
            _latency(record, rounds.name, FULL), _latency(record, rounds.name, STAGED),
        ])  # fmt: skip
    return Table("With stages and at full depth", header, rows)


def _bags(record: Record) -> Table:
    """Bags of words, beside the graph that ran in the same rounds."""
    header = ["beside", "TF-IDF on", "%", "texts/s", "times as fast as full depth",
              "ms single p50/p90/p99"]  # fmt: skip
    rows = []
    for rounds in _bulk(record):
        if BAG in rounds.times:
            target, _, way = rounds.name.partition(": ")
            score = f"{100 * record.figures[rounds.name][f'accuracy, {BAG}']:.1f}"
            rows.append([target, way, score, _speed(rounds, BAG), _faster(rounds, BAG),
                         _latency(record, rounds.name, BAG)])  # fmt: skip
    return Table("Bags of words", header, rows)
