"""The bundle's README: a model card in the Hub's format, written from what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mtl_edge.bundle import Manifest, Task
from mtl_edge.export.budget_search.frontier import FRONTIER, Frontier, table
from mtl_edge.io.labels import label_list
from mtl_edge.table import markdown_table
from mtl_edge.training.baselines import BASELINES
from mtl_edge.training.data import CROSS_VALIDATION
from mtl_edge.training.kinds import shown
from mtl_edge.training.static import WIDTH

__all__ = ["CARD", "model_card"]

CARD = "README.md"
LEARNED = ", fine-tuned ("  # in a backbone's name, behind the name of what it was before

TEMPLATE = """---
library_name: mtl-edge
pipeline_tag: text-classification
base_model: {base}
tags:
- multi-task
- int8
---

# {tasks}: a multi-task text classifier for small CPUs

{encoder} answers {count}, on texts of at most {max_tokens} tokens (longer ones are cut).

{labels}

## Use

```python
from mtl_edge import EdgeClassifier

classifier = EdgeClassifier.load("path/to/this/folder")
classifier.predict("some text")
```

## Measured

Figures of the rows set aside by training; below the fp32 model, each graph with the share of all
rows set aside on which it gives the fp32 model's answer.
{baselines}{seen}

{figures}

{exits}{domain}{frontier}## Limits

The figures hold for texts like those it was trained on. {foreign}{reduced}
The encoder's own biases are its authors' to describe: see the card of `{base}`.
"""


EXITS = """## Stages

Before full depth come stages of {layers} layers (0: a table of token vectors): a text that one is
sure enough of is answered there, the others go on. The promise: a task, asked by itself of texts
like those it was trained on, loses at most {drop} points of accuracy to full depth, with
{confidence} confidence{tried}. A text of which several tasks are asked leaves early only if all are
sure. Method: {method}; the guarantee is that of heads taught in this way, on average over the
folds, as the rows grow.

Fitted on answers out of fold:

{fitted}

Measured on the rows that training reported on:

{measured}

What a stage takes of the time of full depth, for one text of 32 tokens: {costs}. `mtl-edge export
--check-exits TASK=FILE BUNDLE` measures the promise on rows of yours.

"""


DOMAIN = """## None of these

`in_domain` is false where a text is foreign to a task, so that none of its answers applies. The
promise: of a task's own texts, such as those it was trained on, at most {share} are called foreign
by each stage, with {confidence} confidence. What foreign texts are was learned from examples: texts
of other tasks and texts that were marked as having no label. Others are found as far as they are
like these, or as the task's own logits are less certain of them than of its own texts.

{figures}

"""


BUDGET = """## Chosen to a budget

This graph was chosen by `mtl-edge export --budget "{budget}"`: of the candidates within it the most
accurate or, within half a standard error of that, the fastest. Accuracy in percent of the rows that
chose the epoch in training (how many: see the table's head), drop in points below the fp32 model at
full depth, of the task that loses most. Times through the whole runtime, tokenization included:
{texts} texts in {passes} passes, one at a time (p50, p95, p99) and in one call (texts/s), every
task asked of every text; {processor}, {cores} threads, {date}. Size: graph, tokenizer, manifest.

{candidates}

`{file}` has the same as data.

"""


def model_card(manifest: Manifest, frontier: Frontier | None = None) -> str:
    """Markdown with the Hub's metadata block.

    Args:
        frontier: that the bundle was chosen from, if it was.
    """
    tasks = manifest.tasks
    labels = [[t.name, *_answered(t)] for t in tasks]
    base, learned, _ = json.dumps(manifest.backbone.name)[1:-1].partition(LEARNED)
    return TEMPLATE.format(
        base=base,
        tasks=" and ".join(t.name for t in tasks),
        count="1 task" if len(tasks) == 1 else f"{len(tasks)} tasks",
        encoder=_encoder(manifest, base, bool(learned)),
        baselines=_baselines(manifest),
        max_tokens=manifest.max_tokens,
        labels=markdown_table(["task", "answers", "labels", "temperature"], labels),
        seen=_seen(manifest),
        figures=_figures(manifest),
        exits=_exits(manifest),
        domain=_domain(manifest),
        frontier="" if frontier is None else _frontier(frontier),
        foreign=_foreign(manifest),
        reduced=_reduced(manifest),
    )


def _domain(manifest: Manifest) -> str:
    """What is promised of telling foreign texts, and what was measured."""
    if manifest.domain is None:
        return ""
    rows = []
    for task, threshold in zip(manifest.domain.labels, manifest.domain.thresholds, strict=True):
        found = manifest.evaluation[task]["domain"]
        reported = found["reported"]
        foreign = [_told(reported, "none"), _told(reported, "other_tasks")]
        own = f"{100 * reported['refused']:.2f} of {reported['rows']}"
        promised = "yes" if threshold else "too few rows: none is called foreign"
        rows.append([task, reported["split"], promised, own, *foreign])
    header = ["task", "measured on", "promised", "% of own", "% of marked", "% of other tasks'"]
    return DOMAIN.format(
        share=f"{found['share']:.2%}",
        confidence=f"{found['confidence']:.0%}",
        figures=f"Called foreign by the fp32 model:\n\n{markdown_table(header, rows)}",
    )


def _told(reported: Mapping[str, Any], part: str) -> str:
    found = reported.get(part)
    if found is None:
        return ""
    return f"{100 * found['refused']:.1f} of {found['rows']}, AUROC {found['auroc']:.3f}"


def _foreign(manifest: Manifest) -> str:
    """What becomes of texts that are not like those."""
    gated = () if manifest.domain is None else manifest.domain.labels
    if len(gated) == len(manifest.tasks):
        return "Texts unlike these,\nand unlike the foreign ones above, may still be answered."
    which = (
        ""
        if not gated
        else f" by {' and '.join(sorted({t.name for t in manifest.tasks} - {*gated}))}"
    )
    return (
        f"Texts of another domain or language get an\nanswer{which} too, and nothing here says how "
        "good it is."
    )


def _answered(task: Task) -> list[str]:
    """What a text is answered: kind, labels or range, temperature."""
    if task.scale is not None:
        scale = task.scale
        return ["a score", f"{scale.low:g} to {scale.high:g}, ± {scale.spread:.2g}", ""]
    if task.kind == "multi":
        pairs = zip(task.labels, task.thresholds, strict=True)
        labels = label_list([f"{label} (from {value:.2f})" for label, value in pairs])
        return ["any number of labels", labels, f"{task.temperature:.3f}"]
    return ["one label", label_list(task.labels), f"{task.temperature:.3f}"]


def _encoder(manifest: Manifest, base: str, learned: bool) -> str:
    """What runs before the heads, as the subject of a sentence."""
    width = manifest.backbone.hidden_size
    if manifest.depth == 0:
        taught = ", taught along with the heads," if learned else ""
        return (
            f"A table of token vectors ({min(WIDTH, width)} wide) from the embeddings of "
            f"`{base}`{taught}"
        )
    kind = "fine-tuned" if learned else "frozen"
    return f"One pass of a {kind} `{base}` encoder ({manifest.depth} layers, {width} wide)"


def _baselines(manifest: Manifest) -> str:
    """What the baselines are, if some were measured, and which encoder's means are read."""
    depths = [
        found["mean_pooling"]["depth"]
        for found in manifest.evaluation.values()
        if "mean_pooling" in found
    ]
    if not depths:
        return ""
    depth = max(depths)
    encoder = "same encoder" if depth == manifest.depth else f"whole encoder, {depth} layers"
    return (
        f"*Usual recipe*: mean pooling and logistic regression on the {encoder}. *Bag of words*: "
        "TF-IDF and\nlogistic regression, no encoder.\n"
    )


def _reduced(manifest: Manifest) -> str:
    """What was left out on request, as a sentence."""
    found = manifest.reduced.get("vocabulary")
    if found is None:
        return ""
    share = found.get("share_of_held_out_tokens_kept")
    return (
        f" In the int8 graphs, {found['tokens_kept']:,} of the tokenizer's {found['tokens']:,} "
        "tokens have embeddings"
        + ("" if share is None else f" ({share:.1%} of the tokens in the rows set aside)")
        + "; any other reads as unknown."
    )


def _asked(split: str) -> str:
    return "training rows" if split == CROSS_VALIDATION else f"rows of {split}"


def _seen(manifest: Manifest) -> str:
    """Of which tasks no rows were set aside, and what that means for their figures."""
    names = [
        name for name, found in manifest.evaluation.items() if found["split"] == CROSS_VALIDATION
    ]
    if not names:
        return ""
    return (
        f"Of {' and '.join(names)} there were so few rows that none was set aside: figures are by "
        "cross-validation, each row asked of heads that had not seen it, and of few rows; and "
        "graphs were compared on rows that their heads had seen, which shows whether they agree, "
        "not how often they are right."
    )


def _figures(manifest: Manifest) -> str:
    header = ["model"]
    measured = [
        name
        for name in reversed(BASELINES)
        if any(name in found for found in manifest.evaluation.values())
    ]
    rows: dict[str, list[str]] = {BASELINES[name]: [] for name in measured}
    rows |= {"fp32 (torch)": [], **{graph.target: [] for graph in manifest.graphs}}
    for task in manifest.tasks:
        found = manifest.evaluation[task.name]
        header.append(f"{task.name}, {found['rows']} rows of {found['split']}")
        for name in measured:
            rows[BASELINES[name]].append(shown(task, found[name]) if name in found else "")
        rows["fp32 (torch)"].append(shown(task, found["fp32"]))
        for graph in manifest.graphs:
            score = found["graphs"][graph.target]
            agrees = f"agrees {100 * score['agreement']:.1f}"
            rows[graph.target].append("; ".join(filter(None, (shown(task, score), agrees))))
    return markdown_table(header, [[name, *cells] for name, cells in rows.items()])


def _exits(manifest: Manifest) -> str:
    """What cheaper stages promise, and how they did."""
    if not manifest.exits:
        return ""
    promise = manifest.exits[0].promise
    depths = [stage.depth for stage in manifest.exits]
    leave = [f"leave at depth {depth} %" for depth in depths]
    first = manifest.exits[0]
    fitted = [
        [
            task.name,
            "never" if first.thresholds[task.name] > 1 else f"{first.thresholds[task.name]:.3f}",
            str(promise["rows"][task.name]),
            *(f"{100 * stage.promise['exit_rate'][task.name]:.0f}" for stage in manifest.exits),
            f"{100 * promise['measured_drop'][task.name]:.2f}",
            f"{100 * promise['bound'][task.name]:.2f}",
        ]
        for task in manifest.tasks
    ]
    measured = []
    for task in manifest.tasks:
        of_task = manifest.evaluation[task.name]
        for graph in manifest.graphs:
            found = of_task["graphs"][graph.target]["exits"]
            measured.append(
                [
                    f"{task.name}, {found['rows']} {_asked(of_task['split'])}",
                    graph.target,
                    *(f"{100 * found['exit_rate'][str(depth)]:.0f}" for depth in depths),
                    f"{100 * found['full_accuracy']:.1f}",
                    f"{100 * found['accuracy']:.1f}",
                ]
            )
    costs = "; ".join(
        f"depth {e.depth}: "
        + ", ".join(f"{100 * share:.0f}% ({name})" for name, share in e.promise["cost"].items())
        for e in manifest.exits
    )
    layers = " and ".join(map(str, depths))
    return EXITS.format(
        layers=layers,
        drop=f"{100 * promise['drop']:g}",
        confidence=f"{promise['confidence']:.0%}",
        tried=f", as the best of {promise['tried']} choices" if promise["tried"] > 1 else "",
        method=promise["method"],
        fitted=markdown_table(
            ["task", "threshold", "rows", *leave, "points lost", "at most"], fitted
        ),
        measured=markdown_table(["task", "graph", *leave, "full depth", "with stages"], measured),
        costs=costs,
    )


def _frontier(frontier: Frontier) -> str:
    """What the bundle was chosen from."""
    measured = frontier.measured
    found = table(frontier.candidates, frontier.limits, frontier.rows, frontier.chosen)
    return BUDGET.format(
        budget=frontier.budget,
        texts=measured["texts"],
        passes=measured["passes"],
        processor=measured["machine"]["processor"].split(" / ")[0],
        cores=measured["machine"]["cores"],
        date=measured["date"],
        candidates=markdown_table(*found),
        file=FRONTIER,
    )
