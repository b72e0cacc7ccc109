"""The GPU's figures as tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtl_edge.benchmarks.gpu.ways import OURS
from mtl_edge.table import markdown_table
from mtl_edge.training.drawing import without_formulas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COMMAND", "NOT_MEASURED", "Table", "card_table", "draw", "failures", "markdown",
           "scores_table", "times_table"]  # fmt: skip

Figures = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
COMMAND = "python -m mtl_edge.benchmarks.gpu"
NOT_MEASURED = f"""\
Not measured here: this machine has no GPU with CUDA. On one that has, with a build of torch for
CUDA and, for ONNX Runtime there, the package onnxruntime-gpu,

```
mtl-edge export checkpoint --out bundle --targets onnx-int8,onnx-fp16,onnx-fp32
{COMMAND} bundle --checkpoint checkpoint --out benchmarks/results/gpu
```

writes this table, a picture and all figures as JSON.
"""


def times_table(figures: Figures) -> Table:
    """Each shape and way: on the device, and from the host to the host."""
    header = ["batch x tokens", "by", "ms", "p10-p90", "host to host, ms", "p10-p90", "texts/s",
              "TOPS", "of the roofline"]  # fmt: skip
    rows = []
    for shape, ways in figures["shapes"].items():
        for name, found in ways.items():
            if "failed" not in found:
                rows.append([
                    shape, name, *_spread(found["ms"]), *_spread(found["whole_ms"]),
                    f"{found['texts_per_second']:,.0f}", f"{found['tops']:.2f}",
                    f"{found['reached']:.2f}",
                ])  # fmt: skip
    return header, rows


def _spread(time: Figures | None) -> list[str]:
    if time is None:
        return ["", ""]
    return [f"{time['median']:.3f}", f"{time['p10']:.3f}-{time['p90']:.3f}"]


def card_table(figures: Figures) -> Table:
    """What the card can do."""
    limits = figures["limits"]
    rows = [[f"{name} products", f"{tops:.2f} TOPS"] for name, tops in limits["tops"].items()]
    rows.append(["triad in its memory", f"{limits['triad_gb_s']:.0f} GB/s"])
    rows += [[f"reads of {r['bytes'] / 2**20:g} MiB", f"{r['gb_s']:.0f} GB/s"]
             for r in limits["reads"]]  # fmt: skip
    return ["what", "at most"], rows


def scores_table(figures: Figures) -> Table:
    """Accuracy of each precision, and agreement with torch fp32."""
    scores = figures["scores"]
    header = ["by"]
    for task in scores:
        header += [f"{task} %", "agrees %"]
    names = dict.fromkeys(name for found in scores.values() for name in found["ways"])
    rows = []
    for name in names:
        row = [name]
        for found in scores.values():
            score = found["ways"][name]
            kept = "error" not in score
            row += [
                f"{100 * score[n]:.1f}" if kept else "failed" for n in ("accuracy", "agreement")
            ]
        rows.append(row)
    return header, rows


def failures(figures: Figures) -> list[str]:
    """Ways that were not timed, each with its first reason."""
    reasons: dict[str, str] = {}
    for shape, ways in figures["shapes"].items():
        for name, found in ways.items():
            if "failed" in found:
                reasons.setdefault(name, f"{name} at {shape}: {found['failed']}")
    return list(reasons.values())


def device_of(figures: Figures) -> str:
    """The card and its driver on a line."""
    device, versions = figures["device"], figures["machine"]["versions"]
    parts = [device["name"]]
    for key, title in (("driver_version", "driver"), ("cuda", "CUDA"), ("power.limit", "")):
        if device.get(key):
            parts.append(f"{title} {device[key]}".strip())
    parts += [f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions]
    return ", ".join(parts)


def markdown(figures: Figures) -> str:
    """All tables, with the command and the card."""
    rows = ", ".join(f"{task} on {f['rows']} rows" for task, f in figures["scores"].items())
    parts = [
        f"`{figures['command']}`, {figures['date']}: {device_of(figures)}.",
        markdown_table(*times_table(figures)),
        "*ms*: medians of alternating rounds by the device's own events, ids and logits on the "
        "device; *host to host* by the host's clock, copies included; engines have that alone. *Of "
        "the roofline*: the least time for the operations or the bytes, whichever is more, at the "
        "rates below and in the precision that is computed in, to the time (the first where there "
        "is one). Logits were compared with torch fp32 before, with and without padding.",
        markdown_table(*card_table(figures)),
    ]
    if figures["scores"]:
        parts += [f"{markdown_table(*scores_table(figures))}\n\nAccuracy: {rows}; agrees: with "
                  "torch fp32."]  # fmt: skip
    if reasons := failures(figures):
        parts.append("Not timed:\n\n" + "\n".join(f"- {reason}" for reason in reasons))
    return "\n\n".join(parts) + "\n"


def draw(figures: Figures) -> Figure:
    """Texts a second by batch at the length that most shapes have, and the times of all others."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shapes = {tuple(map(int, name.split("x"))): ways for name, ways in figures["shapes"].items()}
    lengths = [tokens for _, tokens in shapes]
    common = max(dict.fromkeys(lengths), key=lengths.count)
    names = dict.fromkeys(name for ways in shapes.values() for name in ways)
    figure = Figure(figsize=(13, 5.2))
    speed, times = figure.subplots(1, 2)
    colors = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, name in enumerate(names):
        points = [
            (batch, ways[name]) for (batch, tokens), ways in sorted(shapes.items())
            if tokens == common and "failed" not in ways.get(name, {"failed": ""})
        ]  # fmt: skip
        if not points:
            continue
        style = {
            "color": colors[number % len(colors)],
            "markersize": 3.5,
            "linewidth": 2.2 if name.startswith(OURS) else 1.2,
        }
        x = [batch for batch, _ in points]
        line = "--" if points[0][1]["ms"] is None else "-"
        speed.plot(x, [f["texts_per_second"] for _, f in points], f"o{line}", label=name, **style)
        measured = [f["ms"] or f["whole_ms"] for _, f in points]
        times.plot(x, [t["median"] for t in measured], f"o{line}", **style)
        low, high = ([t[q] for t in measured] for q in ("p10", "p90"))
        times.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)
    for axis, title, unit in (
        (speed, "host to host", "texts a second"),
        (times, "on the device (dashed: host to host)", "ms (median, p10-p90)"),
    ):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        without_formulas(axis.xaxis, 2)
        without_formulas(axis.yaxis)
        axis.set_title(f"{common} tokens, {title}", fontsize=10, loc="left")
        axis.set_xlabel("batch", fontsize=9)
        axis.set_ylabel(unit, fontsize=9)
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = speed.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="center right")
    figure.suptitle(device_of(figures), fontsize=11, x=0.01, ha="left")
    figure.tight_layout(rect=(0, 0, 0.8, 1))
    return figure
