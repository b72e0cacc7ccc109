"""`mtl-edge export --budget`: all that a checkpoint could become, measured on this machine.

Candidates are the depths that have heads, cheaper stages before full depth where there are answers
to fit them on, and each target. Each is exported and proven like any bundle, in a temporary folder.
Then each answers the validation rows (split `selection`) through the runtime, one text at a time
and many in a call.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.answers.kinds import decided, kind_of
from mtl_edge.bundle import Manifest, Task, open_bundle, read_manifest, write_manifest
from mtl_edge.choosing.machine import describe
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.budget_search.budget import Limit
from mtl_edge.export.budget_search.candidates import (
    PASSES,
    CandidateTimes,
    build,
    measure,
    plans,
    tried,
)
from mtl_edge.export.budget_search.frontier import (
    FRONTIER,
    Candidate,
    Frontier,
    Plan,
    choose,
    table,
)
from mtl_edge.export.card import CARD, model_card
from mtl_edge.export.early_exit.exits import Promise
from mtl_edge.export.settings import Settings
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.io.labels import Label
from mtl_edge.table import text_table
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.kinds import headline, right_answers, training_kind
from mtl_edge.training.model import logits_of

__all__ = ["search"]


@dataclass(frozen=True, slots=True)
class ValidationRows:
    """Validation rows: texts of all tasks, and by task its labels and where they begin."""

    tasks: Sequence[Task]
    texts: list[str]
    labels: Mapping[str, list[Label]]
    starts: Mapping[str, int]

    def accuracy(self, decisions: Mapping[str, Any]) -> dict[str, float]:
        """By task, the figure that counts most, from decisions on all texts."""
        found = {}
        for task in self.tasks:
            own, start = self.labels[task.name], self.starts[task.name]
            answers = decisions[task.name][start : start + len(own)]
            figures = training_kind(task).figures(task, right_answers(task, own), answers)
            found[task.name] = headline(task, figures)
        return found

    @property
    def counts(self) -> dict[str, int]:
        return {task: len(own) for task, own in self.labels.items()}


def search(
    checkpoint: Checkpoint,
    out: Path,
    targets: Sequence[str],
    limits: Sequence[Limit],
    promise: Promise,
    settings: Settings,
    overwrite: bool = False,
) -> tuple[Manifest, Frontier]:
    """Write the best bundle within a budget, with all that it was chosen from.

    Args:
        limits: the budget: see `mtl_edge.export.budget_search.budget.parse`.
        promise: of cheaper stages; its depths are not looked at. All that it could be made of
            are counted as tried.
        settings: of every candidate.

    Raises:
        ExportError: no candidate could be built, or none is within the budget; nothing is written.
        OptionError: the checkpoint holds no validation rows.
        OutputExistsError: `out` exists and `overwrite` is false.
    """
    require_free(out, overwrite=overwrite)
    rows = _rows(checkpoint)
    promise = replace(promise, tried=tried(checkpoint))
    wanted, left_out = plans(checkpoint, targets, promise)
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        built = build(checkpoint, wanted, promise, settings, Path(work), left_out)
        accuracy: dict[Plan, dict[str, float]] = {}

        def look(plan: Plan, classifier: EdgeClassifier) -> None:
            accuracy[plan] = _accuracy(classifier, rows)

        measured = measure(built, rows.texts, first=look)
        unseen = _UnseenAccuracy(checkpoint, rows, accuracy)
        candidates = [
            _candidate(plan, folder, measured[plan], unseen) for plan, folder in built.items()
        ]
        try:
            chosen = choose(candidates, limits, rows.counts)
        except ExportError:
            print(f"\n{text_table(*table(candidates, limits, rows.counts))}\n", file=sys.stderr)
            raise
        frontier = Frontier(
            limits=tuple(limits),
            candidates=tuple(candidates),
            chosen=chosen,
            rows=rows.counts,
            fp32=unseen.fp32,
            measured={
                "date": date.today().isoformat(),
                "machine": describe(),
                "texts": next(iter(measured.values())).texts,
                "passes": PASSES,
            },
            left_out=left_out,
        )
        folder = list(built.values())[candidates.index(chosen)]
        return _write(folder, out, frontier, overwrite), frontier


def _rows(checkpoint: Checkpoint) -> ValidationRows:
    own = {
        task.name: [s for s in checkpoint.samples if s.split == "selection" and s.task == task.name]
        for task in checkpoint.tasks
    }
    if empty := [task for task, samples in own.items() if not samples]:
        raise OptionError(
            f"--budget: the checkpoint holds no validation rows of task {empty[0]!r} "
            "(split `selection`), by which a candidate could be chosen; train again, or choose "
            "with --depth"
        )
    starts = np.cumsum([0, *map(len, own.values())])
    return ValidationRows(
        checkpoint.tasks,
        [s.text for samples in own.values() for s in samples],
        {task: [s.label for s in samples] for task, samples in own.items()},
        dict(zip(own, starts.tolist(), strict=False)),
    )


def _accuracy(classifier: EdgeClassifier, rows: ValidationRows) -> dict[str, float]:
    found = classifier.predict(rows.texts)
    return rows.accuracy(
        {task.name: decided(task, [p[task.name] for p in found]) for task in rows.tasks}
    )


class _UnseenAccuracy:
    """What heads would get right of rows that they have not seen.

    `train --refit` has fitted some tasks' heads on the validation rows, too. What those got
    right before is on record for each depth; of a graph, what it loses to the torch model of its
    depth is counted from there, and of stages what they lose out of fold.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rows: ValidationRows,
        measured: Mapping[Plan, dict[str, float]],
    ) -> None:
        self._checkpoint, self._rows, self._measured = checkpoint, rows, measured
        tasks = [task.name for task in checkpoint.tasks]
        self._seen = [task for task in tasks if checkpoint.refitted(task)]
        self._offsets: dict[int, dict[str, float]] = {}
        full = checkpoint.depth
        recorded = self._recorded(full)
        asked = {} if self._seen == tasks else self._torch(full)
        self.fp32 = {task: (recorded if task in self._seen else asked)[task] for task in tasks}

    def of(self, plan: Plan, bundle: Manifest) -> dict[str, float]:
        """By task."""
        own = self._measured[plan]
        if not self._seen:
            return own
        if plan.stages:
            full = self.of(replace(plan, stages=()), bundle)
            lost = bundle.exits[0].promise["measured_drop"]
            return {**own, **{task: full[task] - lost[task] for task in self._seen}}
        if plan.depth not in self._offsets:
            before, now = self._recorded(plan.depth), self._torch(plan.depth)
            self._offsets[plan.depth] = {task: before[task] - now[task] for task in now}
        offset = self._offsets[plan.depth]
        unseen = {task: min(1.0, max(0.0, own[task] + offset[task])) for task in self._seen}
        return {**own, **unseen}

    def _recorded(self, depth: int) -> dict[str, float]:
        report = self._checkpoint.report
        return {
            task.name: float(report[task.name]["depths"][str(depth)]["selection_score"])
            for task in self._checkpoint.tasks
        }

    def _torch(self, depth: int) -> dict[str, float]:
        checkpoint = self._checkpoint.at(depth)
        encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
        logits = logits_of(checkpoint.model(), encoder(self._rows.texts))
        return self._rows.accuracy(
            {
                task.name: kind_of(task).decisions(
                    task, kind_of(task).values(task, logits[task.name])
                )
                for task in checkpoint.tasks
            }
        )


def _candidate(
    plan: Plan, folder: Path, measured: CandidateTimes, unseen: _UnseenAccuracy
) -> Candidate:
    bundle = open_bundle(folder, verify="size")
    (graph,) = bundle.manifest.graphs
    accuracy = unseen.of(plan, bundle.manifest)
    return Candidate(
        plan=plan,
        accuracy=accuracy,
        figures={
            **measured.figures(),
            "size": float(bundle.size_of(graph)),
            "drop": 100 * max(unseen.fp32[task] - share for task, share in accuracy.items()),
        },
        reported=_reported(bundle.manifest, plan.target),
    )


def _reported(manifest: Manifest, target: str) -> dict[str, Any]:
    """What the proof found on the rows that training reported on."""
    result = {}
    tasks = {task.name: task for task in manifest.tasks}
    for task, found in manifest.evaluation.items():
        score = found["graphs"][target]
        staged = score.get("exits")
        accuracy = staged["score"] if staged else headline(tasks[task], score)
        result[task] = {"split": found["split"], "rows": found["rows"], "accuracy": accuracy}
    return result


def _write(folder: Path, out: Path, frontier: Frontier, overwrite: bool) -> Manifest:
    """The chosen bundle with the frontier, whole or not at all."""
    with staged_folder(out, overwrite=overwrite) as stage:
        shutil.copytree(folder, stage, dirs_exist_ok=True)
        manifest = read_manifest(stage)
        text = json.dumps(frontier.to_json(), indent=2, ensure_ascii=False)
        (stage / FRONTIER).write_text(f"{text}\n", encoding="utf-8")
        (stage / CARD).write_text(model_card(manifest, frontier), encoding="utf-8")
        write_manifest(stage, manifest)
    return read_manifest(out)
