"""The bundle's README: a model card in the Hub's format, written from what was measured."""

from __future__ import annotations

import json

from mtl_edge.bundle import Manifest
from mtl_edge.table import markdown_table

__all__ = ["CARD", "model_card"]

CARD = "README.md"

TEMPLATE = """---
library_name: mtl-edge
pipeline_tag: text-classification
base_model: {base}
tags:
- multi-task
- int8
---

# {tasks}: a multi-task text classifier for small CPUs

One pass of a frozen `{base}` encoder ({depth} layers, {width} wide) answers {count}, on texts of at
most {max_tokens} tokens (longer ones are cut).

{labels}

## Use

```python
from mtl_edge import EdgeClassifier

classifier = EdgeClassifier.load("path/to/this/folder")
classifier.predict("some text")
```

## Measured

Accuracy in percent, with macro-F1 in brackets, of the rows set aside by training; below the fp32
model, each graph with the share of all rows set aside on which it gives the fp32 model's label.
*Usual recipe*: mean pooling and logistic regression on the same encoder. *Bag of words*: TF-IDF and
logistic regression, no encoder.

{figures}

## Limits

The figures hold for texts like those it was trained on. Texts of another domain or language get an
answer too, and nothing here says how good it is.{reduced} The encoder's own biases are its authors'
to describe: see the card of `{base}`.
"""


def model_card(manifest: Manifest) -> str:
    """Markdown with the Hub's metadata block."""
    tasks = manifest.tasks
    labels = [[t.name, ", ".join(t.labels), f"{t.temperature:.3f}"] for t in tasks]
    return TEMPLATE.format(
        base=json.dumps(manifest.backbone.name)[1:-1],
        tasks=" and ".join(t.name for t in tasks),
        count="1 task" if len(tasks) == 1 else f"{len(tasks)} tasks",
        depth=manifest.depth,
        width=manifest.backbone.hidden_size,
        max_tokens=manifest.max_tokens,
        labels=markdown_table(["task", "labels", "temperature"], labels),
        figures=_figures(manifest),
        reduced=_reduced(manifest),
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


def _figures(manifest: Manifest) -> str:
    header = ["model"]
    rows = {"bag of words": [], "usual recipe": [], "fp32 (torch)": []}  # type: ignore[var-annotated]
    rows |= {graph.target: [] for graph in manifest.graphs}
    for task in manifest.tasks:
        found = manifest.evaluation[task.name]
        header.append(f"{task.name}, {found['rows']} rows of {found['split']}")
        rows["bag of words"].append(_score(found["bag_of_words"]))
        rows["usual recipe"].append(_score(found["mean_pooling"]))
        rows["fp32 (torch)"].append(_score(found["fp32"]))
        for graph in manifest.graphs:
            score = found["graphs"][graph.target]
            rows[graph.target].append(f"{_score(score)}, agrees {100 * score['agreement']:.1f}")
    return markdown_table(header, [[name, *cells] for name, cells in rows.items()])


def _score(figures: dict[str, float]) -> str:
    return f"{100 * figures['accuracy']:.1f} ({100 * figures['macro_f1']:.1f})"
