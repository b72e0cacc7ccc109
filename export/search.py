"""`mtl-edge export --budget`: all that a checkpoint could become, measured on this machine.

Candidates are the depths that have heads, cheaper stages before full depth where there are answers
to fit them on, and each target. Each is exported and proven like any bundle, in a temporary folder.
Then each answers the rows that chose the epoch (split `selection`) through the runtime, one text at
a time and many in a call. One candidate is loaded at a time, as in an app: engines that share a
process slow each other down. All have their turn in each of a few passes, in random order, so that
a busy moment of the machine falls on none alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mtl_edge.bundle import Manifest, open_bundle, read_manifest, write_manifest
from mtl_edge.choosing.machine import describe
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.budget import Limit
from mtl_edge.export.build import export
from mtl_edge.export.card import CARD, model_card
from mtl_edge.export.exit_choice import cheapest, choices, costs_of
from mtl_edge.export.exits import Promise
from mtl_edge.export.frontier import FRONTIER, Candidate, Frontier, Plan, choose, table
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import TARGETS
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.table import text_table
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import spread
from mtl_edge.training.model import logits_of
from mtl_edge.training.progress import Progress

__all__ = ["plans", "search"]

TEXTS, PASSES, BULK = 256, 3, 2
LEAD = 16  # untimed single texts after a candidate was loaded


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that choose: texts of all tasks, and by task its labels and where they begin."""

    texts: list[str]
    labels: Mapping[str, list[str]]
    starts: Mapping[str, int]

    def accuracy(self, answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """By task, the share that `answers` to all texts have right among its own."""
        return {
            task: float(np.mean(np.asarray(answers[task])[start : start + len(own)] == own))
            for task, own in self.labels.items()
            for start in [self.starts[task]]
        }

    @property
    def counts(self) -> dict[str, int]:
        return {task: len(own) for task, own in self.labels.items()}


@dataclass(slots=True)
class Measured:
    """Of one candidate: milliseconds of single texts and of whole calls, and its accuracy."""

    single: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)


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
        limits: the budget: see `mtl_edge.export.budget.parse`.
        promise: of cheaper stages; its depths are not looked at. All that it could be made of
            are counted as tried.
        settings: of every candidate.

    Raises:
        ExportError: no candidate could be built, or none is within the budget; nothing is written.
        OptionError: the checkpoint holds no rows that choose.
        OutputExistsError: `out` exists and `overwrite` is false.
    """
    require_free(out, overwrite=overwrite)
    rows = _rows(checkpoint)
    promise = replace(promise, tried=max(1, len(choices(_depths_of_stages(checkpoint)))))
    wanted, left_out = plans(checkpoint, targets, promise)
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        built = _built(checkpoint, wanted, promise, settings, Path(work), left_out)
        measured, texts = _measured(built, rows)
        seen = _Accuracy(checkpoint, rows)
        candidates = [
            _candidate(plan, folder, measured, seen, texts) for plan, folder in built.items()
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
            fp32=seen.fp32,
            measured={
                "date": date.today().isoformat(),
                "machine": describe(),
                "texts": texts,
                "passes": PASSES,
            },
            left_out=left_out,
        )
        folder = list(built.values())[candidates.index(chosen)]
        return _write(folder, out, frontier, overwrite), frontier


def plans(
    checkpoint: Checkpoint, targets: Sequence[str], promise: Promise
) -> tuple[list[Plan], list[str]]:
    """Everything that the checkpoint could become, and what was left out.

    Every depth that has heads; before full depth, each depth that has answers out of fold as a
    stage by itself, and of several the combination that makes a text cheapest.
    """
    known = _depths_of_stages(checkpoint)
    combinations: list[tuple[int, ...]] = [(depth,) for depth in known]
    left_out = []
    if len(known) > 1:
        asked = replace(promise, depths=None)
        try:
            pays = cheapest(checkpoint, asked, costs_of(checkpoint)).depths or ()
        except OptionError as error:
            left_out.append(f"the cheapest combination of stages: {error}")
        else:
            combinations += [pays] if pays not in combinations else []
    depths = sorted({*checkpoint.shallower, checkpoint.depth})
    forms = [*((depth, ()) for depth in depths), *((checkpoint.depth, c) for c in combinations)]
    return [Plan(depth, before, target) for depth, before in forms for target in targets], left_out


def _depths_of_stages(checkpoint: Checkpoint) -> list[int]:
    """Those that have what thresholds are fitted on, for every task."""
    found = [answers.logits.keys() for answers in checkpoint.out_of_fold.values()]
    complete = len(found) == len(checkpoint.tasks) and bool(found)
    shared = set.intersection(*map(set, found)) if complete else set()
    return sorted(shared - {checkpoint.depth}) if checkpoint.depth in shared else []


def _rows(checkpoint: Checkpoint) -> Rows:
    own = {
        task.name: [s for s in checkpoint.samples if s.split == "selection" and s.task == task.name]
        for task in checkpoint.tasks
    }
    if empty := [task for task, samples in own.items() if not samples]:
        raise OptionError(
            f"--budget: the checkpoint holds no rows of task {empty[0]!r} that chose an epoch "
            "(split `selection`), by which a candidate could be chosen; train again, or choose "
            "with --depth"
        )
    starts = np.cumsum([0, *map(len, own.values())])
    return Rows(
        [s.text for samples in own.values() for s in samples],
        {task: [s.label for s in samples] for task, samples in own.items()},
        dict(zip(own, starts.tolist(), strict=False)),
    )


def _built(
    checkpoint: Checkpoint,
    wanted: Sequence[Plan],
    promise: Promise,
    settings: Settings,
    work: Path,
    left_out: list[str],
) -> dict[Plan, Path]:
    """A proven bundle of each plan; those that fail are added to `left_out`."""
    built = {}
    for number, plan in enumerate(wanted, 1):
        print(f"export: candidate {number} of {len(wanted)}, {plan}", file=sys.stderr, flush=True)
        alone = replace(plan, stages=())
        if plan.stages and alone not in built:
            left_out.append(f"{plan}: so is {alone}")
            continue
        folder = work / str(number)
        own = replace(promise, depths=plan.stages) if plan.stages else None
        # Rows may be too few for a promise, which is no reason to do without the other candidates.
        harmless = (ExportError, OptionError) if plan.stages else (ExportError,)
        try:
            at_depth = checkpoint.at(plan.depth)
            export(at_depth, folder, [plan.target], settings=replace(settings, promise=own))
        except harmless as error:
            left_out.append(f"{plan}: {error}")
            print(f"export: left out {plan}: {error}", file=sys.stderr)
        else:
            built[plan] = folder
    if not built:
        raise ExportError(f"no candidate could be built; the first: {left_out[0]}")
    return built


def _measured(built: Mapping[Plan, Path], rows: Rows) -> tuple[dict[Plan, Measured], int]:
    """Each candidate's times and accuracy; and on how many texts times were measured."""
    rng = np.random.default_rng(0)
    texts = spread(sorted(rows.texts, key=len), TEXTS)
    measured = {plan: Measured() for plan in built}
    total = PASSES * len(built)
    with Progress("measuring", total=total, unit="turns") as progress:
        for _ in range(PASSES):
            for place in rng.permutation(len(built)):
                plan = list(built)[place]
                with _running(built[plan], plan) as classifier:
                    if not measured[plan].accuracy:
                        measured[plan].accuracy = _accuracy(classifier, rows)
                    _time(
                        classifier, [texts[i] for i in rng.permutation(len(texts))], measured[plan]
                    )
                progress.update()
    return measured, len(texts)


@contextmanager
def _running(folder: Path, plan: Plan) -> Iterator[EdgeClassifier]:
    engine = TARGETS[plan.target].engine
    with EdgeClassifier.load(folder, engine=engine, target=plan.target, verify="size") as loaded:
        yield loaded


def _accuracy(classifier: EdgeClassifier, rows: Rows) -> dict[str, float]:
    found = classifier.predict(rows.texts)
    return rows.accuracy({task: [p[task].label for p in found] for task in rows.labels})


def _time(classifier: EdgeClassifier, texts: Sequence[str], into: Measured) -> None:
    """One turn: every text by itself, then all of them in one call."""
    for text in texts[:LEAD]:
        classifier.predict(text)
    for text in texts:
        start = time.perf_counter()
        classifier.predict(text)
        into.single.append(1e3 * (time.perf_counter() - start))
    classifier.predict(texts)
    for _ in range(BULK):
        start = time.perf_counter()
        classifier.predict(texts)
        into.bulk.append(1e3 * (time.perf_counter() - start))


class _Accuracy:
    """What heads would get right of rows that they have not seen.

    `train --refit` has taught some tasks' heads with the very rows that choose. What those got
    right before is on record for each depth; of a graph, what it loses to the torch model of its
    depth is counted from there, and of stages what they lose out of fold.
    """

    def __init__(self, checkpoint: Checkpoint, rows: Rows) -> None:
        self._checkpoint, self._rows = checkpoint, rows
        tasks = [task.name for task in checkpoint.tasks]
        self._seen = [task for task in tasks if checkpoint.refitted(task)]
        self._offsets: dict[int, dict[str, float]] = {}
        full = checkpoint.depth
        recorded = self._recorded(full)
        asked = {} if self._seen == tasks else self._torch(full)
        self.fp32 = {task: (recorded if task in self._seen else asked)[task] for task in tasks}

    def of(
        self, plan: Plan, measured: Mapping[Plan, Measured], bundle: Manifest
    ) -> dict[str, float]:
        """By task."""
        own = measured[plan].accuracy
        if not self._seen:
            return own
        if plan.stages:
            full = self.of(replace(plan, stages=()), measured, bundle)
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
            task.name: float(report[task.name]["depths"][str(depth)]["selection_accuracy"])
            for task in self._checkpoint.tasks
        }

    def _torch(self, depth: int) -> dict[str, float]:
        checkpoint = self._checkpoint.at(depth)
        encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
        logits = logits_of(checkpoint.model(), encoder(self._rows.texts))
        return self._rows.accuracy(
            {
                task.name: np.asarray(task.labels)[logits[task.name].argmax(1)].tolist()
                for task in checkpoint.tasks
            }
        )


def _candidate(
    plan: Plan, folder: Path, measured: Mapping[Plan, Measured], seen: _Accuracy, texts: int
) -> Candidate:
    bundle = open_bundle(folder, verify="size")
    (graph,) = bundle.manifest.graphs
    accuracy = seen.of(plan, measured, bundle.manifest)
    own = measured[plan]
    p50, p95, p99 = (float(q) for q in np.quantile(own.single, [0.5, 0.95, 0.99]))
    return Candidate(
        plan=plan,
        accuracy=accuracy,
        figures={
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "texts/s": 1e3 * texts / float(np.median(own.bulk)),
            "size": float(bundle.size_of(graph)),
            "drop": 100 * max(seen.fp32[task] - share for task, share in accuracy.items()),
        },
        reported=_reported(bundle.manifest, plan.target),
    )


def _reported(manifest: Manifest, target: str) -> dict[str, Any]:
    """What the proof found on the rows that training reported on."""
    result = {}
    for task, found in manifest.evaluation.items():
        score = found["graphs"][target]
        accuracy = score.get("exits", score)["accuracy"]
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
