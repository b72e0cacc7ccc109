"""Every error this package raises on purpose.

    MtlEdgeError
    ├── TextError(ValueError)              a text that cannot be classified
    │   └── LimitError                     texts that are larger or more than was allowed
    ├── OptionError(ValueError)            an option or combination that makes no sense
    ├── DataError(ValueError)              a labelled file that cannot be used
    ├── BackboneError(ValueError)          a pretrained encoder that cannot be loaded
    ├── CheckpointError(ValueError)        a checkpoint that is missing, cut short or altered
    ├── BundleError(ValueError)            a bundle that is missing, cut short or altered
    │   └── SchemaError                    a bundle from another release
    ├── ExportError(RuntimeError)          a graph that could not be built or is not faithful
    ├── OutputExistsError(FileExistsError) a target that would be overwritten
    └── EngineError(RuntimeError)          an engine that cannot run the graph
        ├── ClosedError                    a classifier that was closed, or loaded before a fork
        ├── RunError                       an engine that failed while it ran
        │   └── OutOfMemoryError(MemoryError)  a text that does not fit into memory even alone
        ├── NotPicklableError(TypeError)   a classifier that was to go to another process
        └── MissingPackageError(ImportError)  a package that an extra would install

Each message says what was expected, what came, and what to do. Each class also derives from the
builtin that a caller who does not know this package would catch.
"""

from __future__ import annotations

__all__ = [
    "BackboneError",
    "BundleError",
    "CheckpointError",
    "ClosedError",
    "DataError",
    "EngineError",
    "ExportError",
    "LimitError",
    "MissingPackageError",
    "MtlEdgeError",
    "NotPicklableError",
    "OptionError",
    "OutOfMemoryError",
    "OutputExistsError",
    "RunError",
    "SchemaError",
    "TextError",
    "one_line",
]

LONGEST_MESSAGE = 300  # characters that are quoted of another library's message


class MtlEdgeError(Exception):
    """Base of all errors raised on purpose by mtl-edge."""


class TextError(MtlEdgeError, ValueError):
    """What was given to classify is not text."""


class LimitError(TextError):
    """Texts that are larger, or more, than the limits allow."""


class OptionError(MtlEdgeError, ValueError):
    """An option, or a combination of options, that makes no sense."""


class DataError(MtlEdgeError, ValueError):
    """A labelled file that is missing, empty or not what its task needs."""


class BackboneError(MtlEdgeError, ValueError):
    """A pretrained encoder that is unknown, unreachable or unsupported."""


class CheckpointError(MtlEdgeError, ValueError):
    """A checkpoint that is missing, incomplete or altered."""


class BundleError(MtlEdgeError, ValueError):
    """A bundle that is missing, incomplete or altered."""


class SchemaError(BundleError):
    """A bundle written by a release whose bundles this one does not read."""


class ExportError(MtlEdgeError, RuntimeError):
    """A graph that could not be built, or is not faithful to its checkpoint."""


class OutputExistsError(MtlEdgeError, FileExistsError):
    """A target folder exists and overwriting was not asked for."""


class EngineError(MtlEdgeError, RuntimeError):
    """An engine that cannot run the bundle's graph."""


class ClosedError(EngineError):
    """A classifier that cannot be used any more, or not in this process."""


class RunError(EngineError):
    """An engine that failed on a batch, though it could open the graph."""


class OutOfMemoryError(RunError, MemoryError):
    """A batch that does not fit into memory."""


class NotPicklableError(EngineError, TypeError):
    """A classifier that was to be pickled or copied."""


class MissingPackageError(EngineError, ImportError):
    """A package is not installed; the message names the extra that brings it."""


def one_line(error: BaseException, *, typed: bool = False) -> str:
    """A library's message on one line, at most `LONGEST_MESSAGE` characters of it.

    Args:
        typed: whether the type's name comes before it, as where any library may have raised it. An
            error without a message is its type's name in any case.
    """
    kind, text = type(error).__name__, " ".join(str(error).split())[:LONGEST_MESSAGE]
    if not text:
        return kind
    return f"{kind}: {text}" if typed else text
