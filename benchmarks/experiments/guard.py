"""A short look at whether an engine became slower: warns, and never fails on time.

Measures how many times as fast as torch each int8 engine is in the same run, one text and a batch,
and compares that with what was recorded for processors of the same name and instructions, with as
many threads. Ratios within one run hold on a machine that others use, too; they are no proof.
Without a bundle, one is made of the packaged MiniLM, which takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.bench.measure import EFFORTS, times_at_shapes
from mtl_edge.benchmarks.core.check import check
from mtl_edge.benchmarks.core.command import model_of, new_record, run_module
from mtl_edge.benchmarks.core.machine import describe
from mtl_edge.benchmarks.core.record import Machine, Record, Rounds
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.core.system import TORCH, systems_of
from mtl_edge.benchmarks.core.tables import Table, pair_of
from mtl_edge.benchmarks.core.writing import write_text
from mtl_edge.benchmarks.demo import DATA
from mtl_edge.benchmarks.experiments import example
from mtl_edge.bundle import open_bundle
from mtl_edge.errors import DataError, EngineError, OptionError
from mtl_edge.io.labelled import read_texts

__all__ = ["judge", "main", "measure", "ratios_of"]

RESULTS = Path(__file__).parents[1] / "results" / "guard.json"
EFFORT = replace(EFFORTS["quick"], shapes=((1, 32), (32, 32)), rounds=40, seconds=6.0)
BETWEEN_RUNS = 0.05  # what ratios of two quiet runs differ by, beyond the noise within each
TEXTS = 32

Ratio = Mapping[str, float]  # times_as_fast as torch, and torch's noise in the same rounds
Ratios = Mapping[str, Mapping[str, Ratio]]  # by graph and shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, help="default: a small one is made")
    parser.add_argument("--checkpoint", type=Path, help="the bundle's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument(
        "--record", action="store_true", help="put this machine's ratios into --results"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.guard", __doc__, add_arguments, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    if (args.bundle is None) != (args.checkpoint is None):
        raise OptionError("--bundle and --checkpoint go together; give both or neither")
    recorded = read_recorded(args.results)
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        checkpoint, bundle = (
            example.write(Path(work)) if args.bundle is None else (args.checkpoint, args.bundle)
        )
        record = measure(bundle, checkpoint, args.threads, command)
    kind = kind_of(record.machine, args.threads)
    known, found = recorded.get(kind, {}).get("ratios"), ratios_of(record.rounds)
    notes = [f"recorded for {kind}" if known else f"nothing is recorded for {kind}; --record does"]
    if known is not None:
        record.warnings.extend(judge(known, found))
    if args.record:
        own = {"date": record.date[:10], "ratios": found}
        write_text(args.results, json.dumps({**recorded, kind: own}, indent=1) + "\n")
        notes.append(f"recorded in {args.results}")
    return Report(record, "The guard", [_table(found, known or {})], notes=notes)


def kind_of(machine: Machine, threads: int) -> str:
    """Processors that ratios may be compared across."""
    instructions = " ".join(machine.instructions) or machine.system
    counted = f"{threads} {'thread' if threads == 1 else 'threads'}"
    return f"{machine.processor}: {instructions}, {counted}"


def measure(bundle: Path, checkpoint: Path, threads: int, command: str) -> Record:
    """Each graph and torch at the guard's shapes.

    Raises:
        EngineError: outputs are not finite, or differ from torch's: that is no matter of time.
        BundleError, CheckpointError, OptionError: see `systems_of`.
    """
    started, machine, opened = time.monotonic(), describe(), open_bundle(bundle)
    texts = read_texts(DATA / "dev.csv")[0][:TEXTS]
    with ExitStack() as stack:
        systems, _ = systems_of(opened, checkpoint, threads, texts, stack)
        checked = check(systems, texts, own_ids="vocabulary" in opened.manifest.reduced)
        for name, reason in checked.failed.items():
            raise EngineError(f"{name}: {reason}")
        words = opened.manifest.backbone.vocabulary
        rounds = times_at_shapes(checked.sound, EFFORT, words)
    return new_record(
        "guard", command, threads, started, machine=machine, model=model_of(opened),
        checks=checked.checks,
        systems=[system.info() for system in systems], rounds=rounds,
    )  # fmt: skip


def ratios_of(rounds: Sequence[Rounds]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times as fast as torch each graph is, by shape."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in rounds:
        for name in one.times:
            if name != TORCH:
                ratio = pair_of(one.pairs, name, TORCH).times_as_fast.value
                noise = one.noise.spread if one.noise else 0.0
                own = {"times_as_fast": round(ratio, 3), "noise": round(noise, 4)}
                found.setdefault(name, {})[one.name] = own
    return found


def judge(recorded: Ratios, found: Ratios) -> list[str]:
    """A sentence for each ratio that is lower than the recorded one by more than both noises."""
    warnings = []
    for graph, shapes in found.items():
        for shape, now in shapes.items():
            then = recorded.get(graph, {}).get(shape)
            if then is None:
                continue
            noise = math.hypot(then["noise"], now["noise"], BETWEEN_RUNS)
            if now["times_as_fast"] < then["times_as_fast"] * (1 - noise):
                warnings.append(
                    f"{graph} at {shape} is {now['times_as_fast']:.2f} times as fast as torch, and "
                    f"{then['times_as_fast']:.2f} was recorded; noise explains a loss of "
                    f"{noise:.0%}: measure again with nothing else running"
                )
    return warnings


def _table(found: Ratios, recorded: Ratios) -> Table:
    rows = []
    for graph, shapes in found.items():
        for shape, now in shapes.items():
            then = recorded.get(graph, {}).get(shape)
            rows.append(
                [graph, shape, f"{now['times_as_fast']:.2f}x", f"±{100 * now['noise']:.0f} %",
                 "" if then is None else f"{then['times_as_fast']:.2f}x"]
            )  # fmt: skip
    header = ["graph", "shape", "to torch fp32", "noise", "recorded"]
    return Table("Times as fast as torch", header, rows)


def read_recorded(file: Path) -> dict[str, Any]:
    """Ratios by kind of processor; nothing if there is no file.

    Raises:
        DataError: it is no such file.
    """
    if not file.exists():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        for shapes in (own for kind in data.values() for own in kind["ratios"].values()):
            for ratio in shapes.values():
                float(ratio["times_as_fast"]), float(ratio["noise"])
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; record anew after removing it") from None
    except (AttributeError, KeyError, TypeError):
        raise DataError(
            f"{file} holds something else than ratios; expected times_as_fast and noise by kind "
            "of processor, graph and shape: record it anew after removing it"
        ) from None
    return dict(data)


if __name__ == "__main__":
    main()
