"""One logistic regression a task on embeddings that are computed once for all of them."""

import os
import time

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

FILE = "heads.joblib"
STRENGTHS = (0.3, 3.0, 30.0)


def fit_head(features, labels, strengths=STRENGTHS, tolerance=1e-4):
    """Regularized as cross-validation on the training rows says, as a careful user would."""
    head = LogisticRegression(max_iter=1000, tol=tolerance)
    search = GridSearchCV(head, {"C": list(strengths)}, cv=3)
    return search.fit(features, labels).best_estimator_


def fit_heads(encode, rows, folder, **settings):
    """Fit a head for each task on `encode(texts)`, `[texts, width]`, and save them."""
    heads = {
        task: fit_head(encode(texts), labels, **settings) for task, (texts, labels) in rows.items()
    }
    joblib.dump(heads, os.path.join(folder, FILE))


def answering(encode, folder):
    """The function that answers: `encode` once, then every head."""
    heads = joblib.load(os.path.join(folder, FILE))

    def answers(texts):
        embeddings = encode(texts)
        return {task: answer_of(head, embeddings) for task, head in heads.items()}

    return answers


def answer_of(head, features):
    """Labels and their probabilities, `[texts]` each."""
    probabilities = head.predict_proba(features)
    best = probabilities.argmax(1)
    return head.classes_[best], probabilities[np.arange(len(best)), best]


def fastest(candidates, run):
    """The candidate with which `run(candidate)` takes least, after one call that does not count."""

    def seconds(candidate):
        run(candidate)
        start = time.perf_counter()
        run(candidate)
        return time.perf_counter() - start

    return min(candidates, key=seconds)


def by_length(texts, answer):
    """`answer` asked in the order of the texts' lengths, so that little is padded."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = [None] * len(texts)
    for place, item in zip(order, answer([texts[i] for i in order]), strict=True):
        found[place] = item
    return found
