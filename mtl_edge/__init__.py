"""Multi-task text classification for small CPUs: the runtime.

from mtl_edge import EdgeClassifier

classifier = EdgeClassifier.load("bundle")
classifier.predict("a quiet triumph")["sentiment"].label
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mtl_edge.version import __version__

if TYPE_CHECKING:
    from mtl_edge.answers.predictions import Answer, Prediction
    from mtl_edge.classifier import EdgeClassifier, Info
    from mtl_edge.errors import MtlEdgeError
    from mtl_edge.io.limits import Limits

__all__ = [
    "Answer",
    "EdgeClassifier",
    "Info",
    "Limits",
    "MtlEdgeError",
    "Prediction",
    "__version__",
]

# Some builds of ONNX Runtime, once imported, keep an identifier of the user in the home folder for
# their telemetry, and warn on the app's standard error where they cannot.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are first asked for (PEP 562): numpy alone takes 50 ms, and an app that may
# never classify anything should not pay for it when it starts.
_HOMES = {
    "Answer": "answers.predictions",
    "EdgeClassifier": "classifier",
    "Info": "classifier",
    "Limits": "io.limits",
    "MtlEdgeError": "errors",
    "Prediction": "answers.predictions",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
