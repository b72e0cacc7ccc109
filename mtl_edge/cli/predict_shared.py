"""What both ways of `mtl-edge predict` do alike."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.classifier import EdgeClassifier, Prediction
from mtl_edge.cli.reading import note
from mtl_edge.cli.stopping import Stopped
from mtl_edge.io.chunks import Table

__all__ = ["load", "predictions_of", "stopped", "told"]

TERMINATED = 128 + signal.SIGTERM


def load(args: argparse.Namespace, facts: Mapping[str, Any] | None = None) -> EdgeClassifier:
    """The classifier that the options ask for; with `facts`, the one that a stopped run had."""
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


def told(table: Table) -> None:
    """Say what of an input was not read as it stands."""
    if (text := table.tally.note()) is not None:
        note(f"{table.name}: {text}")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def stopped(stop: Stopped, advice: str) -> int:
    """Say that a signal came, and return the exit code."""
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt(advice) from None
    print(f"mtl-edge: stopped; {advice}", file=sys.stderr)
    return TERMINATED
