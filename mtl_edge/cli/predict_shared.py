"""What both ways of `mtl-edge predict` do alike."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from typing import Any

from mtl_edge.classifier import EdgeClassifier
from mtl_edge.cli.stopping import Stopped

__all__ = ["load", "stopped"]

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


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def stopped(stop: Stopped, advice: str) -> int:
    """Say that a signal came, and return the exit code."""
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt(advice) from None
    print(f"mtl-edge: stopped; {advice}", file=sys.stderr)
    return TERMINATED
