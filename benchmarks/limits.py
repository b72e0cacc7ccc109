"""The machine's limits, and how near to them a bundle's graphs come.

Products of matrices and reads of memory give a roofline: the least time that any engine needs for a
pass. Each graph is timed against it, in the same rounds as the fastest products of its precision,
which are as slowed by a busy machine as the graph is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from mtl_edge.benchmarks.core.check import agreement
from mtl_edge.benchmarks.core.command import (
    model_of,
    new_record,
    require_positive,
    run_module,
)
from mtl_edge.benchmarks.core.machine import describe
from mtl_edge.benchmarks.core.measure import Shape, arrays, at_shapes, shapes_of
from mtl_edge.benchmarks.core.record import Record, Rounds
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.system import System, systems_of
from mtl_edge.benchmarks.core.tables import Table, spread
from mtl_edge.benchmarks.roofline import products, rates
from mtl_edge.benchmarks.roofline.passes import FEED_FORWARD, operations, roofline, work_of
from mtl_edge.benchmarks.roofline.profile import profile, share_of_products
from mtl_edge.benchmarks.roofline.rates import MachineLimits, Rate
from mtl_edge.benchmarks.roofline.weights import weights_of
from mtl_edge.bundle import Bundle, open_bundle
from mtl_edge.errors import EngineError, OptionError
from mtl_edge.training.progress import Progress

__all__ = ["main", "measure", "report_of"]

SHAPES = "1x16,1x32,1x128,8x32,32x32"
ROUNDS, SECONDS = 30, 12.0  # of a shape
MIB = 2**20
MOST_KINDS = 8  # of operators that a row names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="*", help="bundles' folders")
    parser.add_argument(
        "--shapes", default=SHAPES, help="batch x tokens, comma-separated; default: %(default)s"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each shape, at most; default: %(default)s"
    )
    parser.add_argument(
        "--profile", metavar="SHAPES", help="also say which operators take the time at these shapes"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("limits", __doc__, add_arguments, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    shapes = shapes_of("--shapes", args.shapes)
    profiled = shapes_of("--profile", args.profile) if args.profile else []
    require_positive(args, "rounds")
    bundles = {folder.name: open_bundle(folder) for folder in args.bundle}
    if len(bundles) != len(args.bundle):
        raise OptionError("two of the bundles have folders of one name; rename one of them")
    return report_of(
        measure(bundles, args.threads, command, shapes=shapes, rounds=args.rounds,
                profiled=profiled)
    )  # fmt: skip


def measure(
    bundles: dict[str, Bundle],
    threads: int,
    command: str,
    *,
    shapes: Sequence[Shape],
    rounds: int = ROUNDS,
    profiled: Sequence[Shape] = (),
) -> Record:
    """All figures.

    Args:
        profiled: shapes at which to tell which operators take the time.

    Raises:
        MissingPackageError: no engine for a bundle's graphs is installed.
        OptionError: a bundle's config.json does not tell the encoder's sizes.
    """
    started, machine = time.monotonic(), describe()
    total = rates.ROUNDS * len(rates.SHAPES)
    with Progress("the machine's limits", total=total, unit="rounds") as progress:
        limits = rates.measure(threads, between=progress.update)
    figures = _rates(limits)
    record = new_record(
        "limits", command, threads, started, machine=machine, systems=[], figures=figures,
        inputs={name: asdict(model_of(bundle)) for name, bundle in bundles.items()},
        limits=limits.figures(),
    )  # fmt: skip
    for name, bundle in bundles.items():
        with ExitStack() as stack:
            _against(record, name, bundle, limits, shapes, rounds, stack)
        for shape in profiled:
            for graph in bundle.manifest.graphs:
                taken = profile(bundle, graph, shape, threads)
                figures[f"{name} {shape[0]}x{shape[1]} {graph.target} profile ms"] = taken
    return replace(record, seconds=round(time.monotonic() - started, 1))


def _rates(limits: MachineLimits) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for rate in limits.rates:
        shape = "x".join(map(str, rate.shape))
        found.setdefault(f"{shape} TOPS", {})[f"{rate.precision} by {rate.by}"] = rate.tops
    found["read GB/s"] = {f"{read.bytes / MIB:g} MiB": read.gb_s for read in limits.reads}
    return found


def _against(
    record: Record,
    name: str,
    bundle: Bundle,
    limits: MachineLimits,
    shapes: Sequence[Shape],
    rounds: int,
    stack: ExitStack,
) -> None:
    """Add a bundle's times, and the figures that they are held against."""
    if operations(bundle, shapes) is None:
        raise OptionError(
            f"{bundle.file('config.json')} does not tell the width of the encoder's feed-forward "
            f"layers, expected one of {', '.join(FEED_FORWARD)}; give a bundle of an encoder like "
            "BERT or DistilBERT"
        )
    systems, _ = systems_of(bundle, None, limits.threads, (), stack)
    fastest = {s.name: limits.fastest(s.precision) for s in systems}
    beside = {_title(rate): _products(rate, limits.threads) for rate in fastest.values()}
    weights = {s.name: weights_of(bundle, s.graph) for s in systems if s.graph is not None}
    for system in systems:
        for texts, tokens in shapes:
            assert system.graph is not None
            work = work_of(bundle, system.graph, texts, tokens, weights=weights[system.name])
            assert work is not None
            least, rate = roofline(work, system.precision, limits), fastest[system.name]
            key = f"{name} {texts}x{tokens} {system.name}"
            record.figures[key] = {
                "roofline ms": least.ms,
                "by operations ms": least.by_operations,
                "by bytes ms": least.by_bytes,
                "operations to products": least.operations / products.operations(rate.shape),
                "agreement": _agreement(system, systems[0], (texts, tokens), bundle),
            }
    timed = at_shapes(
        f"timing {name}", [*beside.values(), *systems], shapes,
        bundle.manifest.backbone.vocabulary, rounds=rounds, seconds=SECONDS, twice=False,
        references=list(beside),
        least_ms=lambda s, b, t: record.figures.get(f"{name} {b}x{t} {s.name}", {}).get(
            "roofline ms"
        ),
    )  # fmt: skip
    record.systems.extend(replace(s.info(), name=f"{name} {s.name}") for s in systems)
    record.rounds.extend(replace(one, name=f"{name} {one.name}") for one in timed)


def _title(rate: Rate) -> str:
    return f"{rate.precision} products"  # no graph's name: those have no blank


def _products(rate: Rate, threads: int) -> System:
    call = products.PRODUCTS[rate.precision][rate.by](rate.shape, threads)
    if call is None:
        raise EngineError(f"{rate.by} had {rate.precision} products a moment ago, and has none now")

    def run(*_: object) -> dict[str, object]:
        call()
        return {}

    return System(_title(rate), rate.by, rate.precision, 0, run)  # type: ignore[arg-type]


def _agreement(system: System, first: System, shape: Shape, bundle: Bundle) -> float:
    ids, mask = arrays(shape, bundle.manifest.backbone.vocabulary)
    return agreement(system.run(ids, mask), first.run(ids, mask))


def report_of(record: Record) -> Report:
    """The rates, the reads and, where there were bundles, each pass against its roofline."""
    tables = [_rates_table(record), _reads_table(record)]
    notes = [f"Triad in main memory: {record.limits['triad_gb_s']:.1f} GB/s"]
    if record.rounds:
        tables.append(_reached_table(record))
    if profiles := [key for key in record.figures if key.endswith("profile ms")]:
        tables.append(_profile_table(record, profiles))
    return Report(record, "The machine's limits", tables, notes=notes)


def _rates_table(record: Record) -> Table:
    """Tera-operations a second, each kind of product at each shape."""
    shapes = [key for key in record.figures if key.endswith(" TOPS")]
    kinds = dict.fromkeys(kind for key in shapes for kind in record.figures[key])
    rows = []
    for kind in kinds:
        found = [record.figures[key].get(kind) for key in shapes]
        precision, _, by = kind.partition(" by ")
        best = max(filter(None, found)) == record.limits[f"{precision}_tops"]
        cells = ["" if value is None else f"{value:.2f}" for value in found]
        rows.append([precision, by, *cells, "yes" if best else ""])
    header = ["TOPS", "by", *(key.removesuffix(" TOPS") for key in shapes), "the limit"]
    return Table(
        "Products of matrices", header, rows, "Best of interleaved rounds, by rows x narrow x wide"
    )


def _reads_table(record: Record) -> Table:
    """Gigabytes a second by how much is read over and over."""
    reads = record.figures["read GB/s"]
    return Table(
        "Reads of memory", ["read over and over", *reads],
        [["GB/s", *(f"{rate:.1f}" for rate in reads.values())]],
    )  # fmt: skip


def _reached_table(record: Record) -> Table:
    """Each shape's roofline and each graph's time against it."""
    rows = []
    for rounds in record.rounds:
        bundle, _, shape = rounds.name.rpartition(" ")
        for graph, time_ in rounds.times.items():
            found = record.figures.get(f"{rounds.name} {graph}")
            if found is None:
                continue
            share = found["operations to products"]
            (beside,) = (
                pair.times_as_fast for pair in rounds.pairs
                if pair.system == graph and pair.to == _beside(record, bundle, graph, rounds)
            )  # fmt: skip
            least = found["roofline ms"]
            low, high = beside.low or beside.value, beside.high or beside.value
            rows.append([
                bundle, shape, graph, f"{least:.2f}",
                _bound(found),
                f"{time_.median:.2f}", spread(time_),
                f"{least / time_.median:.2f}", f"{least / min(time_.values):.2f}",
                f"{share * beside.value:.2f} ({share * low:.2f}-{share * high:.2f})",
            ])  # fmt: skip
    return Table(
        "Passes against the roofline",
        ["bundle", "batch x tokens", "graph", "roofline, ms", "of", "ms", "p10-p90",
         "roofline to ms", "at best", "to products beside"],
        rows,
        "Of: whether operations or bytes make the roofline; at best: to the fastest pass; to "
        "products beside: the operations a second of the pass to those of the fastest products of "
        "its precision, timed in the same rounds (95 % interval), which is what a busy machine "
        "leaves comparable",
    )  # fmt: skip


def _bound(found: Mapping[str, float]) -> str:
    """What the roofline is made of."""
    return "operations" if found["by operations ms"] >= found["by bytes ms"] else "bytes"


def _beside(record: Record, bundle: str, graph: str, rounds: Rounds) -> str:
    """The products that a graph is held against: of its precision, or else of float32."""
    precision = next(s.precision for s in record.systems if s.name == f"{bundle} {graph}")
    own = f"{precision} products"
    return own if own in rounds.times else "fp32 products"


def _profile_table(record: Record, keys: Sequence[str]) -> Table:
    """What a pass spends its time on."""
    rows = []
    for key in keys:
        bundle, shape, graph = key.removesuffix(" profile ms").rsplit(" ", 2)
        found = record.figures[key]
        whole = sum(found.values())
        kinds = list(found.items())[:MOST_KINDS]
        named = ", ".join(f"{kind} {100 * ms / whole:.0f} %" for kind, ms in kinds)
        share = f"{100 * share_of_products(found):.0f}"
        rows.append([bundle, shape, graph, f"{whole:.2f}", share, named])
    return Table(
        "Where the time goes",
        ["bundle", "batch x tokens", "graph", "ms", "products %", "of the time"], rows,
        "By the engines' own clocks, which take time themselves",
    )  # fmt: skip


if __name__ == "__main__":
    main()
