"""`mtl-edge predict --out`: rows and answers to a file that is whole or not there."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
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
from mtl_edge.files import sha256_of
from mtl_edge.io.model import Kind, ReadOptions, texts_of
from mtl_edge.io.output import Output, require_no_file
from mtl_edge.io.source import Source, fingerprint, open_table, survey
from mtl_edge.io.writers import Writer, layout_of, writer_of
from mtl_edge.version import __version__

__all__ = ["write"]


def write(args: argparse.Namespace, source: Source, options: ReadOptions, stopper: Stopper) -> int:
    """Write rows and answers to --out."""
    writer = writer_of(args.out)
    require_no_file(args.out, overwrite=args.overwrite)
    file = args.file if args.file is not None and args.file.is_file() else None
    made_by = _made_by(args, file, options)
    output = Output(args.out, made_by, restart=args.restart, lasting=file is not None)
    try:
        with output, load(args, output.facts) as classifier:
            added = added_columns(classifier.tasks, args)
            facts = output.facts or _facts(source, file, options, classifier, added)
            with open_table(source, options) as table:
                columns = table.columns if table.columns is not None else _columns(facts, writer)
                layout = layout_of(columns, added, table.schema)
                output.begin(writer.header(layout), facts)
                if output.rows:
                    note(f"going on behind row {output.rows:,}")
                with Progress(
                    str(args.out), total=facts["rows"], unit="rows", done=output.rows
                ) as progress:
                    for chunk in table.chunks:
                        texts = texts_of(table, chunk, options)
                        if chunk.last <= output.rows:
                            continue
                        with stopper.step():
                            found = predictions_of(classifier, texts)
                            answers = [values_of(prediction, args) for prediction in found]
                            output.append(writer.encode(layout, chunk, answers), chunk.last)
                            progress.reach(chunk.last)
                    if file is not None and made_by["input"] != fingerprint(file):
                        raise DataError(
                            f"{file} changed while it was read; begin anew with --restart"
                        )
                    with stopper.step():
                        output.finish(writer.finish)
                told(table)
    except Stopped as stop:
        if not output.done:
            return stopped(stop, output.advice)
    return 0


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


def _columns(facts: Mapping[str, Any], writer: Writer) -> Mapping[str, Kind]:
    """The columns of JSONL, which only all of its rows tell."""
    if facts["kinds"] is not None:
        kinds: Mapping[str, Kind] = facts["kinds"]
        return kinds
    if writer.any_columns:
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
