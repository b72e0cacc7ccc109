"""Outputs before times: a system that answers otherwise than was promised is not timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_edge.benchmarks.core.record import Check
from mtl_edge.benchmarks.core.system import System
from mtl_edge.engines import Logits
from mtl_edge.errors import EngineError, MtlEdgeError

__all__ = ["LEAST_AGREEMENT", "Checked", "agreement", "check"]

LEAST_AGREEMENT = 0.9  # as export demands of every graph


@dataclass(frozen=True, slots=True)
class Checked:
    """Which systems may be timed.

    Attributes:
        sound: those to be timed, in their order.
        failed: why the others are not.
    """

    sound: list[System]
    failed: dict[str, str]
    checks: list[Check]


@dataclass(frozen=True, slots=True)
class _Output:
    ids: list[list[int]]
    logits: Logits | None  # None: not finite

    @property
    def finite(self) -> bool:
        return self.logits is not None and all(np.isfinite(o).all() for o in self.logits.values())


def check(systems: Sequence[System], texts: Sequence[str], *, own_ids: bool = False) -> Checked:
    """Compare ids, logits and labels with those of the first that has any.

    Args:
        own_ids: the torch model has ids of its own, as of a bundle with fewer words.

    Raises:
        EngineError: no system gives finite logits.
    """
    sound: list[System] = []
    failed: dict[str, str] = {}
    checks: list[Check] = []
    expected: _Output | None = None
    for system in systems:
        ids = system.ids(texts)
        try:
            found = _Output(ids, {t: np.asarray(out) for t, out in system.logits(texts).items()})
        except MtlEdgeError as error:  # the runtime refuses logits that are not finite, too
            found, reason = _Output(ids, None), str(error)
        else:
            reason = "" if found.finite else "its logits are not finite"
        compared = _compared(system.name, expected or found, found)
        checks.append(compared)
        if reason := reason or _reason(compared, own_ids):
            failed[system.name] = reason
        else:
            sound.append(system)
            expected = expected or found
    if not sound:
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise EngineError(f"no system gives outputs that can be used, so none is timed: {told}")
    return Checked(sound, failed, checks)


def agreement(logits: Logits, expected: Logits) -> float:
    """Share of rows with the same label, the lowest over the tasks."""
    return min(
        float((out.argmax(1) == expected[task].argmax(1)).mean()) for task, out in logits.items()
    )


def _compared(name: str, expected: _Output, found: _Output) -> Check:
    same = found.ids == expected.ids
    if not found.finite or found.logits is None or expected.logits is None:
        return Check(name, len(found.ids), same, None, None)
    right = expected.logits
    return Check(
        system=name,
        texts=len(found.ids),
        same_ids=same,
        largest_difference=max(
            float(np.abs(out - right[task]).max()) for task, out in found.logits.items()
        ),
        agreement=agreement(found.logits, right),
    )


def _reason(found: Check, own_ids: bool) -> str:
    """Why the system is not to be timed; empty: it is."""
    if not (found.same_ids or own_ids):
        return "its token ids differ from the first system's: it has another tokenizer"
    if found.agreement is not None and found.agreement < LEAST_AGREEMENT:
        return (
            f"its labels agree with the first system's on {found.agreement:.1%} of "
            f"{found.texts} texts, expected {LEAST_AGREEMENT:.0%} or more: export it again"
        )
    return ""
