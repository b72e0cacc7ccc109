"""A text-classification pipeline of transformers for each task.

Options: dtype, compile, max_tokens. Models that lie in the folder already are taken as they are.
"""

import os

import torch
from classifier_models import TASKS, fit_models, tasks_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from tuned_pipelines import answering, tune


def fit(rows, backbone, folder, options):
    if not os.path.exists(os.path.join(folder, TASKS)):
        fit_models(rows, backbone, folder, options["max_tokens"])
    tune(_pipelines(folder, options), rows, folder)


def load(folder, options, threads):
    torch.set_num_threads(threads)
    return answering(_pipelines(folder, options), folder)


def _pipelines(folder, options):
    made = {}
    for task in tasks_of(folder):
        path = os.path.join(folder, task)
        model = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=getattr(torch, options["dtype"])
        )
        if options.get("compile"):
            model.forward = torch.compile(model.forward, dynamic=True)
        made[task] = pipeline(
            "text-classification",
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(path),
            device="cpu",
        )
    return made
