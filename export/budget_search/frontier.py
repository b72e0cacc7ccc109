"""What a search found: candidates with their figures, the one that a budget chooses, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mtl_edge.errors import ExportError
from mtl_edge.export.budget_search.budget import QUANTITIES, Limit

__all__ = ["FRONTIER", "Candidate", "Frontier", "Plan", "choose", "standard_error", "table"]

FRONTIER = "frontier.json"
SPEED = "p50"  # decides among the equally accurate where the budget names no speed
NEAREST = 3
CHOSEN, WITHIN = "*", "-"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bundle is made of.

    Attributes:
        depth: layers of the encoder.
        stages: layers of each cheaper stage before it.
        target: the graph's.
    """

    depth: int
    stages: tuple[int, ...]
    target: str

    @property
    def layers(self) -> str:
        """As tables have it."""
        return " then ".join(map(str, (*self.stages, self.depth)))

    def __str__(self) -> str:
        layers = f"{self.layers} layers" if self.stages else f"depth {self.depth}"
        return f"{self.target}, {layers}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that could be written.

    Attributes:
        accuracy: by task, on the validation rows, a share.
        figures: by quantity, in the units of `mtl_edge.export.budget_search.budget`.
        reported: by task, accuracy on the rows that training reported on, and which those are; it
            chooses nothing.
    """

    plan: Plan
    accuracy: Mapping[str, float]
    figures: Mapping[str, float]
    reported: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean_accuracy(self) -> float:
        return sum(self.accuracy.values()) / len(self.accuracy)

    def missed(self, limits: Sequence[Limit]) -> list[Limit]:
        """The limits that it does not keep."""
        return [limit for limit in limits if not limit.kept(self.figures[limit.name])]


@dataclass(frozen=True, slots=True)
class Frontier:
    """All candidates of one search.

    Attributes:
        rows: by task, how many rows chose.
        fp32: by task, accuracy of the torch model at full depth on them.
        measured: what the times were measured on: machine, texts, passes.
        left_out: what could not be a candidate, and why.
    """

    limits: tuple[Limit, ...]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    rows: Mapping[str, int]
    fp32: Mapping[str, float]
    measured: Mapping[str, Any]
    left_out: Sequence[str] = ()

    @property
    def budget(self) -> str:
        """As the user wrote it."""
        return ", ".join(map(str, self.limits))

    def to_json(self) -> dict[str, Any]:
        """For `frontier.json`: latencies in ms, size in bytes, drop in points, accuracy a share."""
        return {
            "budget": self.budget,
            "rows": dict(self.rows),
            "fp32": dict(self.fp32),
            "measured": dict(self.measured),
            "candidates": [
                {
                    **asdict(one.plan),
                    "accuracy": dict(one.accuracy),
                    "figures": dict(one.figures),
                    "reported": dict(one.reported),
                    "missed": [limit.name for limit in one.missed(self.limits)],
                    "chosen": one is self.chosen,
                }
                for one in self.candidates
            ],
            "left_out": list(self.left_out),
        }


def choose(
    candidates: Sequence[Candidate], limits: Sequence[Limit], rows: Mapping[str, int]
) -> Candidate:
    """The most accurate within the budget or, of those that chance may put below it, the fastest.

    Within half a standard error of the best mean accuracy, the one that is best in the first speed
    that the budget names, or else in p50.

    Args:
        rows: by task, how many rows accuracy was measured on.

    Raises:
        ExportError: none is within the budget; the message names the nearest.
    """
    within = [one for one in candidates if not one.missed(limits)]
    if not within:
        raise ExportError(_nearest(candidates, limits))
    best = max(within, key=lambda one: one.mean_accuracy)
    least = best.mean_accuracy - standard_error(best, rows) / 2
    equal = [one for one in within if one.mean_accuracy >= least]
    named = [limit.name for limit in limits if limit.quantity.speed]
    speed = (named or [SPEED])[0]
    sign = 1 if QUANTITIES[speed].at_most else -1
    return min(equal, key=lambda one: (sign * one.figures[speed], -one.mean_accuracy))


def standard_error(candidate: Candidate, rows: Mapping[str, int]) -> float:
    """Of its mean accuracy over tasks, as if their rows were drawn apart: binomial."""
    variance = sum(p * (1 - p) / rows[task] for task, p in candidate.accuracy.items())
    return float(variance**0.5) / len(candidate.accuracy)


def _nearest(candidates: Sequence[Candidate], limits: Sequence[Limit]) -> str:
    def excess(one: Candidate) -> float:
        return sum(limit.excess(one.figures[limit.name]) for limit in limits)

    nearest = [
        f"{one.plan} ("
        + ", ".join(
            f"{limit.name} is {limit.quantity.show(one.figures[limit.name])}, not {limit}"
            for limit in one.missed(limits)
        )
        + ")"
        for one in sorted(candidates, key=excess)[:NEAREST]
    ]
    return (
        f"none of {len(candidates)} candidates is within the budget; the nearest: "
        f"{'; '.join(nearest)}. Allow more, or train heads for more depths with --all-depths or "
        "--exits"
    )


def table(
    candidates: Sequence[Candidate],
    limits: Sequence[Limit],
    rows: Mapping[str, int],
    chosen: Candidate | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Header and rows; the last column marks the chosen one, or says which limits are missed."""
    header = ["layers", "graph", *(f"{task} % of {count}" for task, count in rows.items())]
    header += ["drop", *(name for name in QUANTITIES if name != "drop"), "misses"]
    lines = []
    for one in candidates:
        figures = [QUANTITIES[n].show(one.figures[n]) for n in QUANTITIES if n != "drop"]
        missed = ", ".join(limit.name for limit in one.missed(limits))
        lines.append(
            [
                one.plan.layers,
                one.plan.target,
                *(f"{100 * one.accuracy[task]:.1f}" for task in rows),
                QUANTITIES["drop"].show(one.figures["drop"]),
                *figures,
                f"{CHOSEN} chosen" if one is chosen else missed or WITHIN,
            ]
        )
    return header, lines
