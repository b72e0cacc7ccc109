"""Models for sequence classification on the frozen encoder, one a task, as transformers has them.

`BertForSequenceClassification` reads the first token through a pooler (a dense layer and tanh) and
a classifier. Either stays as pretrained and logistic regression is written into the classifier, or
both are taught together (the same two layers in scikit-learn); a tenth of the rows decides.
"""

import json
import os

import numpy as np
import torch
from linear_heads import fit_head
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

BATCH = 64
TASKS = "tasks.json"


def fit_models(rows, backbone, folder, max_tokens):
    """Save a model and its tokenizer for each task as `folder/TASK`."""
    tokenizer = AutoTokenizer.from_pretrained(backbone, model_max_length=max_tokens)
    encoder = AutoModel.from_pretrained(backbone).eval()
    for task, (texts, labels) in rows.items():
        first = _first_tokens(encoder, tokenizer, texts, max_tokens)
        names = sorted(set(labels))
        model = AutoModelForSequenceClassification.from_pretrained(
            backbone,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
        _write(model, *_choose(encoder, first, np.array(labels)))
        model.save_pretrained(os.path.join(folder, task))
        tokenizer.save_pretrained(os.path.join(folder, task))
    with open(os.path.join(folder, TASKS), "w", encoding="utf-8") as file:
        json.dump(list(rows), file)


def tasks_of(folder):
    with open(os.path.join(folder, TASKS), encoding="utf-8") as file:
        return json.load(file)


@torch.inference_mode()
def _first_tokens(encoder, tokenizer, texts, max_tokens):
    """The last layer's state of each text's first token, `[texts, width]`."""
    states = np.empty((len(texts), encoder.config.hidden_size), np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        inputs = tokenizer(
            [texts[i] for i in places],
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        )
        states[places] = encoder(**inputs).last_hidden_state[:, 0].numpy()
    return states


def _choose(encoder, first, labels):
    """Weights and biases of pooler and classifier."""
    dense = encoder.pooler.dense
    weight, bias = dense.weight.detach().numpy(), dense.bias.detach().numpy()
    pooled = np.tanh(first @ weight.T + bias)
    learn, judge = train_test_split(
        np.arange(len(labels)), test_size=0.1, random_state=0, stratify=labels
    )
    classifier_alone = fit_head(pooled[learn], labels[learn]).score(pooled[judge], labels[judge])
    # The same two layers; keeps a tenth apart too, and the weights that do best on it.
    both = MLPClassifier(
        (len(bias),), activation="tanh", alpha=1e-2, early_stopping=True, random_state=0
    ).fit(first, labels)
    if both.best_validation_score_ > classifier_alone:
        (weight, out), (bias, out_bias) = (w.T for w in both.coefs_), both.intercepts_
    else:
        head = fit_head(pooled, labels)
        out, out_bias = head.coef_, head.intercept_
    if len(out) == 1:  # two labels are one logit in scikit-learn
        out, out_bias = np.vstack([0 * out, out]), np.append(0 * out_bias, out_bias)
    return weight, bias, out, out_bias


def _write(model, weight, bias, out, out_bias):
    pooler = model.bert.pooler.dense
    with torch.no_grad():
        for parameter, value in (
            (pooler.weight, weight),
            (pooler.bias, bias),
            (model.classifier.weight, out),
            (model.classifier.bias, out_bias),
        ):
            parameter.copy_(torch.as_tensor(np.ascontiguousarray(value)))
