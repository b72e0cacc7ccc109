"""`mtl-edge predict --out`: rows and answers to a file that is whole or not there."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtl_edge.bundle import MANIFEST, Task
from mtl_edge.classifier import EdgeClassifier, Prediction
from mtl_edge.cli.predict_shared import load, predictions_of, stopped, told
from mtl_edge.cli.progress import Progress
from mtl_edge.cli.reading import note
from mtl_edge.cli.stopping import Stopped, Stopper
from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.folders import sha256_of, sync_file
from mtl_edge.io.model import Chunk, Kind, ReadOptions, Table, texts_of
from mtl_edge.io.source import Source, fingerprint, open_table, survey
from mtl_edge.io.store import Store, require_no_file
from mtl_edge.io.writers import (
    Answers,
    Layout,
    Writer,
    layout_of,
    writer_of,
    writes_any_columns,
)
from mtl_edge.version import __version__

__all__ = ["write"]


def write(args: argparse.Namespace, source: Source, options: ReadOptions, stopper: Stopper) -> int:
    """Write rows and answers to --out.

    Answers are kept as they come; when all are there, the file is written at one go.
    """
    writer = writer_of(args.out)
    require_no_file(args.out, overwrite=args.overwrite)
    file = args.file if args.file is not None and args.file.is_file() else None
    made_by = _made_by(args, file, options)
    store = Store(args.out, made_by, restart=args.restart, lasting=file is not None)
    try:
        with store, load(args, store.facts) as classifier:
            added = added_columns(classifier.tasks, args)
            facts = store.facts or _facts(source, file, options, classifier, added)
            with open_table(source, options) as table:
                columns = _columns(facts, args.out) if table.columns is None else table.columns
                layout = layout_of(columns, added, table.schema)
                store.begin(facts)
                answered = _answered(classifier, table, options, store, facts, stopper, args)
                if file is None:  # it cannot be read again
                    _publish(args.out, writer, layout, answered, store, stopper)
                else:
                    for chunk, answers in answered:
                        store.append(answers, chunk.last)
                told(table)
            if file is not None:
                pairs = _kept(file, options, made_by["input"], store)
                _publish(args.out, writer, layout, pairs, store, stopper)
    except Stopped as stop:
        if not store.done:
            return stopped(stop, store.advice)
    return 0


def _answered(
    classifier: EdgeClassifier,
    table: Table,
    options: ReadOptions,
    store: Store,
    facts: Mapping[str, Any],
    stopper: Stopper,
    args: argparse.Namespace,
) -> Iterator[tuple[Chunk, Answers]]:
    """The chunks behind those that a stopped run answered, each with its answers."""
    if store.rows:
        note(f"going on behind row {store.rows:,}")
    with Progress(str(args.out), total=facts["rows"], unit="rows", done=store.rows) as progress:
        for chunk in table.chunks:
            texts = texts_of(table, chunk, options)
            if chunk.last <= store.rows:
                continue
            with stopper.step():
                found = predictions_of(classifier, texts)
                yield chunk, [values_of(prediction, args) for prediction in found]
                progress.reach(chunk.last)


def _kept(
    file: Path, options: ReadOptions, before: Mapping[str, Any], store: Store
) -> Iterator[tuple[Chunk, Answers]]:
    """The chunks of a file, read once more, and the answers that were kept.

    Args:
        before: the file's fingerprint when its rows were answered.
    """
    with (
        open_table(file, options) as table,
        Progress(f"writing {store.target}", total=store.rows, unit="rows", brief=True) as progress,
    ):
        for chunk, answers in zip(table.chunks, store.answers(), strict=False):
            if len(chunk) != len(answers):
                break
            yield chunk, answers
            progress.reach(chunk.last)
    if before != fingerprint(file):
        raise DataError(f"{file} changed while it was read; begin anew with --restart")


def _publish(
    out: Path,
    writer: Writer,
    layout: Layout,
    pairs: Iterable[tuple[Chunk, Answers]],
    store: Store,
    stopper: Stopper,
) -> None:
    """Make the file of rows and answers; it gets its name when it is whole."""
    made = out.with_name(out.name + ".partial.made")
    try:
        with writer(made, layout) as add:
            for chunk, answers in pairs:
                add(chunk, answers)
        sync_file(made)
        with stopper.step():
            os.replace(made, out)
            store.done = True
    finally:
        made.unlink(missing_ok=True)


def _made_by(args: argparse.Namespace, file: Path | None, options: ReadOptions) -> dict[str, Any]:
    """What decides the output, as far as it is known before anything is loaded."""
    manifest = args.bundle / MANIFEST
    asked = (
        "tasks", "probabilities", "prefix", "engine", "target", "max_depth", "depth_for",
        "depth_column",
    )  # fmt: skip
    return {
        "version": __version__,
        "bundle": sha256_of(manifest) if manifest.is_file() else None,
        "input": None if file is None else fingerprint(file),
        "device": args.device,
        **asdict(options),
        **{option: getattr(args, option) for option in asked},
    }


def _facts(
    source: Source,
    file: Path | None,
    options: ReadOptions,
    classifier: EdgeClassifier,
    added: Mapping[str, Kind],
) -> dict[str, Any]:
    """What a run finds out at its start, and one that goes on must not find otherwise."""
    ran = {"graph": classifier.info.target, "engine": classifier.info.engine}
    if file is None:
        rows = len(source) if isinstance(source, tuple) else None
        return {**ran, "rows": rows, "kinds": None}
    with open_table(source, options) as table:
        if table.columns is not None:
            layout_of(table.columns, added)  # a clash is told before the file is read
    size = file.stat().st_size
    with Progress(f"checking {file}", total=size, unit="bytes", brief=True) as progress:
        rows, kinds = survey(source, options, progress.reach)
    return {**ran, "rows": rows, "kinds": kinds}


def _columns(facts: Mapping[str, Any], out: Path) -> Mapping[str, Kind]:
    """The columns of JSONL, which only all of its rows tell."""
    if facts["kinds"] is not None:
        kinds: Mapping[str, Kind] = facts["kinds"]
        return kinds
    if writes_any_columns(out):
        return {}
    raise OptionError(
        "the columns of JSONL are known when all of it was read: give it with --file, or write "
        "--out as .jsonl"
    )


def added_columns(tasks: Sequence[Task], args: argparse.Namespace) -> Mapping[str, Kind]:
    """Names and kinds of the columns that hold what `values_of` gives.

    These are TASK, TASK_probability, TASK_sure and, if asked for, one per label, and the depth of
    the stage that answered.

    Raises:
        OptionError: two of them would have the same name.
    """
    columns: list[tuple[str, Kind]] = []
    for task in tasks:
        name = args.prefix + task.name
        columns += [(name, "text"), (f"{name}_probability", "number"), (f"{name}_sure", "truth")]
        if args.probabilities:
            columns += [(f"{name}_probability_{label}", "number") for label in task.labels]
    if args.depth_column:
        columns.append((f"{args.prefix}depth", "whole"))
    if twice := [name for name, count in Counter(name for name, _ in columns).items() if count > 1]:
        raise OptionError(
            f"the answers would take two columns {twice[0]!r}; ask for less: choose --tasks, or "
            "leave --depth-column out"
        )
    return dict(columns)


def values_of(prediction: Prediction | None, args: argparse.Namespace) -> list[Any] | None:
    """A row's values; probabilities to six digits."""
    if prediction is None:
        return None
    values: list[Any] = []
    for answer in prediction.values():
        values += [answer.label, round(answer.probability, 6), answer.sure]
        if args.probabilities:
            values += [round(value, 6) for value in answer.probabilities.values()]
    if args.depth_column:
        values.append(prediction.depth)
    return values
