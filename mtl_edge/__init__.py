"""Multi-task text classification for small CPUs: the runtime.

from mtl_edge import EdgeClassifier

classifier = EdgeClassifier.load("bundle")
classifier.predict("a quiet triumph")["sentiment"].label
"""

from mtl_edge.classifier import Answer, EdgeClassifier, Prediction
from mtl_edge.errors import MtlEdgeError
from mtl_edge.version import __version__

__all__ = ["Answer", "EdgeClassifier", "MtlEdgeError", "Prediction", "__version__"]
