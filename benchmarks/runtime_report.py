"""The runtime's figures as tables and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.benchmarks.cold_start import PARTS
from mtl_edge.benchmarks.machine import processor_of
from mtl_edge.table import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "markdown"]

Figures = Mapping[str, Any]
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
OVERHEAD_US, OVERHEAD_PERCENT = 40, 8
LIKE_LENGTH, COLD_MS, MEMORY_MB, TIMES = 1.5, 400, 120, 1.8


def markdown(figures: Figures) -> str:
    """All tables, with the command and the machine."""
    names = list(figures["bundle"]["graphs"])
    machine, texts = figures["machine"], figures["texts"]
    header = ["", *(TITLES[name] for name in names), "goal"]
    kinds = {
        f"One text at a time ({texts['count']:,} texts in random order, median "
        f"{texts['median_tokens']} tokens, most {texts['most_tokens']})": _single,
        "All texts in one call": _many,
        "Memory": _memory,
    }
    tables = "\n\n".join(
        f"{title}:\n\n{markdown_table(header, kind(figures, names))}"
        for title, kind in kinds.items()
    )
    return (
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{figures['threads']} threads; "
        f"{_versions(machine['versions'])}.\n\n{tables}\n\n"
        "*Bare*: the tokenizers library's call and the engine's own call on arrays that are ready, "
        "one after the other; in the second table, batches of 32 in the order of arrival, each "
        "padded to its longest text, tokenization included. *Overhead*: the median over pairs of "
        "one text. Everything in alternating rounds.\n\n"
        f"Cold start, ms from the start of a process to its first answer:\n\n{_starts(figures)}\n\n"
        f"What it costs an app:\n\n{markdown_table(header[:-1], _guest(figures, names))}\n"
    )


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in ("onnxruntime", "openvino", "numpy")
                     if name in found)  # fmt: skip


def _rows(
    names: Sequence[str], rows: Mapping[tuple[str, str], Callable[[str], str]]
) -> list[list[str]]:
    """Rows from `(what, goal)` and a cell for each engine."""
    return [[what, *map(cell, names), goal] for (what, goal), cell in rows.items()]


def _single(figures: Figures, names: Sequence[str]) -> list[list[str]]:
    single = figures["single"]

    def times(name: str) -> str:
        found = single[name]
        return f"{found['median']:.2f} / {found['p90']:.2f} / {found['p99']:.2f}"

    def overhead(name: str) -> str:
        found = single[name]["overhead"]
        return f"{found['us']:.0f} µs, {found['percent']:.1f} %"

    def tail(name: str, key: str) -> str:
        return f"{single[name][key]:.2f} ({single[f'{name}, bare'][key]:.2f})"

    like = "p99_to_median_of_like_length"
    return _rows(
        names,
        {
            ("predict, ms p50 / p90 / p99", ""): times,
            ("bare, ms p50 / p90 / p99", ""): lambda name: times(f"{name}, bare"),
            ("overhead", f"{OVERHEAD_PERCENT} %, or {OVERHEAD_US} µs if more"): overhead,
            ("p99 to p50 (bare)", ""): lambda name: tail(name, "p99_to_median"),
            ("the same among texts of like length (bare)", str(LIKE_LENGTH)): lambda name: tail(
                name, like
            ),
        },
    )


def _many(figures: Figures, names: Sequence[str]) -> list[list[str]]:
    many = figures["many"]

    def ratio(name: str) -> str:
        middle, low, high = many[name]["times_as_fast"]
        return f"{middle:.2f} ({low:.2f}-{high:.2f})"

    def limit(name: str) -> str:
        found = many[name]
        if found["tops"] is None:
            return ""
        return f"{found['tops']:.2f} TOPS, {100 * found['share_of_limit']:.0f} %"

    return _rows(
        names,
        {
            ("texts a second", ""): lambda name: f"{many[name]['texts_per_second']:,.0f}",
            (
                "bare, texts a second",
                "",
            ): lambda name: f"{many[f'{name}, bare']['texts_per_second']:,.0f}",
            ("times as fast (quartiles of rounds)", str(TIMES)): ratio,
            ("tokens a second", ""): lambda name: f"{many[name]['tokens_per_second']:,.0f}",
            (
                "padding included",
                "",
            ): lambda name: f"{many[name]['padded_tokens_per_second']:,.0f}",
            (f"of the machine's {figures['int8_tops']:.2f} int8 TOPS", ""): limit,
        },
    )


def _memory(figures: Figures, names: Sequence[str]) -> list[list[str]]:
    sizes, memory = figures["bundle"]["graphs"], figures["memory"]

    def megabytes(stage: str, which: str) -> Callable[[str], str]:
        def cell(name: str) -> str:
            found = memory[name][stage][which]
            return "" if found is None else f"{found:.0f}"

        return cell

    whole = figures["bundle"]["megabytes"]
    return _rows(
        names,
        {
            (
                f"bundle, MB: what this engine needs (of {whole:.0f})",
                "",
            ): lambda name: f"{sizes[name]['megabytes']:.0f}",
            ("resident, MB: all imported", ""): megabytes("imported", "now"),
            ("after load and an answer", ""): megabytes("loaded", "now"),
            ("after 200 texts and 1,000 in one call", ""): megabytes("used", "now"),
            ("at most", f"bundle + {MEMORY_MB}"): megabytes("used", "peak"),
        },
    )


def _starts(figures: Figures) -> str:
    found = figures["cold_start"]
    titles = {
        **TITLES,
        "without fixed shapes": "OpenVINO, fixed_tokens=0",
        "auto": f"auto, measured before ({TITLES[found['auto']['engine']]})",
    }
    rows = [
        [
            titles[name],
            f"{start['whole_ms']:.0f}",
            f"{start['p10']:.0f}-{start['p90']:.0f}",
            *(_part(start["parts_ms"], part) for part in PARTS),
        ]
        for name, start in found.items()
    ]
    processes = next(iter(found.values()))["processes"]
    header = ["engine", "whole", "p10-p90", *PARTS]
    return (
        f"{markdown_table(header, rows)}\n\nMedians of {processes} processes, files in the "
        f"system's cache; the goal is {COLD_MS} ms for MiniLM on ONNX Runtime."
    )


def _part(parts: Mapping[str, float], part: str) -> str:
    return f"{parts[part]:.1f}" if part in parts else ""


def _guest(figures: Figures, names: Sequence[str]) -> list[list[str]]:
    guest, single = figures["guest"], figures["single"]

    def threads(name: str) -> str:
        found = guest[name]["threads"]
        equal = "equal to the bit" if found["bit_equal"] else "answers differ"
        return (
            f"{found['texts_per_second_of_many']:.0f} against "
            f"{found['texts_per_second_of_one']:.0f}, {equal}"
        )

    def spin(way: str) -> Callable[[str], str]:
        def cell(name: str) -> str:
            if guest[name]["spin"] is None:
                return "-"
            found = guest[name]["spin"][way]
            return (
                f"{found['ms']:.2f} / {found['ms_with_pauses']:.2f} / "
                f"{found['cpu_seconds_per_1000']:.1f}"
            )

        return cell

    def two(name: str) -> str:
        found = guest[name]["two_bundles"]
        return f"{found['ms_of_two']:.2f} against {found['ms_of_one']:.2f}"

    def fixed(name: str) -> str:
        other = "without fixed shapes"
        if name != "openvino":
            return "-"
        ms = [single[key]["median"] for key in (name, other)]
        start = [figures["cold_start"][key]["parts_ms"]["load"] for key in (name, other)]
        peak = [figures["memory"][key]["used"]["now"] for key in (name, other)]
        memory = "" if None in peak else f", {peak[1]:.0f} MB against {peak[0]:.0f}"
        return (
            f"{ms[1]:.2f} ms a text against {ms[0]:.2f}, load {start[1]:.0f} ms against "
            f"{start[0]:.0f}{memory}"
        )

    pauses = "ms a text / with pauses of 5 ms / processor seconds of 1,000 such"
    many = f"{guest[names[0]]['threads']['threads']} threads against one, texts a second"
    rows = {
        (many, ""): threads,
        ("two classifiers in turn against one, ms a text", ""): two,
        **{(f'spin="{way}": {pauses}', ""): spin(way) for way in ("call", "never", "always")},
        ("fixed_tokens=0 against the default", ""): fixed,
    }
    return [row[:-1] for row in _rows(names, rows)]


def draw(figures: Figures) -> Figure:
    """Latency by share of texts, and the cold start's parts."""
    from matplotlib.figure import Figure

    names = list(figures["bundle"]["graphs"])
    figure = Figure(figsize=(4 * len(names) + 5.5, 3.6))
    axes = figure.subplots(1, len(names) + 1, width_ratios=[1] * len(names) + [1.5])
    most = max(figures["single"][name]["hundredths"][99] for name in names) * 1.05
    for axis, name in zip(axes, names, strict=False):
        for key, color, label in (
            (f"{name}, bare", "#8fa3b3", "tokenizer + engine, bare"),
            (name, "#c0562b", "predict"),
        ):
            axis.plot(
                figures["single"][key]["hundredths"], np.arange(101), color=color, label=label
            )
        found = figures["single"][name]["overhead"]
        axis.set_title(
            f"{TITLES[name]}: {found['us']:+.0f} µs ({found['percent']:+.1f} %)",
            fontsize=10, loc="left",
        )  # fmt: skip
        axis.set(xlim=(0, most), ylim=(0, 100))
        axis.set_xlabel("ms for one text", fontsize=8)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    axes[0].set_ylabel("% of texts answered within", fontsize=8)
    _draw_starts(figures, axes[-1])
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _draw_starts(figures: Figures, axis: Any) -> None:
    from matplotlib import colormaps

    found = {name: start for name, start in figures["cold_start"].items() if name in TITLES}
    colors = colormaps["tab20c"]([0, 1, 2, 8, 9, 4, 5, 6])
    labels = [TITLES[name].replace(" ", "\n") for name in found]
    left = np.zeros(len(found))
    for part, color in zip(PARTS, colors, strict=True):
        widths = np.array([start["parts_ms"].get(part, 0.0) for start in found.values()])
        axis.barh(labels, widths, left=left, height=0.5, color=color, label=part)
        left += widths
    for y, start in enumerate(found.values()):
        axis.annotate(
            f"{start['whole_ms']:.0f} ms", (left[y], y), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axis.set_xlim(0, left.max() * 1.15)
    axis.invert_yaxis()
    axis.set_title("From process start to first answer", fontsize=10, loc="left")
    axis.set_xlabel("ms", fontsize=8)
    axis.legend(fontsize=7, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
