"""Text-classification pipelines of transformers, asked in the way that was fastest at fitting."""

import json
import os

from linear_heads import by_length, fastest

# Batch size, and whether texts are sorted by length first.
TRIED = [(batch, ordered) for batch in (1, 8, 32, 64) for ordered in (False, True)]
SAMPLE = 96
FILE = "fastest.json"


def tune(pipelines, rows, folder):
    """Try every way on some of the training texts, and keep the fastest."""
    texts = [text for texts, _ in rows.values() for text in texts[: SAMPLE // len(rows)]]
    best = fastest(TRIED, lambda how: _answers(pipelines, texts, *how))
    with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
        json.dump(best, file)


def answering(pipelines, folder):
    """The function that answers: one pipeline after the other."""
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        batch_size, ordered = json.load(file)
    return lambda texts: _answers(pipelines, texts, batch_size, ordered)


def _answers(pipelines, texts, batch_size, ordered):
    found = {}
    for task, classify in pipelines.items():

        def answer(some, classify=classify):
            return classify(some, batch_size=batch_size, truncation=True)

        answers = by_length(texts, answer) if ordered else answer(texts)
        found[task] = [a["label"] for a in answers], [a["score"] for a in answers]
    return found
