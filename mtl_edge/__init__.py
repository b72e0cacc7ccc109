"""Multi-task text classification for small CPUs: the runtime.

from mtl_edge import EdgeClassifier

classifier = EdgeClassifier.load("bundle")
classifier.predict("a quiet triumph")["sentiment"].label
"""

from mtl_edge.answers import Answer, Prediction
from mtl_edge.classifier import EdgeClassifier, Info
from mtl_edge.errors import MtlEdgeError
from mtl_edge.limits import Limits
from mtl_edge.version import __version__

__all__ = [
    "Answer",
    "EdgeClassifier",
    "Info",
    "Limits",
    "MtlEdgeError",
    "Prediction",
    "__version__",
]
