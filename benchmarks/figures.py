"""By shape: one int8 graph against torch fp32, and one graph against one per task.

    python -m mtl_edge.benchmarks.figures [--out benchmarks/results]

Trains two heads on the demo data, exports them together and each alone, checks that the graphs
answer alike, and times everything in alternating rounds of one run, on the same token ids with the
same number of threads. Writes a JSON file, a Markdown table and a picture. About fifteen minutes on
two cores.

`torch, a model per task` is the encoder run once per task, as one pipeline per task does it; the
other `a model per task` rows run the graphs that were exported with a single head.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks import random_backbone
from mtl_edge.benchmarks.contenders import Contender, from_bundle, from_checkpoint
from mtl_edge.benchmarks.demo_tasks import demo_tasks
from mtl_edge.benchmarks.limits.rates import matrix_rates
from mtl_edge.benchmarks.machine import describe, processor_of
from mtl_edge.bundle import open_bundle
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines.cores import default_threads
from mtl_edge.export.build import export
from mtl_edge.export.targets import DEFAULT
from mtl_edge.table import markdown_table
from mtl_edge.timing import Timing, alternate
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.drawing import drawn
from mtl_edge.training.progress import Progress
from mtl_edge.training.run import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = ((1, 16), (1, 32), (1, 128), (8, 32), (32, 32), (32, 128))
MAIN = ("1x32", "32x32")  # what the first table and the picture show
ROUNDS = 60
SECONDS = 40.0  # of a shape
Run = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--threads", type=int, default=default_threads())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        distilbert = Path(work) / "distilbert"
        random_backbone.write(distilbert)
        results = {
            "MiniLM": _measure("minilm", Path(work) / "minilm", args.threads),
            "DistilBERT (random weights)": _measure(
                str(distilbert), Path(work) / "distilbert-bundles", args.threads
            ),
        }
    figures = {
        "command": "python -m mtl_edge.benchmarks.figures",
        "date": date.today().isoformat(),
        "machine": describe(),
        "threads": args.threads,
        "matrix_tops": matrix_rates(args.threads),
        "backbones": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    table = markdown(figures)
    (args.out / "figures.md").write_text(table, encoding="utf-8")
    drawn(args.out / "figures.png", _draw, figures)
    print(table)


def _measure(name: str, work: Path, threads: int) -> dict[str, Any]:
    """Latency of every way to answer both tasks, and how the int8 graphs answer."""
    backbone = load_backbone(name)
    whole = train(demo_tasks(), backbone)
    export(whole, work / "whole")
    together = {c.name: c for c in from_bundle(open_bundle(work / "whole"), threads)}
    apart: dict[str, list[Contender]] = {target: [] for target in DEFAULT}
    for task in whole.tasks:
        export(_only(whole, task.name), work / task.name)
        for contender in from_bundle(open_bundle(work / task.name), threads):
            apart[contender.name].append(contender)
    torch_together = from_checkpoint(whole, threads)
    torch_apart = [from_checkpoint(_only(whole, task.name), threads) for task in whole.tasks]
    runs: dict[str, Run] = {
        "torch fp32, a model per task": _in_turn(torch_apart),
        "torch fp32, one model": torch_together.run,
    }
    for target in DEFAULT:
        runs[f"{target}, a model per task"] = _in_turn(apart[target])
        runs[f"{target}, one graph"] = together[target].run
    return {
        "faithful": _faithful(whole, torch_together, together),
        "latency_ms": {f"{b}x{t}": _time(name, runs, (b, t)) for b, t in SHAPES},
    }


def _only(checkpoint: Checkpoint, task: str) -> Checkpoint:
    return replace(
        checkpoint,
        tasks=tuple(t for t in checkpoint.tasks if t.name == task),
        heads={task: checkpoint.heads[task]},
    )


def _in_turn(contenders: Sequence[Contender]) -> Run:
    return lambda ids, mask: [contender.run(ids, mask) for contender in contenders]


def _faithful(
    checkpoint: Checkpoint, reference: Contender, graphs: Mapping[str, Contender]
) -> dict[str, dict[str, float]]:
    """Accuracy of torch and of each graph on the held-out rows, and the graphs' agreement."""
    samples = [s for s in checkpoint.samples if s.split == "dev"]
    ids = checkpoint.backbone.text_encoder(128)([s.text for s in samples])
    expected = in_batches(reference.run, ids)
    result: dict[str, dict[str, float]] = {}
    for name, contender in {"torch fp32": reference, **graphs}.items():
        logits = in_batches(contender.run, ids)
        result[name] = {}
        for task in checkpoint.tasks:
            rows = np.array([s.task == task.name for s in samples])
            labels = np.array([task.labels.index(s.label) for s in samples if s.task == task.name])
            answers = logits[task.name].argmax(1)[rows]
            same = answers == expected[task.name].argmax(1)[rows]
            result[name][f"{task.name} accuracy"] = float((answers == labels).mean())
            result[name][f"{task.name} agreement"] = float(same.mean())
    return result


def _time(name: str, runs: Mapping[str, Run], shape: tuple[int, int]) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(0, 30522, shape)
    mask = np.ones_like(ids)
    with Progress(f"timing {name} {shape[0]}x{shape[1]}", total=ROUNDS, unit="rounds") as progress:
        times = alternate(
            {key: lambda run=run: run(ids, mask) for key, run in runs.items()},  # type: ignore[misc]
            rounds=ROUNDS,
            seconds=SECONDS,
            between=progress.update,
        )
    return {key: _figures(time, times) for key, time in times.items()}


def _figures(time: Timing, times: Mapping[str, Timing]) -> dict[str, Any]:
    return {
        **time.to_json(),
        "times_as_fast_as_torch_one_model": time.ratio_of(times["torch fp32, one model"]),
        "times_as_fast_as_torch_a_model_per_task": time.ratio_of(
            times["torch fp32, a model per task"]
        ),
    }


def markdown(figures: Mapping[str, Any]) -> str:
    """The tables that show what was measured."""
    rows = []
    for backbone, result in figures["backbones"].items():
        for name in result["latency_ms"][MAIN[0]]:
            row = [backbone, name]
            for shape in MAIN:
                t = result["latency_ms"][shape][name]
                one, two = (
                    t["times_as_fast_as_torch_one_model"],
                    t["times_as_fast_as_torch_a_model_per_task"],
                )
                row += [
                    f"{t['median']:.2f} ({t['p10']:.2f}-{t['p90']:.2f})",
                    f"{one[0]:.1f}x",
                    f"{two[0]:.1f}x",
                ]
            rows.append(row)
    header = ["backbone", "both tasks by"]
    for shape in MAIN:
        header += [f"ms, {shape} (p10-p90)", "to torch, one model", "to torch, per task"]
    machine, rates = figures["machine"], figures["matrix_tops"]
    agreement = [
        [backbone, graph, *(f"{100 * score:.1f}" for score in scores.values())]
        for backbone, result in figures["backbones"].items()
        for graph, scores in result["faithful"].items()
        if backbone == "MiniLM"
    ]
    scored = next(iter(next(iter(figures["backbones"].values()))["faithful"].values()))
    return (
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads; medians of "
        "alternating rounds; *batch x tokens*.\n\n"
        f"{markdown_table(header, rows)}\n\n"
        "All shapes, milliseconds of one graph (how many times as fast as torch fp32, one model):"
        f"\n\n{_all_shapes(figures)}\n\n"
        f"How far int8 beats fp32 depends on the CPU: this one multiplies int8 matrices at "
        f"{rates['int8']:.2f} TOPS and fp32 ones at {rates['fp32']:.2f} "
        f"(`python -m mtl_edge.benchmarks.limits`), {rates['int8'] / rates['fp32']:.1f} times as "
        "fast; a Zen 5 core manages 9 times.\n\n"
        "The same graphs on the demo's held-out rows, in percent (accuracy, and agreement with "
        "torch; random weights have none worth printing):\n\n"
        f"{markdown_table(['backbone', 'model', *scored], agreement)}\n"
    )


def _all_shapes(figures: Mapping[str, Any]) -> str:
    rows = []
    for backbone, result in figures["backbones"].items():
        names = [name for name in result["latency_ms"][MAIN[0]] if "per task" not in name]
        for name in names:
            row = [backbone, name.removesuffix(", one graph").removesuffix(", one model")]
            for times in result["latency_ms"].values():
                ratio = times[name]["times_as_fast_as_torch_one_model"][0]
                row.append(f"{times[name]['median']:.2f} ({ratio:.1f}x)")
            rows.append(row)
        row = [backbone, "onnx-int8 to openvino-int8"]
        for times in result["latency_ms"].values():
            one, other = (times[f"{target}, one graph"]["median"] for target in DEFAULT)
            row.append(f"{one / other:.2f}")
        rows.append(row)
    shapes = list(next(iter(figures["backbones"].values()))["latency_ms"])
    return markdown_table(["backbone", "graph", *shapes], rows)


def _draw(figures: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    backbones = figures["backbones"]
    figure = Figure(figsize=(11, 2.9 * len(backbones)))
    axes = figure.subplots(len(backbones), len(MAIN), squeeze=False)
    for row, (backbone, result) in zip(axes, backbones.items(), strict=True):
        for axis, shape in zip(row, MAIN, strict=True):
            times = result["latency_ms"][shape]
            names = list(times)[::-1]
            medians = [times[n]["median"] for n in names]
            spread = [
                [times[n]["median"] - times[n]["p10"] for n in names],
                [times[n]["p90"] - times[n]["median"] for n in names],
            ]
            colors = ["#8fa3b3" if "torch" in n else "#d9b382" if "per task" in n else "#c0562b"
                      for n in names]  # fmt: skip
            axis.barh(names, medians, xerr=spread, color=colors, ecolor="#333333", capsize=2)
            for y, (name, median) in enumerate(zip(names, medians, strict=True)):
                ratio = times[name]["times_as_fast_as_torch_one_model"][0]
                axis.annotate(
                    f"{median:.1f} ms, {ratio:.1f}x",
                    (times[name]["p90"], y),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            axis.set_xlim(0, max(times[n]["p90"] for n in names) * 1.3)
            axis.set_title(f"{backbone}, {shape}", fontsize=10, loc="left")
            axis.set_xlabel("milliseconds for both tasks (median, p10-p90)", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            if axis is not row[0]:
                axis.set_yticklabels([])
    figure.suptitle(
        f"Both tasks on a small CPU, {figures['threads']} threads; x: to torch fp32, one model",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    take_any_text()
    main()
