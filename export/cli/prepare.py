"""From options to what a build takes: the checkpoint at its depth, and settings with files read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mtl_edge.errors import OptionError
from mtl_edge.export.early_exit.exits import Promise
from mtl_edge.export.int8.refit import FEWEST
from mtl_edge.export.options import ExportOptions
from mtl_edge.export.settings import Settings
from mtl_edge.io.labelled import read_texts
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.checkpoint import Checkpoint, Sample, load_checkpoint
from mtl_edge.training.data import spread
from mtl_edge.training.run.samples import CALIBRATION_ROWS

__all__ = ["checkpoint_of", "promise_of", "promise_with", "settings_of"]


def checkpoint_of(folder: Path, options: ExportOptions) -> Checkpoint:
    """The checkpoint with as many layers, and the calibration texts, that are asked for.

    Raises:
        CheckpointError, DataError: a folder or file that cannot be read.
        OptionError: it has no heads for that depth.
    """
    checkpoint = load_checkpoint(folder)
    if options.depth is not None:
        checkpoint = checkpoint.at(_depth(checkpoint, options.depth, options.max_accuracy_drop))
    if options.calibration is None:
        return checkpoint
    return _calibrated(checkpoint, _texts([options.calibration], options.reading))


def settings_of(options: ExportOptions) -> Settings:
    """
    Raises:
        DataError: a file that cannot be read.
        OptionError: too few texts to fit heads on, or a promise that makes no sense.
    """
    refit = _once(_texts(options.refit, options.reading))
    if options.refit and len(refit) < FEWEST:
        raise OptionError(
            f"--refit has {len(refit)} texts, expected {FEWEST} or more: the training texts will do"
        )
    return Settings(
        max_accuracy_drop=options.max_accuracy_drop,
        reduce_range=options.reduce_range,
        keep_worst=options.keep_worst,
        refit=refit,
        vocabulary=_once(_texts(options.vocabulary, options.reading)),
        four_bits=options.embeddings == "4bit",
        with_tokenizer=options.with_tokenizer,
        ort=options.ort,
        promise=None if options.budget else promise_of(options),
        cache=options.cache,
        cache_limit=int(options.cache_limit * 10**9),
    )


def promise_of(options: ExportOptions) -> Promise | None:
    """What early exits promise; none: there are none.

    Raises:
        OptionError: a number that is out of range, or one that would do nothing.
    """
    if options.exits is None:
        for name in ("exit_drop", "exit_confidence"):
            if name in options.given():
                raise OptionError(f"--{name.replace('_', '-')} goes with --exits; give both")
        return None
    return promise_with(options, None if options.exits == "auto" else options.exits)


def promise_with(options: ExportOptions, depths: tuple[int, ...] | None) -> Promise:
    """The same of early exits at these depths.

    Raises:
        OptionError: a number that is out of range.
    """
    drop, confidence = options.exit_drop, options.exit_confidence
    if not 0 < drop < 100:
        raise OptionError(f"--exit-drop is {drop}, expected points above 0, below 100")
    if not 50 <= confidence < 99.9:
        raise OptionError(
            f"--exit-confidence is {confidence}, expected 50 percent or more, below 99.9"
        )
    return Promise(depths, drop / 100, confidence / 100)


def _texts(files: Sequence[Path], reading: ReadOptions) -> list[str]:
    """The texts of files, each file's in order; what was passed over is told."""
    texts: list[str] = []
    for file in files:
        found, told = read_texts(file, reading)
        if told:
            print(f"note: {file}: {told}", file=sys.stderr)
        texts += found
    return texts


def _once(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _calibrated(checkpoint: Checkpoint, texts: Sequence[str]) -> Checkpoint:
    """The same with other texts to set the scales by, at most as many as training would keep."""
    chosen = spread(sorted(texts, key=len), CALIBRATION_ROWS)
    kept = [sample for sample in checkpoint.samples if sample.split != "calibration"]
    added = [Sample("calibration", "", text, "") for text in chosen]
    return replace(checkpoint, samples=[*kept, *added])


def _depth(checkpoint: Checkpoint, asked: int | Literal["auto"], max_drop: float) -> int:
    """The depth asked for; `auto`: the least at which no task loses more than `max_drop` points."""
    if asked != "auto":
        return asked
    if not checkpoint.shallower:
        raise OptionError(
            f"--depth auto: the checkpoint has heads for depth {checkpoint.depth} alone; train "
            "with --all-depths"
        )
    depths = sorted([*checkpoint.shallower, checkpoint.depth])
    chosen = next(d for d in depths if _drop_at(checkpoint, d) <= max_drop)
    print(f"export: depth {chosen} of {checkpoint.depth}", file=sys.stderr)
    return chosen


def _drop_at(checkpoint: Checkpoint, depth: int) -> float:
    """The most points that a task loses at this depth, on the validation rows."""
    drops: list[float] = []
    for task in checkpoint.tasks:
        by_depth = checkpoint.report[task.name]["depths"]
        here, full = (by_depth[str(d)]["selection_score"] for d in (depth, checkpoint.depth))
        if here is None:
            raise OptionError(
                f"--depth auto: training had no row of task {task.name!r} to choose a depth by; "
                "name the depth, or train with more rows"
            )
        drops.append(100 * (full - here))
    return max(drops)
