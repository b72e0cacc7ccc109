"""Accuracy, macro-F1 and agreement on labelled files, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_edge.answers.kinds import kind_of
from mtl_edge.batches.planning import joined
from mtl_edge.benchmarks.core.record import Estimate, Score, Scores
from mtl_edge.benchmarks.core.statistics import scores_of, scores_of_sets
from mtl_edge.benchmarks.core.system import TORCH, System
from mtl_edge.bundle import Bundle, Task
from mtl_edge.engines import Logits
from mtl_edge.io.labelled import Rows
from mtl_edge.training.baselines import BASELINES
from mtl_edge.training.kinds import right_answers
from mtl_edge.training.progress import Progress

__all__ = ["BASELINES", "LabelledFile", "measure", "point"]

AT_ONCE = 512  # texts between two reports of progress


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A labelled file of a task."""

    task: str
    rows: Rows


def measure(
    bundle: Bundle, systems: Sequence[System], files: Sequence[LabelledFile]
) -> list[Scores]:
    """Every file's scores now, and for tasks without a file those that were made at export."""
    tasks = {task.name: task for task in bundle.manifest.tasks}
    asked = {file.task for file in files}
    old = [_at_export(bundle, name) for name in tasks if name not in asked]
    found = [score for score in old if score is not None]
    if not files:
        return found
    texts = {file.rows.texts: None for file in files}  # a file may have the labels of two tasks
    total = sum(map(len, texts)) * len(systems)
    with Progress("accuracy", total=total, unit="texts") as progress:
        logits = {rows: {s.name: _logits(s, rows, progress) for s in systems} for rows in texts}
    now = [_now(bundle, tasks[file.task], file.rows, logits[file.rows.texts]) for file in files]
    return [*now, *found]


def _logits(system: System, texts: Sequence[str], progress: Progress) -> Logits:
    """`[texts, labels]` per task."""
    parts = []
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        parts.append(system.logits(some))
        progress.update(len(some), system.name)
    return joined(parts)


def _now(bundle: Bundle, task: Task, rows: Rows, logits: Mapping[str, Logits]) -> Scores:
    """A file's scores from each system's logits."""
    kind = kind_of(task)
    answers = {
        name: kind.decisions(task, kind.values(task, found[task.name]))
        for name, found in logits.items()
    }
    right = right_answers(task, rows.labels)
    if task.kind == "multi":
        models = scores_of_sets(right, answers)
    else:
        models = scores_of(right, answers, len(task.labels))
    # The baselines were measured at training, so that they stand beside the same rows only.
    recorded = bundle.manifest.evaluation.get(task.name, {})
    if (recorded.get("sha256"), recorded.get("rows")) == (rows.source["sha256"], len(rows)):
        models |= _baselines(recorded)
    return Scores(task.name, rows.source["file"], rows.source["sha256"], len(rows), "now", models)


def _at_export(bundle: Bundle, task: str) -> Scores | None:
    """What the bundle's manifest says of a task: points without intervals."""
    recorded = bundle.manifest.evaluation.get(task)
    if not recorded or "accuracy" not in recorded.get("fp32", {"accuracy": 0}):
        return None  # a score has no accuracy
    known = {TORCH: recorded["fp32"]} if "fp32" in recorded else {}
    models = {name: point(found) for name, found in {**known, **recorded.get("graphs", {})}.items()}
    return Scores(
        task, recorded.get("file", "unknown"), recorded.get("sha256", ""), recorded.get("rows", 0),
        "at export",
        {**models, **_baselines(recorded)},
    )  # fmt: skip


def _baselines(recorded: Mapping[str, Any]) -> dict[str, Score]:
    return {title: point(recorded[key]) for key, title in BASELINES.items() if key in recorded}


def point(found: Mapping[str, float]) -> Score:
    """A score as a manifest or a checkpoint has it, without intervals."""

    def estimate(name: str) -> Estimate | None:
        return Estimate(found[name]) if name in found else None

    return Score(
        Estimate(found["accuracy"]), estimate("macro_f1"), estimate("agreement"), None, None
    )
