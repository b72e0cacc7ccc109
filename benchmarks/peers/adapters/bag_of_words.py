"""TF-IDF and logistic regression in scikit-learn; the features are computed once for all tasks.

Option features: `words`, 1 and 2 in a row; `all`, and 2 to 5 characters in a row besides.
"""

import os

import joblib
from linear_heads import answering, fit_heads
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union

FILE = "features.joblib"


def fit(rows, backbone, folder, options):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    features = {"words": words, "all": make_union(words, characters)}[options["features"]]
    features.fit([text for texts, _ in rows.values() for text in texts])
    joblib.dump(features, os.path.join(folder, FILE))
    fit_heads(features.transform, rows, folder, strengths=(3.0, 10.0), tolerance=1e-3)


def load(folder, options, threads):
    return answering(joblib.load(os.path.join(folder, FILE)).transform, folder)
