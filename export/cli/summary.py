"""The tables that `mtl-edge export` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.bundle import Manifest, Task
from mtl_edge.engines import ENGINES
from mtl_edge.export.early_exit.exit_proof import promised
from mtl_edge.export.int8.explain import QuantizationNoise, worst
from mtl_edge.export.targets import DEFAULT, TARGETS
from mtl_edge.table import text_table
from mtl_edge.training.kinds import shown

__all__ = ["compared_columns", "compared_header", "noise_table", "summary", "targets_table"]


def targets_table() -> str:
    """All that can be exported to."""
    rows = [
        [
            name,
            t.files[0],
            t.precision,
            ENGINES[t.engine].install,
            t.size,
            "yes" if name in DEFAULT else "",
            t.use,
        ]
        for name, t in TARGETS.items()
    ]
    header = ["target", "file", "precision", "to run", "bytes a weight", "default", "for"]
    return text_table(header, rows)


def noise_table(noises: Sequence[QuantizationNoise]) -> str:
    """Each product's noise in int8, the noisiest marked."""
    known = all(noise.own is not None for noise in noises)
    ranks = {output: rank for rank, output in enumerate(worst(noises, len(noises)), 1)}
    rows = [
        [
            noise.layer,
            " x ".join(map(str, noise.shape)),
            *([] if noise.own is None else [f"{noise.own:.1f}"]),
            f"{noise.total:.1f}",
            *([str(ranks[noise.output])] if known else []),
        ]
        for noise in noises
    ]
    own, rank = (["own dB"], ["noise rank"]) if known else ([], [])
    return text_table(["product", "weights", *own, "total dB", *rank], rows)


def summary(manifest: Manifest) -> str:
    """A bundle's graphs beside the torch model, and what its early exits promise."""
    rows = []
    for task in manifest.tasks:
        found = manifest.evaluation[task.name]
        where = f"{found['split']} ({found['rows']})"
        rows.append([task.name, where, "fp32 (torch)", shown(task, found["fp32"]), *[""] * 4])
        for graph in manifest.graphs:
            score = found["graphs"][graph.target]
            if "before_refit" in score:
                name = f"{graph.target} before --refit"
                rows.append([task.name, where, name, *_scores(task, score["before_refit"])])
            rows.append([task.name, where, graph.target, *_scores(task, score)])
    header = ["task", "measured on", "graph", "figures", "agrees", "largest change"]
    table = text_table([*header, "rows lost / won", "paired p"], rows)
    if manifest.exits:
        table = f"{table}\n\n{_exits_table(manifest)}"
    if manifest.domain is not None:
        table = f"{table}\n\n{_domain_table(manifest)}"
    return "\n".join([table, *_accounts(manifest)])


def _scores(task: Task, score: Mapping[str, Any]) -> list[str]:
    return [
        shown(task, score),
        f"{score['agreement']:.1%}",
        f"{score['max_probability_change']:.3f}",
        f"{score['rows_lost']} / {score['rows_won']} of {score['compared_on']}",
        f"{score['paired_p']:.2g}",
    ]


def _accounts(manifest: Manifest) -> list[str]:
    """What was left out on request."""
    found = manifest.reduced.get("vocabulary")
    if found is None:
        return []
    share = found.get("share_of_held_out_tokens_kept")
    return [
        f"\nvocabulary of int8 graphs: {found['tokens_kept']:,} of {found['tokens']:,} tokens keep "
        "their embeddings"
        + ("" if share is None else f", {share:.2%} of the tokens in the rows set aside")
        + "; texts of these alone are answered as before, any other token reads as unknown"
    ]


def _domain_table(manifest: Manifest) -> str:
    """What each graph calls foreign of each task's own rows, and whether torch says the same."""
    assert manifest.domain is not None
    rows = [
        [
            task,
            graph.target,
            f"{found['refused']:.2%}" if "refused" in found else "",
            f"{found['agreement']:.1%}",
        ]
        for task in manifest.domain.labels
        for graph in manifest.graphs
        for found in [manifest.evaluation[task]["graphs"][graph.target]["domain"]]
    ]
    header = ["task", "graph", "own rows called foreign", "agrees on all rows"]
    return text_table(header, rows)


def _exits_table(manifest: Manifest) -> str:
    """What early exits promise, and how each graph did on the rows that training reported on."""
    drop, confidence = promised(manifest)
    depths = [stage.depth for stage in manifest.exits]
    first = manifest.exits[0]
    rows = [
        [
            task.name,
            _threshold(first.thresholds[task.name]),
            *(f"{stage.promise['exit_rate'][task.name]:.0%}" for stage in manifest.exits),
            f"{100 * first.promise['measured_drop'][task.name]:.2f} of "
            f"{first.promise['rows'][task.name]}",
        ]
        for task in manifest.tasks
    ]
    header = ["task", "threshold", *(f"leaves at depth {d}" for d in depths), "points lost of rows"]
    measured = [
        [task.name, graph.target, *compared_columns(found, depths)]
        for task in manifest.tasks
        for graph in manifest.graphs
        for found in [manifest.evaluation[task.name]["graphs"][graph.target]["exits"]]
    ]
    return "\n\n".join(
        [
            f"stages: at most {100 * drop:g} points below full depth, with {confidence:.0%} "
            "confidence, each task asked by itself; fitted out of fold:",
            text_table(header, rows),
            "measured on the rows of the table above:",
            text_table(["task", "graph", *compared_header(depths)], measured),
        ]
    )


def _threshold(value: float) -> str:
    return "never" if value > 1 else f"{value:.3f}"


def compared_header(depths: Sequence[int]) -> list[str]:
    """Header of `compared_columns`."""
    leaves = [f"leaves at depth {depth}" for depth in depths]
    return ["rows", *leaves, "full depth", "with stages", "agrees", "lost / won", "points lost"]


def compared_columns(found: Mapping[str, Any], depths: Sequence[int]) -> list[str]:
    """What `mtl_edge.export.early_exit.exit_proof.compare` found, early exits beside full depth."""
    return [
        str(found["rows"]),
        *(f"{found['exit_rate'][str(depth)]:.0%}" for depth in depths),
        f"{found['full_accuracy']:.1%}",
        f"{found['accuracy']:.1%}",
        f"{found['agreement']:.1%}",
        f"{found['rows_lost']} / {found['rows_won']}",
        f"{100 * found['drop']:.2f}",
    ]
