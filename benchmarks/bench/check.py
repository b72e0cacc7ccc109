"""Outputs before times: whoever answers otherwise than was promised is not timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_edge.benchmarks.bench.entrants import Entrant
from mtl_edge.benchmarks.bench.schema import Check
from mtl_edge.engines import Logits
from mtl_edge.errors import EngineError, MtlEdgeError

__all__ = ["LEAST_AGREEMENT", "Checked", "check"]

LEAST_AGREEMENT = 0.9  # as export demands of every graph


@dataclass(frozen=True, slots=True)
class Checked:
    """
    Attributes:
        sound: those to be timed, in their order.
        failed: why the others are not.
    """

    sound: list[Entrant]
    failed: dict[str, str]
    checks: list[Check]


def check(entrants: Sequence[Entrant], texts: Sequence[str], *, own_ids: bool = False) -> Checked:
    """Compare ids, logits and labels with those of the first that has any.

    Args:
        own_ids: the torch model has ids of its own, as of a bundle with fewer words.

    Raises:
        EngineError: nobody gives finite logits.
    """
    sound: list[Entrant] = []
    failed: dict[str, str] = {}
    checks: list[Check] = []
    expected: tuple[list[list[int]], Logits] | None = None
    for entrant in entrants:
        ids = entrant.ids(texts)
        try:
            logits = {task: np.asarray(out) for task, out in entrant.logits(texts).items()}
        except MtlEdgeError as error:  # the runtime refuses logits that are not finite, too
            failed[entrant.name] = str(error)
            same = expected is None or expected[0] == ids
            checks.append(Check(entrant.name, len(texts), same, None, None))
            continue
        expected = expected or (ids, logits)
        found = _compared(entrant.name, expected, (ids, logits))
        checks.append(found)
        if reason := _reason(found, own_ids):
            failed[entrant.name] = reason
            if expected[1] is logits:
                expected = None
        else:
            sound.append(entrant)
    if not sound:
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise EngineError(f"no contender gives outputs that can be used, so none is timed: {told}")
    return Checked(sound, failed, checks)


def _compared(
    name: str, expected: tuple[list[list[int]], Logits], found: tuple[list[list[int]], Logits]
) -> Check:
    (right_ids, right), (ids, logits) = expected, found
    texts, same = len(ids), ids == right_ids
    if not all(np.isfinite(out).all() for out in logits.values()):
        return Check(name, texts, same, None, None)
    return Check(
        contender=name,
        texts=texts,
        same_ids=same,
        most_logit_difference=max(float(np.abs(out - right[t]).max()) for t, out in logits.items()),
        agreement=min(
            float((out.argmax(1) == right[t].argmax(1)).mean()) for t, out in logits.items()
        ),
    )


def _reason(found: Check, own_ids: bool) -> str | None:
    """Why the contender is not to be timed, if it is not."""
    if found.agreement is None:
        return "its logits are not finite"
    if not (found.same_ids or own_ids):
        return "its token ids differ from the first contender's: it has another tokenizer"
    if found.agreement < LEAST_AGREEMENT:
        return (
            f"its labels agree with the first contender's on {found.agreement:.1%} of "
            f"{found.texts} texts, expected {LEAST_AGREEMENT:.0%} or more: export it again"
        )
    return None
