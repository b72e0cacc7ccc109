"""The limits and what is reached of them, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_edge.benchmarks.machine import processor_of
from mtl_edge.table import markdown_table

__all__ = ["Table", "markdown", "profile_table", "rates_table", "reached_table", "reads_table"]

Table = tuple[list[str], list[list[str]]]
Figures = Mapping[str, Any]
PACKAGES = ("onnxruntime", "openvino")  # that figures depend on
MIB = 2**20
MOST_KINDS = 8  # of operators that a row names


def rates_table(limits: Figures) -> Table:
    """Tera-operations a second, each kind of product at each shape."""
    kinds = dict.fromkeys((rate["precision"], rate["by"]) for rate in limits["rates"])
    shapes = dict.fromkeys(tuple(rate["shape"]) for rate in limits["rates"])
    tops = {(r["precision"], r["by"], tuple(r["shape"])): r["tops"] for r in limits["rates"]}
    rows = []
    for precision, by in kinds:
        found = [tops.get((precision, by, shape)) for shape in shapes]
        best = "yes" if max(filter(None, found)) == limits[f"{precision}_tops"] else ""
        cells = ["" if value is None else f"{value:.2f}" for value in found]
        rows.append([precision, by, *cells, best])
    header = ["TOPS", "by", *("x".join(map(str, shape)) for shape in shapes), "the limit"]
    return header, rows


def reads_table(limits: Figures) -> Table:
    """Gigabytes a second by how much is read over and over."""
    reads = [[f"{r['bytes'] / MIB:g}", f"{r['gb_s']:.1f}"] for r in limits["reads"]]
    return ["MiB read", "GB/s"], reads


def reached_table(bundles: Figures) -> Table:
    """Each shape's floor and each graph's time against it."""
    header = ["bundle", "batch x tokens", "graph", "floor, ms", "of", "ms", "p10-p90",
              "floor to ms", "at best", "to products beside"]  # fmt: skip
    rows = []
    for bundle, shapes in bundles.items():
        for shape, graphs in shapes.items():
            for graph, found in graphs.items():
                floor, time = found["floor"], found["ms"]
                middle, low, high = found["to_products_beside"]
                rows.append([
                    bundle, shape, graph, f"{floor['ms']:.2f}", floor["bound"],
                    f"{time['median']:.2f}", f"{time['p10']:.2f}-{time['p90']:.2f}",
                    f"{found['reached']:.2f}", f"{found['reached_at_best']:.2f}",
                    f"{middle:.2f} ({low:.2f}-{high:.2f})",
                ])  # fmt: skip
    return header, rows


def profile_table(profiles: Figures) -> Table:
    """What a pass spends its time on."""
    rows = []
    for bundle, shapes in profiles.items():
        for shape, graphs in shapes.items():
            for graph, found in graphs.items():
                whole = sum(found["ms"].values())
                kinds = list(found["ms"].items())[:MOST_KINDS]
                named = ", ".join(f"{kind} {100 * ms / whole:.0f} %" for kind, ms in kinds)
                share = f"{100 * found['products']:.0f}"
                rows.append([bundle, shape, graph, f"{whole:.2f}", share, named])
    return ["bundle", "batch x tokens", "graph", "ms", "products %", "of the time"], rows


def notes(figures: Figures) -> str:
    """What a reader of the second table has to know."""
    return (
        "*Floor*: see above; *of*: whether operations or bytes make it. *ms*: medians of "
        "alternating rounds; *at best*: the floor to the fastest pass. *To products beside*: the "
        "operations a second of the pass to those of the fastest products of its precision, timed "
        "in the same rounds (quartiles), which is what a busy machine leaves comparable. "
        f"Load before: {figures['load_before']:.1f} on {figures['machine']['cores']} cores."
    )


def markdown(figures: Figures) -> str:
    """All of it, with the command and the machine."""
    machine, limits = figures["machine"], figures["limits"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in PACKAGES
                         if name in machine["versions"])  # fmt: skip
    parts = [
        f"`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{limits['threads']} threads; {versions}.",
        f"Best of alternating rounds, by rows x narrow x wide:\n\n"
        f"{markdown_table(*rates_table(limits))}",
        f"Triad in main memory: {limits['triad_gb_s']:.1f} GB/s. Reads, by how much is read over "
        f"and over:\n\n{_across(reads_table(limits))}",
    ]
    if figures["bundles"]:
        parts += [markdown_table(*reached_table(figures["bundles"])), notes(figures)]
    if figures["profiles"]:
        parts += [
            "Where the time goes by the engines' own clocks, which take time themselves:\n\n"
            + markdown_table(*profile_table(figures["profiles"]))
        ]
    return "\n\n".join(parts) + "\n"


def _across(table: Table) -> str:
    """A long table of two columns as one of two rows."""
    header, rows = table
    first, *others = zip(header, *rows, strict=True)
    return markdown_table(first, others)
