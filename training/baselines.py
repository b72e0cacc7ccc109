"""What a head has to beat: no encoder at all, and the usual recipe on the same encoder."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union

__all__ = ["BASELINES", "bag_of_words", "mean_pooling", "training_positions"]

# As reports name them, and as people read them.
BASELINES = {"mean_pooling": "usual recipe", "bag_of_words": "bag of words"}
STRENGTHS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
MOST_ROWS = 10_000  # memory grows with the rows that they are trained on
MANY_LABELS = 50  # from which on a fit of all of them together takes longer than a head
FEWEST_OF_A_LABEL = 3  # as many as there are folds when a baseline is regularized


def training_positions(labels: Sequence[str], seed: int, most: int = MOST_ROWS) -> list[int]:
    """Positions of the rows to train on: all, or `most` and a few of each label that is rare."""
    if len(labels) <= most:
        return list(range(len(labels)))
    chosen = set(random.Random(seed).sample(range(len(labels)), most))
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    for of_label in places.values():
        if len(chosen.intersection(of_label)) < FEWEST_OF_A_LABEL:
            chosen.update(of_label[:FEWEST_OF_A_LABEL])
    return sorted(chosen)


def bag_of_words(texts: Sequence[str], labels: Sequence[str]) -> Pipeline:
    """TF-IDF (words 1-2, characters 2-5) and logistic regression, fitted."""
    many = len(set(labels)) > MANY_LABELS
    fewest = 2 if many else 1  # texts of an n-gram
    model = make_pipeline(
        make_union(
            TfidfVectorizer(
                ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+", min_df=fewest
            ),
            TfidfVectorizer(
                analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=fewest
            ),
        ),
        # One label against the rest: as accurate, in a fraction of the memory.
        OneVsRestClassifier(LogisticRegression(C=10, solver="liblinear", tol=0.1))
        if many
        else LogisticRegression(C=10, max_iter=200, tol=1e-3),
    )
    model.fit(texts, labels)
    return model


def mean_pooling(
    means: npt.NDArray[np.float32], labels: Sequence[str], reported: npt.NDArray[np.float32]
) -> npt.NDArray[np.str_]:
    """Labels from the last layer's mean `[texts, width]` and logistic regression.

    How strongly to regularize is chosen by cross-validation on train, as a careful user would; of
    many labels on one split, and among strengths for many.
    """
    counts = Counter(labels)
    # A label's only row cannot be left out of training, so it is not what strengths are tried on.
    tried = [place for place, label in enumerate(labels) if counts[label] > 1]
    many = len(counts) > MANY_LABELS
    model = LogisticRegression(max_iter=1000)
    if len({labels[place] for place in tried}) > 1:
        folds = min(3, *(counts[labels[place]] for place in tried))
        strengths = {"C": STRENGTHS[3:] if many else STRENGTHS}
        split = ShuffleSplit(1, test_size=1 / folds, random_state=0) if many else folds
        search = GridSearchCV(model, strengths, cv=split, refit=False)
        search.fit(means[tried], [labels[place] for place in tried])
        model.set_params(**search.best_params_)
    model.fit(means, labels)
    answers: npt.NDArray[np.str_] = model.predict(reported)
    return answers
