"""`mtl-edge predict --out`: rows and answers to a file that is whole or not there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from mtl_edge.bundle import MANIFEST
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.predict_shared import load, stopped
from mtl_edge.cli.progress import Progress
from mtl_edge.cli.stopping import Stopped, Stopper
from mtl_edge.errors import DataError, OptionError
from mtl_edge.files import sha256_of
from mtl_edge.limits import Limits
from mtl_edge.rows.answers import added_columns, predictions_of, values_of
from mtl_edge.rows.formats import Writer, writer_of
from mtl_edge.rows.model import Answers, Columns, Kind, layout_of
from mtl_edge.rows.output import Output, require_no_file
from mtl_edge.rows.source import Source, fingerprint, open_rows, survey
from mtl_edge.version import __version__

__all__ = ["write"]


def write(args: argparse.Namespace, source: Source, stopper: Stopper) -> int:
    """Write rows and answers to --out."""
    writer = writer_of(args.out)
    require_no_file(args.out, overwrite=args.overwrite)
    made_by = _made_by(args, source)
    output = Output(args.out, made_by, restart=args.restart, lasting=source.regular)
    try:
        with output, load(args, output.facts) as classifier:
            more = {"probabilities": args.probabilities, "depth": args.depth_column}
            added = added_columns(classifier.tasks, prefix=args.prefix, **more)
            facts = output.facts or _facts(source, classifier, added)
            with open_rows(source, output.mark) as ((columns, chunks), _):
                layout = layout_of(columns or _columns(facts, writer), added)
                output.begin(writer.header(layout), facts)
                if output.mark.rows:
                    print(f"note: going on behind row {output.mark.rows:,}", file=sys.stderr)
                with Progress(
                    str(args.out), total=facts["rows"], unit="rows", done=output.mark.rows
                ) as progress:
                    for chunk in chunks:
                        with stopper.step():
                            answers: Answers = [
                                values_of(prediction, **more)
                                for prediction in predictions_of(classifier, chunk)
                            ]
                            output.append(writer.encode(layout, chunk, answers), chunk.mark)
                            progress.reach(chunk.mark.rows)
                    _require_unchanged(source, made_by)
                    if writer.finish is not None:
                        output.convert(writer.finish)
                    with stopper.step():
                        output.finish()
    except Stopped as stop:
        if not output.done:
            return stopped(stop, output.advice)
    return 0


def _made_by(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What decides the output, as far as it is known before anything is loaded."""
    manifest = args.bundle / MANIFEST
    options = (
        "column", "missing", "tasks", "probabilities", "prefix", "engine", "target", "max_depth",
        "depth_for", "depth_column",
    )  # fmt: skip
    return {
        "version": __version__,
        "bundle": sha256_of(manifest) if manifest.is_file() else None,
        "input": fingerprint(source.path) if source.path and source.regular else None,
        "format": source.format,
        "device": args.device,
        **{option: getattr(args, option) for option in options},
    }


def _facts(source: Source, classifier: EdgeClassifier, added: Mapping[str, Kind]) -> dict[str, Any]:
    """What a run finds out at its start, and one that goes on must not find otherwise."""
    ran = {"graph": classifier.info.target, "engine": classifier.info.engine}
    if source.texts is not None:
        return {**ran, "rows": len(source.texts), "kinds": None}
    if source.path is None or not source.regular:
        return {**ran, "rows": None, "kinds": None}
    with open_rows(source) as ((columns, _), _):
        if columns is not None:
            layout_of(columns, added)  # a clash is told before the file is read
    size = source.path.stat().st_size
    with Progress(f"checking {source.name}", total=size, unit="bytes", brief=True) as progress:
        found = survey(source, Limits(), progress.reach)
    return {**ran, "rows": found.rows, "kinds": found.kinds}


def _columns(facts: Mapping[str, Any], writer: Writer) -> Columns:
    """The columns of JSONL, which only all of its rows tell."""
    if facts["kinds"] is not None:
        return Columns(facts["kinds"])
    if writer.any_columns:
        return Columns({})
    raise OptionError(
        "the columns of JSONL are known when all of it was read: give it with --file, or write "
        "--out as .jsonl"
    )


def _require_unchanged(source: Source, made_by: Mapping[str, Any]) -> None:
    if source.path and made_by["input"] not in (None, fingerprint(source.path)):
        raise DataError(f"{source.name} changed while it was read; begin anew with --restart")
