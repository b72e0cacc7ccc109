"""Answers on the terminal or in a pipe: a table or JSON lines."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence

from mtl_edge.bundle import Task
from mtl_edge.classifier import Answer, Prediction
from mtl_edge.table import clip, text_table

__all__ = ["print_json", "print_table"]

Texts = Sequence[str | None]
Predictions = Sequence[Prediction | None]


def print_json(tasks: Sequence[Task], texts: Texts, predictions: Predictions) -> None:
    """An object a text; null for the answers to a text that is missing."""
    out = io.StringIO()
    for text, prediction in zip(texts, predictions, strict=True):
        answers = {
            task.name: None if prediction is None else _entry(prediction, task) for task in tasks
        }
        # ASCII: what a text holds, lone surrogates included, survives any terminal or pipe.
        out.write(json.dumps({"text": text, **answers}) + "\n")
    print(out.getvalue(), end="", flush=True)


def _entry(prediction: Prediction, task: Task) -> dict[str, object]:
    """What its kind of task has to say."""
    answer = prediction[task.name]
    rest: dict[str, object] = {"depth": prediction.depth}
    if answer.domain_probability is not None:
        rest["in_domain"] = answer.in_domain
        rest["domain_probability"] = round(answer.domain_probability, 6)
    if answer.score is not None and answer.spread is not None:
        return {"score": round(answer.score, 6), "spread": round(answer.spread, 6), **rest}
    rest["probabilities"] = {k: round(v, 6) for k, v in answer.probabilities.items()}
    if task.kind == "multi":
        return {"labels": list(answer.labels), **rest}
    probability = round(answer.probability, 6)
    return {"label": answer.label, "probability": probability, "sure": answer.sure, **rest}


def print_table(tasks: Sequence[Task], texts: Texts, predictions: Predictions) -> None:
    """A row a text."""
    room = shutil.get_terminal_size().columns - 26 * len(tasks)
    rows = [
        [
            clip(text or "", max(24, min(72, room))),
            *("" if prediction is None else _short(task, prediction[task.name]) for task in tasks),
        ]
        for text, prediction in zip(texts, predictions, strict=True)
    ]
    print(text_table(["text", *(task.name for task in tasks)], rows), flush=True)


def _short(task: Task, answer: Answer) -> str:
    if not answer.in_domain:
        return "none of these"
    if answer.score is not None:
        return f"{answer.score:.3g} ± {answer.spread:.2g}"
    if task.kind == "multi":
        found = [f"{label} {answer.probabilities[label]:.0%}" for label in answer.labels]
        return ", ".join(found) or "none"
    return f"{answer.label} {answer.probability:.0%}{'' if answer.sure else ' (unsure)'}"
