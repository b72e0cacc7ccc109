"""A short look at whether an engine became slower: warns, and never fails on time.

    python -m mtl_edge.benchmarks.guard --out FILE [--bundle FOLDER --checkpoint FOLDER] [--record]

Measures how many times as fast as torch each int8 engine is in the same run, one text and a batch,
and compares that with what was recorded for processors with the same instructions and as many
threads. Ratios within one run hold on a machine that others use, too; they are no proof. Without a
bundle, one is made of the packaged MiniLM, which takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.bench import example
from mtl_edge.benchmarks.bench.check import check
from mtl_edge.benchmarks.bench.effort import EFFORTS
from mtl_edge.benchmarks.bench.entrants import TORCH, enter
from mtl_edge.benchmarks.bench.shapes import fixed
from mtl_edge.benchmarks.bench.writing import write_text
from mtl_edge.benchmarks.demo_tasks import DATA
from mtl_edge.benchmarks.machine import describe
from mtl_edge.benchmarks.single_texts import IN_A_ROW
from mtl_edge.bundle import open_bundle
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import DataError, EngineError, MtlEdgeError, OptionError
from mtl_edge.io.labelled import read_texts
from mtl_edge.table import text_table

__all__ = ["Ratio", "judge", "main", "measure"]

RECORDED = Path(__file__).parent / "results" / "guard.json"
EFFORT = replace(EFFORTS["quick"], shapes=((1, 32), (32, 32)), rounds=40, seconds=6.0)
BETWEEN_RUNS = 0.05  # what ratios of two quiet runs differ by, beyond the noise within each

Ratios = Mapping[str, Mapping[str, "Ratio"]]  # by graph and shape


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast as torch, and torch's noise against itself in the same rounds."""

    times_as_fast: float
    noise: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_edge.benchmarks.guard",
        description="Warn where an engine lost speed against torch since it was recorded.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the artefact")
    parser.add_argument("--bundle", type=Path, help="default: a small one is made")
    parser.add_argument("--checkpoint", type=Path, help="the bundle's")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RECORDED, help="default: %(default)s")
    parser.add_argument(
        "--record", action="store_true", help="put this machine's ratios into --results"
    )
    args = parser.parse_args(arguments)
    try:
        print(_run(args))
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")


def _run(args: argparse.Namespace) -> str:
    if (args.bundle is None) != (args.checkpoint is None):
        raise OptionError("--bundle and --checkpoint go together; give both or neither")
    recorded = _recorded(args.results)
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        if args.bundle is None:
            checkpoint, bundle = example.write(Path(work))
        else:
            checkpoint, bundle = args.checkpoint, args.bundle
        found = measure(bundle, checkpoint, args.threads)
    machine = describe()
    kind = kind_of(machine, args.threads)
    known = recorded.get(kind)
    warnings = [] if known is None else judge(_ratios(known, args.results), found)
    measured = {
        "date": date.today().isoformat(),
        "machine": machine,
        "threads": args.threads,
        "ratios": {
            graph: {shape: {"times_as_fast": round(r.times_as_fast, 3), "noise": round(r.noise, 4)}
                    for shape, r in shapes.items()}
            for graph, shapes in found.items()
        },
    }  # fmt: skip
    _write(args.out, {"kind": kind, **measured, "recorded": known, "warnings": warnings})
    lines = [_table(found, known, args.results), *(f"warning: {w}" for w in warnings)]
    if args.record:
        _write(args.results, {**recorded, kind: measured})
        lines.append(f"recorded in {args.results}")
    elif known is None:
        lines.append(f"nothing is recorded for {kind}; --record does that")
    return "\n".join([*lines, f"figures {args.out}"])


def kind_of(machine: Mapping[str, Any], threads: int) -> str:
    """Processors that ratios may be compared across."""
    instructions = " ".join(machine["instructions"]) or machine["system"]
    return f"{instructions}, {threads} {'thread' if threads == 1 else 'threads'}"


def measure(bundle: Path, checkpoint: Path, threads: int) -> dict[str, dict[str, Ratio]]:
    """Each graph's times as fast as torch, by shape.

    Raises:
        EngineError: outputs are not finite, or differ from torch's: that is no matter of time.
        BundleError, CheckpointError, OptionError: see `enter`.
    """
    opened = open_bundle(bundle)
    texts = read_texts(DATA / "dev.csv")[0][:IN_A_ROW]
    with ExitStack() as stack:
        entrants, _ = enter(opened, checkpoint, threads, texts, stack)
        checked = check(entrants, texts, own_ids="vocabulary" in opened.manifest.reduced)
        for name, reason in checked.failed.items():
            raise EngineError(f"{name}: {reason}")
        words = opened.manifest.backbone.vocabulary
        shapes = fixed(checked.sound, EFFORT, words, lambda entrant, batch, tokens: None)
    found: dict[str, dict[str, Ratio]] = {}
    for rounds in shapes:
        for pair in rounds.pairs:
            if pair.to == TORCH:
                noise = rounds.noise.spread if rounds.noise else 0.0
                ratio = Ratio(pair.times_as_fast.value, noise)
                found.setdefault(pair.contender, {})[f"{rounds.batch}x{rounds.tokens}"] = ratio
    return found


def judge(recorded: Ratios, found: Ratios) -> list[str]:
    """A sentence for each ratio that is lower than the recorded one by more than both noises."""
    warnings = []
    for graph, shapes in found.items():
        for shape, now in shapes.items():
            then = recorded.get(graph, {}).get(shape)
            if then is None:
                continue
            noise = math.hypot(then.noise, now.noise, BETWEEN_RUNS)
            if now.times_as_fast < then.times_as_fast * (1 - noise):
                warnings.append(
                    f"{graph} at {shape} is {now.times_as_fast:.2f} times as fast as torch, and "
                    f"{then.times_as_fast:.2f} was recorded; noise explains a loss of "
                    f"{noise:.0%}: measure again with nothing else running"
                )
    return warnings


def _table(found: Ratios, known: Mapping[str, Any] | None, file: Path) -> str:
    recorded = _ratios(known, file) if known is not None else {}
    rows = []
    for graph, shapes in found.items():
        for shape, now in shapes.items():
            then = recorded.get(graph, {}).get(shape)
            rows.append(
                [graph, shape, f"{now.times_as_fast:.2f}x", f"±{100 * now.noise:.0f} %",
                 "" if then is None else f"{then.times_as_fast:.2f}x"]
            )  # fmt: skip
    return text_table(["graph", "shape", "to torch fp32", "noise", "recorded"], rows)


def _recorded(file: Path) -> dict[str, Any]:
    """By kind of processor, what was measured; nothing if there is no file.

    Raises:
        DataError: it is no such file.
    """
    if not file.exists():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; record anew after removing it") from None
    if not isinstance(data, dict):
        raise DataError(f"{file} is {type(data).__name__}, expected ratios by kind of processor")
    return data


def _ratios(record: Any, file: Path) -> dict[str, dict[str, Ratio]]:
    try:
        return {
            graph: {shape: Ratio(float(r["times_as_fast"]), float(r["noise"]))
                    for shape, r in shapes.items()}
            for graph, shapes in record["ratios"].items()
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{file} has a record without ratios; expected times_as_fast and noise by graph and "
            "shape: record it anew"
        ) from None


def _write(file: Path, data: object) -> None:
    write_text(file, json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    take_any_text()
    main()
