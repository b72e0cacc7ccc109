"""The checkpoint that comes of a run: what it learned, and what its start had that it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from mtl_edge.bundle import Task
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.data import TaskData
from mtl_edge.training.device import device
from mtl_edge.training.domain.gate import GateWeights
from mtl_edge.training.folds import OutOfFold
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import with_fitted
from mtl_edge.training.run.corpus import Corpus
from mtl_edge.training.run.learn import Heads, Learned
from mtl_edge.training.run.plan import RunPlan
from mtl_edge.training.run.samples import export_samples

__all__ = ["checkpoint_of"]

PACKAGES = ("mtl-edge", "torch", "transformers", "optimum", "tokenizers", "numpy", "scikit-learn")


def checkpoint_of(
    plan: RunPlan,
    learned: Learned,
    heads: Heads,
    reports: Mapping[str, Mapping[str, Any]],
    out_of_fold: Mapping[str, OutOfFold],
    gates: Mapping[int, GateWeights],
    corpus: Corpus,
    journal: Journal,
    seconds: float,
) -> Checkpoint:
    """Put together what the run made and what its start had of tasks without rows here.

    Args:
        seconds: of learning.
    """
    depth = plan.depth
    tasks = [_calibrated_task(task, reports[task.name], depth) for task in plan.tasks]
    kept_samples, kept_reports, kept_folds = _kept(plan)
    return Checkpoint(
        backbone=learned.backbone,
        depth=depth,
        tasks=(*plan.kept_tasks, *tasks),
        heads=heads[depth],
        shallower={d: heads[d] for d in plan.depths[:-1]},
        max_tokens=corpus.max_tokens,
        samples=[*kept_samples, *export_samples(plan.tasks, len(plan.names))],
        report={**kept_reports, **reports},
        out_of_fold={**kept_folds, **out_of_fold},
        gates=_with_kept(plan, gates),
        run=_record(plan, learned, corpus, seconds),
        metrics=[*_kept_metrics(plan.start, journal), *journal.metrics],
    )


def _calibrated_task(task: TaskData, report: Mapping[str, Any], depth: int) -> Task:
    return with_fitted(task.task, report["depths"][str(depth)])


def _kept(
    plan: RunPlan,
) -> tuple[Sequence[Sample], Mapping[str, Mapping[str, Any]], Mapping[str, OutOfFold]]:
    """Samples, reports and out-of-fold logits of the tasks without rows here."""
    start = plan.start
    if start is None:
        return [], {}, {}
    names = [task.name for task in plan.kept_tasks]
    return (
        [sample for sample in start.samples if sample.task in names],
        {name: {**start.report[name], "refitted": start.refitted(name)} for name in names},
        {name: start.out_of_fold[name] for name in names if name in start.out_of_fold},
    )


def _with_kept(plan: RunPlan, gates: Mapping[int, GateWeights]) -> dict[int, GateWeights]:
    """The gates, and those of the start's tasks without rows here."""
    names = [task.name for task in plan.kept_tasks]
    before = plan.start.gates if plan.start else {}
    return {
        depth: {
            **{name: own for name, own in before.get(depth, {}).items() if name in names},
            **of_depth,
        }
        for depth, of_depth in gates.items()
    }


def _kept_metrics(start: Checkpoint | None, journal: Journal) -> list[Mapping[str, Any]]:
    """Figures of what `start` learned and this run did not."""
    parts = {line["part"] for line in journal.metrics}
    return [line for line in (start.metrics if start else ()) if line["part"] not in parts]


def _record(plan: RunPlan, learned: Learned, corpus: Corpus, seconds: float) -> dict[str, Any]:
    """Scenario, recipe and versions, for the record."""
    options = plan.options
    return {
        "scenario": options.scenario,
        "backbone": plan.learning.backbone,
        "heads_that_learned": sorted(plan.learning.heads),
        "parameters_that_learned": learned.parameters,
        "seconds_of_learning": round(seconds, 2),
        "refitted": options.refit,
        **({"exit_folds": options.exit_folds} if options.exits else {}),
        "device": str(device()),
        "texts": len(corpus.texts),
        "texts_cut_to_max_tokens": corpus.cut,
        "recipe": options.recipe.to_json(),
        "versions": {name: version(name) for name in PACKAGES},
    }
