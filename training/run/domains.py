"""The domain of each task of a run: its gate, from the run's texts, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from mtl_edge.answers.kinds import kind_of
from mtl_edge.errors import OptionError
from mtl_edge.training.data import TaskData, spread
from mtl_edge.training.domain.gate import GateWeights, certainty_of
from mtl_edge.training.domain.solve import (
    CONFIDENCE,
    Gate,
    GateTexts,
    bound_of,
    fewest_texts,
    solve_gate,
)
from mtl_edge.training.folds import OutOfFold
from mtl_edge.training.run.corpus import Corpus
from mtl_edge.training.run.learn import Heads, Learned
from mtl_edge.training.run.plan import RunPlan
from mtl_edge.training.run.predictors import Predictor, Values

__all__ = ["Domains", "fit_domains", "kept_texts", "require_foreign"]

MOST_OWN = 10_000
MOST_OTHERS = 3_000  # texts of other tasks
# How much all texts of a kind weigh, beside all own ones.
SHARE_OF_FOREIGN = 1.0


@dataclass(frozen=True, slots=True)
class Domains:
    """What came of fitting.

    Attributes:
        gates: by depth and task.
        reports: by task: `share` and `confidence` of the promise, `depths` with `threshold`, own
            `rows`, how many were `refused`, and whether the head's `certainty` counts; `reported`,
            see `_figures`.
    """

    gates: Mapping[int, GateWeights]
    reports: Mapping[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Foreign:
    """Positions of texts that are not of a task's domain.

    Attributes:
        others: of other tasks.
        none: that were marked so.
    """

    others: Sequence[int]
    none: Sequence[int]

    @property
    def texts(self) -> list[int]:
        return [*self.others, *self.none]

    def weights(self, own: int) -> list[float]:
        """Of each of `texts`; both kinds weigh the same."""
        groups = [len(self.others), len(self.none)]
        each = SHARE_OF_FOREIGN * own / sum(count > 0 for count in groups)
        return [each / count for count in groups for _ in range(count)]

    def parts(self, values: Values) -> dict[str, Values]:
        """Values of `texts`, by where they come from."""
        split = len(self.others)
        found = {"other_tasks": values[:split], "none": values[split:]}
        return {name: part for name, part in found.items() if len(part)}


def kept_texts(plan: RunPlan) -> dict[str, list[str]]:
    """Texts of the start's tasks without rows here, which are foreign to the others."""
    if plan.options.in_domain is None or plan.start is None:
        return {}
    names = [task.name for task in plan.kept_tasks]
    return {name: [s.text for s in plan.start.samples if s.task == name] for name in names}


def require_foreign(plan: RunPlan, corpus: Corpus) -> None:
    """
    Raises:
        OptionError: a task's domain is to be fitted, and there is no text that is foreign to it.
    """
    for task in plan.tasks if plan.options.in_domain is not None else ():
        own = {*corpus.learned_from[task.name], *corpus.reported[task.name].rows}
        if not corpus.none[task.name] and not _others(corpus.learned_from, task.name, own):
            raise OptionError(
                f"--in-domain learns what is foreign to task {task.name!r} from texts that are not "
                "among its own, and there is none; give other tasks, or mark rows with --none LABEL"
            )


def fit_domains(
    plan: RunPlan,
    corpus: Corpus,
    learned: Learned,
    heads: Heads,
    validation: Mapping[str, Mapping[int, Values]],
    out_of_fold: Mapping[str, OutOfFold],
) -> Domains:
    """Fit the gates of all tasks with rows here; those of the start's other tasks stay.

    Args:
        validation: by task and depth, logits of `corpus.validation` by heads that had not seen it.
        out_of_fold: see `mtl_edge.training.folds`.
    """
    gates: dict[int, dict[str, Tensor]] = {depth: {} for depth in heads}
    reports: dict[str, dict[str, Any]] = {}
    share = plan.options.in_domain
    if share is None:
        return Domains(gates, reports)
    for task in plan.tasks:
        fitting = _Fitting(task, corpus, learned.predictor, heads, share / 100)
        found = {
            depth: fitting.best(
                depth, _held_out(task, corpus, depth, validation[task.name], out_of_fold)
            )
            for depth in heads
        }
        for depth, (gate, _, _) in found.items():
            gates[depth][task.name] = gate.weights
        reports[task.name] = {
            "share": share / 100,
            "confidence": CONFIDENCE,
            "depths": {str(depth): fitting.record(*one) for depth, one in found.items()},
            "reported": fitting.reported(plan.depth, *found[plan.depth]),
        }
    return Domains(gates, reports)


def _held_out(
    task: TaskData,
    corpus: Corpus,
    depth: int,
    validation: Mapping[int, Values],
    out_of_fold: Mapping[str, OutOfFold],
) -> dict[int, Values]:
    """Logits of own texts by heads that had not seen them, by the text's position."""
    rows, logits = corpus.validation[task.name].rows, validation[depth]
    found = out_of_fold.get(task.name)
    if not task.few and found is not None and depth in found.logits:
        rows = [*corpus.training[task.name].rows, *rows]
        logits = found.logits[depth]
    return dict(zip(rows, logits, strict=True))


class _Fitting:
    """One task's gates, of each depth.

    Args:
        share: of own texts that may be called foreign.
    """

    def __init__(
        self, task: TaskData, corpus: Corpus, predictor: Predictor, heads: Heads, share: float
    ) -> None:
        self._task, self._corpus, self._predictor = task, corpus, predictor
        self._share = share
        self._heads = {depth: of_depth[task.name] for depth, of_depth in heads.items()}
        name = task.name
        own = [*corpus.training[name].rows, *corpus.validation[name].rows]
        self._own = spread(sorted(set(own)), MOST_OWN)
        everything = {*own, *corpus.reported[name].rows}
        self._foreign = _Foreign(_others(corpus.learned_from, name, everything), corpus.none[name])
        self._logits = predictor.logits(name, self._heads, self._foreign.texts)

    def best(self, depth: int, held_out: Mapping[int, Values]) -> tuple[Gate, GateTexts, float]:
        """The gate that finds most foreign texts, what it was fitted to, and at what level.

        Either from all own texts, or from those that some head had not seen, so that how certain it
        is of them can count.
        """
        foreign = self._predictor.pooled(self._foreign.texts, depth)
        ways = [self._texts(depth, self._own, None, foreign)]
        level = 1 - CONFIDENCE
        if self._task.task.kind != "score" and (
            len(held_out) >= fewest_texts(self._share, level / 2)
        ):
            own = sorted(held_out)
            logits = np.stack([held_out[text] for text in own])
            ways.append(self._texts(depth, own, logits, foreign))
            level /= 2  # one of two is chosen
        gates = [solve_gate(texts, self._share, level) for texts in ways]
        found = [self._recall(gate, texts) for gate, texts in zip(gates, ways, strict=True)]
        best = int(np.argmax(found))
        return gates[best], ways[best], level

    def _texts(
        self, depth: int, own: Sequence[int], logits: Values | None, foreign: Values
    ) -> GateTexts:
        certainty = None
        if logits is not None:
            certainty = self._certainty(np.concatenate([logits, self._logits[depth]]))
        means = np.concatenate([self._predictor.pooled(own, depth), foreign])
        weights = [*[1.0] * len(own), *self._foreign.weights(len(own))]
        is_own = np.arange(len(means)) < len(own)
        return GateTexts(means, certainty, is_own, np.array(weights, np.float32))

    def _certainty(self, logits: Values) -> Values:
        found: Values = certainty_of(self._task.task, torch.from_numpy(logits)).numpy()
        return found

    def _recall(self, gate: Gate, texts: GateTexts) -> float:
        """Share of foreign texts that are found, the mean over where they come from."""
        parts = self._foreign.parts(_refused(gate, gate.logits[~texts.own]).astype(np.float32))
        return float(np.mean([part.mean() for part in parts.values()]))

    def record(self, gate: Gate, texts: GateTexts, level: float) -> dict[str, Any]:
        """What was found at one depth."""
        rows = int(texts.own.sum())
        return {
            "threshold": gate.threshold,
            "rows": rows,
            "refused": gate.refused,
            "bound": bound_of(gate.refused, rows, level),
            "certainty": texts.certainty is not None,
        }

    def reported(self, depth: int, gate: Gate, texts: GateTexts, level: float) -> dict[str, Any]:
        """Figures on dev rows; without such, of each text by a gate that had not seen it."""
        if self._task.dev is None:
            parts = self._foreign.parts(gate.logits[~texts.own])
            return {"split": "out of fold", **_figures(gate, gate.logits[texts.own], parts)}
        name, corpus = self._task.name, self._corpus
        own = corpus.reported[name].rows
        reported = {task: rows.rows for task, rows in corpus.reported.items()}
        foreign = _Foreign(_others(reported, name, {*own, *self._own}), corpus.none_of_dev[name])
        texts_asked = [*own, *foreign.texts]
        head = {depth: self._heads[depth]}
        logits = self._predictor.logits(name, head, texts_asked)[depth]
        weights = gate.weights.numpy()
        asked = self._predictor.pooled(texts_asked, depth) @ weights[:-2] + weights[-1]
        if texts.certainty is not None:
            asked = asked + weights[-2] * self._certainty(logits)
        found = _figures(gate, asked[: len(own)], foreign.parts(asked[len(own) :]))
        if self._task.task.kind == "single":
            largest = kind_of(self._task.task).values(self._task.task, logits).max(1)
            for part, values in foreign.parts(largest[len(own) :]).items():
                found[part]["auroc_of_largest_probability"] = _auroc(largest[: len(own)], values)
        return {"split": "dev", **found}


def _others(rows: Mapping[str, Sequence[int]], name: str, own: set[int]) -> list[int]:
    """Texts of other tasks that are not the task's own, of each task alike many."""
    others = {task: sorted(set(of_task) - own) for task, of_task in rows.items() if task != name}
    most = MOST_OTHERS // max(1, len(others))
    return sorted({text for of_task in others.values() for text in spread(of_task, most)})


def _refused(gate: Gate, logits: Values) -> npt.NDArray[np.bool_]:
    refused: npt.NDArray[np.bool_] = (np.tanh(logits / 2) + 1) / 2 < gate.threshold
    return refused


def _figures(gate: Gate, own: Values, parts: Mapping[str, Values]) -> dict[str, Any]:
    """Own rows, and the share of them that is refused; of foreign ones the same, and AUROC."""
    return {
        "rows": len(own),
        "refused": float(_refused(gate, own).mean()),
        **{
            name: {
                "rows": len(values),
                "refused": float(_refused(gate, values).mean()),
                "auroc": _auroc(own, values),
            }
            for name, values in parts.items()
        },
    }


def _auroc(own: Values, foreign: Values) -> float:
    """Area under the curve: how often an own text has the larger value of the two."""
    ranks = rankdata(np.concatenate([own, foreign]))[: len(own)]
    pairs = len(own) * len(foreign)
    return float((ranks.sum() - len(own) * (len(own) + 1) / 2) / pairs)
