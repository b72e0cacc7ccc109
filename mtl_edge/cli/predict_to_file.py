"""`mtl-edge predict --out`: rows and answers to a file that is whole or not there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtl_edge.bundle import MANIFEST
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.answer_columns import added_columns, values_of
from mtl_edge.cli.predict_shared import exit_code_of, load, note_tally, predictions_of
from mtl_edge.cli.progress import Progress
from mtl_edge.cli.reading import note
from mtl_edge.cli.signals import Stopped, Stopper
from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.chunks import Chunk, Kind, OpenedTable, texts_of
from mtl_edge.io.folders import sha256_of, sync_file
from mtl_edge.io.read_options import ReadOptions
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

__all__ = ["write_predictions"]


def write_predictions(
    args: argparse.Namespace, source: Source, options: ReadOptions, stopper: Stopper
) -> int:
    """Write rows and answers to --out.

    Answers are kept as they come; when all are there, the file is written at one go.
    """
    writer = writer_of(args.out)
    require_no_file(args.out, overwrite=args.overwrite)
    file = args.file if args.file is not None and args.file.is_file() else None
    settings = _settings(args, file, options)
    store = Store(args.out, settings, restart=args.restart, resumable=file is not None)
    try:
        with store, load(args, store.facts) as classifier:
            added = added_columns(classifier.tasks, args, classifier.manifest.domain)
            facts = store.facts or _surveyed(source, file, options, classifier, added)
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
                note_tally(table)
            if file is not None:
                pairs = _with_kept_answers(file, options, settings["input"], store)
                _publish(args.out, writer, layout, pairs, store, stopper)
    except Stopped as stop:
        if not store.done:
            return exit_code_of(stop, store.advice)
    return 0


def _answered(
    classifier: EdgeClassifier,
    table: OpenedTable,
    options: ReadOptions,
    store: Store,
    facts: Mapping[str, Any],
    stopper: Stopper,
    args: argparse.Namespace,
) -> Iterator[tuple[Chunk, Answers]]:
    """Each chunk with its answers, from where a stopped run left off."""
    if store.rows:
        note(f"going on behind row {store.rows:,}")
    with Progress(str(args.out), total=facts["rows"], unit="rows", done=store.rows) as progress:
        for chunk in table.chunks:
            texts = texts_of(table, chunk, options)
            if chunk.last <= store.rows:
                continue
            with stopper.step():
                found = predictions_of(classifier, texts)
                yield chunk, [values_of(one, classifier.tasks, args) for one in found]
                progress.reach(chunk.last)


def _with_kept_answers(
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
    """Write rows and answers to a file that gets its name when it is whole."""
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


def _settings(args: argparse.Namespace, file: Path | None, options: ReadOptions) -> dict[str, Any]:
    """Everything that decides the output and is known before anything is loaded."""
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


def _surveyed(
    source: Source,
    file: Path | None,
    options: ReadOptions,
    classifier: EdgeClassifier,
    added: Mapping[str, Kind],
) -> dict[str, Any]:
    """Engine, graph, and the input's size and columns: a run that resumes this one keeps them."""
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
    """The columns of JSONL, which are known once all rows are read."""
    if facts["kinds"] is not None:
        kinds: Mapping[str, Kind] = facts["kinds"]
        return kinds
    if writes_any_columns(out):
        return {}
    raise OptionError(
        "the columns of JSONL are known when all of it was read: give it with --file, or write "
        "--out as .jsonl"
    )
