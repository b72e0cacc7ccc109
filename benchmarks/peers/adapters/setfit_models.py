"""A SetFit model for each task: the body stays as it is, its logistic regression is fitted.

Its contrastive training of the body is left out: the encoder is frozen for everyone here.
"""

import json
import os

import torch
from linear_heads import fastest, fit_head
from setfit import SetFitModel

BATCHES = [8, 16, 32, 64, 128]
SAMPLE = 256


def fit(rows, backbone, folder, options):
    for task, (texts, labels) in rows.items():
        model = SetFitModel.from_pretrained(backbone, labels=sorted(set(labels)), device="cpu")
        model.model_body.max_seq_length = options["max_tokens"]
        model.model_head = fit_head(model.encode(texts), labels)
        model.save_pretrained(os.path.join(folder, task))
    some = [text for texts, _ in rows.values() for text in texts[: SAMPLE // len(rows)]]
    best = fastest(BATCHES, lambda size: model.predict_proba(some, batch_size=size))
    with open(os.path.join(folder, "setup.json"), "w", encoding="utf-8") as file:
        json.dump({"tasks": list(rows), "batch_size": best}, file)


def load(folder, options, threads):
    torch.set_num_threads(threads)
    with open(os.path.join(folder, "setup.json"), encoding="utf-8") as file:
        setup = json.load(file)
    models = {}
    for task in setup["tasks"]:
        path = os.path.join(folder, task)
        models[task] = SetFitModel.from_pretrained(path, device="cpu", local_files_only=True)
        models[task].model_body.max_seq_length = options["max_tokens"]

    def answers(texts):
        found = {}
        for task, model in models.items():
            probabilities = model.predict_proba(
                texts, batch_size=setup["batch_size"], as_numpy=True
            )
            classes = model.model_head.classes_
            found[task] = classes[probabilities.argmax(1)], probabilities.max(1)
        return found

    return answers
