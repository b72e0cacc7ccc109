"""Answers on the terminal or in a pipe: a table or JSON lines."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence

from mtl_edge.classifier import Answer, Prediction
from mtl_edge.table import clip, text_table

__all__ = ["print_json", "print_table"]

Texts = Sequence[str | None]
Predictions = Sequence[Prediction | None]


def print_json(tasks: Sequence[str], texts: Texts, predictions: Predictions) -> None:
    """An object a text; null for the answers to a text that is missing."""
    out = io.StringIO()
    for text, prediction in zip(texts, predictions, strict=True):
        answers = {task: None if prediction is None else _entry(prediction, task) for task in tasks}
        # ASCII: what a text holds, lone surrogates included, survives any terminal or pipe.
        out.write(json.dumps({"text": text, **answers}) + "\n")
    print(out.getvalue(), end="", flush=True)


def _entry(prediction: Prediction, task: str) -> dict[str, object]:
    answer = prediction[task]
    return {
        "label": answer.label,
        "probability": round(answer.probability, 6),
        "sure": answer.sure,
        "depth": prediction.depth,
        "probabilities": {k: round(v, 6) for k, v in answer.probabilities.items()},
    }


def print_table(tasks: Sequence[str], texts: Texts, predictions: Predictions) -> None:
    """A row a text."""
    room = shutil.get_terminal_size().columns - 26 * len(tasks)
    rows = [
        [
            clip(text or "", max(24, min(72, room))),
            *("" if prediction is None else _short(prediction[task]) for task in tasks),
        ]
        for text, prediction in zip(texts, predictions, strict=True)
    ]
    print(text_table(["text", *tasks], rows), flush=True)


def _short(answer: Answer) -> str:
    return f"{answer.label} {answer.probability:.0%}{'' if answer.sure else ' (unsure)'}"
