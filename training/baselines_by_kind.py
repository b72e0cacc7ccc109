"""What a head of several labels, or of a score, has to beat: linear models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from mtl_edge.training.calibration import fit_decisions

__all__ = ["Features", "several_labels", "number", "words"]

Matrix: TypeAlias = Any  # an array or a sparse matrix, `[rows, features]`
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of training, validation and reported rows, `[rows, features]` each."""

    train: Matrix
    validation: Matrix
    reported: Matrix


def words(train: list[str], validation: list[str], reported: list[str]) -> Features:
    """TF-IDF of words 1-2."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return Features(
        vectorizer.fit_transform(train),
        vectorizer.transform(validation),
        vectorizer.transform(reported),
    )


def several_labels(
    features: Features,
    right_train: npt.NDArray[np.bool_],
    right_validation: npt.NDArray[np.bool_],
    strength: float,
) -> npt.NDArray[np.bool_]:
    """Which labels reported rows have: logistic regression a label, thresholds fitted likewise.

    Args:
        strength: inverse of the regularization, scikit-learn's `C`.
    """
    seen = np.asarray(right_train.any(0) & ~right_train.all(0))
    model = OneVsRestClassifier(LogisticRegression(C=strength, solver="liblinear"))
    model.fit(features.train, right_train[:, seen].astype(int))

    def probabilities(matrix: Matrix) -> npt.NDArray[np.float32]:
        found = np.zeros((matrix.shape[0], len(seen)), np.float32)
        found[:, seen] = model.predict_proba(matrix)
        return found

    thresholds = fit_decisions(probabilities(features.validation), right_validation)
    answers: npt.NDArray[np.bool_] = probabilities(features.reported) >= np.array(thresholds)
    return answers


def number(features: Features, right_train: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Scores of reported rows by ridge regression, its strength by cross-validation."""
    scaler = StandardScaler(with_mean=False).fit(features.train)
    model = RidgeCV(alphas=STRENGTHS).fit(scaler.transform(features.train), right_train)
    answers: npt.NDArray[Any] = model.predict(scaler.transform(features.reported))
    return answers.clip(right_train.min(), right_train.max())
