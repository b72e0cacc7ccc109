"""What `mtl-edge predict` does alike for a terminal and for a file."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.classifier import EdgeClassifier, Prediction
from mtl_edge.cli.reading import note
from mtl_edge.cli.signals import Stopped
from mtl_edge.io.chunks import OpenedTable

__all__ = ["exit_code_of", "load", "note_tally", "predictions_of"]

TERMINATED = 128 + signal.SIGTERM


def load(args: argparse.Namespace, facts: Mapping[str, Any] | None = None) -> EdgeClassifier:
    """The classifier that the options ask for.

    Args:
        facts: of the stopped run that this one resumes, whose engine and graph are taken.
    """
    facts = facts or {}
    return EdgeClassifier.load(
        args.bundle,
        engine=facts.get("engine", args.engine),
        target=facts.get("graph", args.target),
        threads=args.threads,
        device=args.device,
        public_key=args.public_key,
        tasks=_names(args.tasks),
        max_depth=args.max_depth,
        depth_for=_names(args.depth_for),
    )


def predictions_of(
    classifier: EdgeClassifier, texts: Sequence[str | None]
) -> list[Prediction | None]:
    """A prediction for each row, None for those that are passed over."""
    found = iter(classifier.predict([text for text in texts if text is not None]))
    return [None if text is None else next(found) for text in texts]


def note_tally(table: OpenedTable) -> None:
    """Print a note of the rows that were not read as they stand, if there are any."""
    if (text := table.tally.note()) is not None:
        note(f"{table.name}: {text}")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def exit_code_of(stop: Stopped, advice: str) -> int:
    """The exit code of a run that a signal stopped; what to do next is printed."""
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt(advice) from None
    print(f"mtl-edge: stopped; {advice}", file=sys.stderr)
    return TERMINATED
