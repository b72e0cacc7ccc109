"""Which options of `mtl-edge export` go together: one that would do nothing is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path

from mtl_edge.cli.reading import LABEL_ARGUMENTS
from mtl_edge.errors import OptionError, OutputExistsError
from mtl_edge.export.cli.arguments import Request
from mtl_edge.export.targets import TARGETS, targets_of
from mtl_edge.io.read_options import ReadOptions

__all__ = ["bundle_to_check", "require_meant"]

# Options by what they are for: a mode of the command, or targets of which one has to be asked for.
OF_NEW_BUNDLES = (
    "targets", "calibration", "refit", "vocabulary", "embeddings", "with_tokenizer", "ort",
    "reduce_range", "keep_worst", "depth", "overwrite", "exits", "exit_drop", "exit_confidence",
)  # fmt: skip
NOT_OF_EXPLAIN = (
    "refit", "vocabulary", "embeddings", "with_tokenizer", "ort", "keep_worst", "overwrite",
    "exits",
)  # fmt: skip
OF_CHECK = (
    "checkpoint", "check_exits", "targets", *LABEL_ARGUMENTS,
    *(f.name for f in fields(ReadOptions)),
)  # fmt: skip
INT8 = ("onnx-int8", "openvino-int8")
OF_TARGETS: Mapping[str, tuple[str, ...]] = {
    "refit": INT8,
    "vocabulary": INT8,
    "embeddings": INT8,
    "reduce_range": ("onnx-int8",),
    "keep_worst": ("onnx-int8",),
    "ort": tuple(name for name, target in TARGETS.items() if target.engine == "onnxruntime"),
}


def require_meant(request: Request) -> None:
    """
    Raises:
        OptionError: an option that would do nothing, or no place for the file of --update.
        OutputExistsError: that file exists and may not be replaced.
    """
    all_given = request.given()
    given = [name for name in OF_NEW_BUNDLES if name in all_given]
    of_update = ["overwrite"] if request.update is not None else []
    if request.into is not None and (wrong := [n for n in given if n not in of_update]):
        raise OptionError(
            f"{_option(wrong[0])} is for new bundles; --heads-only leaves all but the heads as it "
            "is"
        )
    if request.update is not None:
        _require_place(request.update, request.into, overwrite=request.overwrite)
    if of_labels := [name for name in LABEL_ARGUMENTS if name in all_given]:
        raise OptionError(f"{_option(of_labels[0])} is of --check-exits; give both, or neither")
    targets = targets_of(request.options.targets)
    if request.explain:
        _require_explainable(targets, all_given)
    for name in given:
        wanted = OF_TARGETS.get(name, targets)
        if not set(wanted) & set(targets):
            raise OptionError(
                f"{_option(name)} is for {' and '.join(wanted)}; ask for it with --targets, or "
                "leave the option out"
            )


def bundle_to_check(request: Request) -> Path:
    """The bundle that --check-exits takes, in the place of a checkpoint.

    Raises:
        OptionError: there is none, or an option that would do nothing.
    """
    if request.checkpoint is None:
        raise OptionError("--check-exits TASK=FILE takes a bundle, and there is none; name it")
    if idle := [name for name in request.given() if name not in OF_CHECK]:
        raise OptionError(
            f"{_option(idle[0])} does nothing with --check-exits TASK=FILE, which takes a bundle "
            "and makes none; give it alone"
        )
    return request.checkpoint


def _require_explainable(targets: Collection[str], given: Collection[str]) -> None:
    if idle := [name for name in NOT_OF_EXPLAIN if name in given]:
        raise OptionError(
            f"{_option(idle[0])} is for bundles, and --explain makes none; leave one out"
        )
    if not set(INT8) & set(targets):
        raise OptionError(
            f"--explain is of {' and '.join(INT8)}; ask for one of them with --targets"
        )


def _require_place(update: Path, into: Path | None, *, overwrite: bool) -> None:
    """Fail before the bundle is replaced if the update cannot be written behind that."""
    if into is None:
        raise OptionError("--update is of --heads-only; give both, or neither")
    if not update.absolute().parent.is_dir():
        raise OptionError(f"--update {update}: no such folder; make it first")
    if update.is_dir():
        raise OptionError(f"--update {update} is a folder, expected a file; name one in it")
    if update.exists() and not overwrite:
        raise OutputExistsError(f"{update} exists; choose another --update or pass --overwrite")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
