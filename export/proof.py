"""Each graph against its checkpoint, through the runtime that apps use.

The manifest's `evaluation` has, per task:

    split, rows, file, sha256     what it was measured on; cross-validation: of training rows, each
                                  asked of heads that had not seen it
    mean_pooling, bag_of_words    what a head has to beat: its figures (accuracy and macro_f1, or
                                  those of the task's kind, see `mtl_edge.training.kinds`), if they
                                  were measured; depth: layers that the means are of
    fp32                          the torch model: its figures
    graphs                        per target: its figures (not of cross-validation: graphs have seen
                                  the rows); and on all rows that training set aside
                                  (compared_on; see `held_out`) those of `compared`; before_refit:
                                  the same before heads were fitted to int8; domain: see below
    domain                        where one was fitted: what training measured of it, see
                                  `mtl_edge.training.run.domains`; by graph `agreement`, the share
                                  of the rows set aside, of all tasks, on which it says the same of
                                  the task's domain as torch does, and `refused`, the share of the
                                  task's reported ones that are called foreign
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.kinds import kind_of
from mtl_edge.bundle import Task
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError
from mtl_edge.export.compared import agreement, compared
from mtl_edge.training.baselines import BASELINES
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.data import CROSS_VALIDATION
from mtl_edge.training.kinds import figures_of, headline_name, right_answers
from mtl_edge.training.model import logits_of

__all__ = ["FP32_TOLERANCE", "evaluate", "held_out"]

FP32_TOLERANCE = 1e-4
# Of the last there are some where nothing else is: a handful of examples, and no dev rows.
HELD_OUT = ("selection", "dev", "train")
SIGNIFICANT = 0.05
LEAST_AGREEMENT = 0.9  # by three standard errors below it, a graph is broken, not merely rounded

Logits = Mapping[str, npt.NDArray[np.float32]]


def held_out(checkpoint: Checkpoint) -> dict[str, list[Sample]]:
    """By task, the rows that training set aside: dev, and those that chose the epoch unless
    `train --refit` has taught the task's heads those, too. Of a handful of examples none are, and
    training rows stand in for them: graphs can be compared on these, too.
    """
    found = {}
    for task in checkpoint.tasks:
        own = [s for s in checkpoint.samples if s.task == task.name and s.split in HELD_OUT]
        dev = [s for s in own if s.split == "dev"]
        # Without dev rows, as after going on from a refitted checkpoint, there are no others.
        found[task.name] = dev if dev and checkpoint.refitted(task.name) else own
    return found


def evaluate(
    checkpoint: Checkpoint, bundle: Path, targets: Sequence[str], max_accuracy_drop: float
) -> dict[str, Any]:
    """Measure each of the bundle's graphs on the rows that training set aside.

    Args:
        max_accuracy_drop: points that a graph may lose to the torch model on all of them together.

    Raises:
        ExportError: an fp32 graph's logits differ from torch's by more than 1e-4, another graph's
            labels differ on clearly more than a tenth of the rows, or it loses more accuracy than
            allowed and McNemar's test says that it is not chance.
    """
    tasks = {task.name: task for task in checkpoint.tasks}
    rows = held_out(checkpoint)
    texts = [sample.text for name in tasks for sample in rows[name]]
    starts = dict(zip(tasks, np.cumsum([0, *map(len, rows.values())]), strict=False))
    parts = {name: slice(starts[name], starts[name] + len(rows[name])) for name in tasks}
    reported = {
        name: [
            starts[name] + place
            for place, sample in enumerate(own)
            if sample.split == checkpoint.report[name]["reported"]["split"]
        ]
        for name, own in rows.items()
    }
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    reference = logits_of(checkpoint.model(), encoder(texts))
    result: dict[str, Any] = {}
    for name, task in tasks.items():
        report = checkpoint.report[name]
        before = reference[name][parts[name]]
        result[name] = {
            **report["reported"],
            **_baselines(report),
            "fp32": _reported(checkpoint, task, rows[name], before) or report["head"],
            **({"domain": report["domain"]} if "domain" in report else {}),
            "graphs": {},
        }
    for target in targets:
        with EdgeClassifier.load(bundle, target=target, verify="size") as classifier:
            logits = classifier.logits(texts)
            fp32 = classifier.graph.precision == "fp32"
        domain = checkpoint.domain
        compared_tasks = [*tasks.values(), *([] if domain is None else [domain])]
        _require_faithful(target, fp32, compared_tasks, reference, logits)
        for name, task in tasks.items():
            before, after = reference[name][parts[name]], logits[name][parts[name]]
            found = compared(task, [sample.label for sample in rows[name]], before, after)
            _require_accurate(target, task, found, max_accuracy_drop)
            result[name]["graphs"][target] = {
                **_reported(checkpoint, task, rows[name], after),
                **found,
                **_domain_of(domain, name, reported[name], reference, logits),
            }
    return result


def _domain_of(
    domain: Task | None, task: str, own: Sequence[int], reference: Logits, logits: Logits
) -> dict[str, Any]:
    """Whether a graph and torch say the same of the task's domain, if one was fitted.

    Args:
        own: the task's rows that training reported on.
    """
    if domain is None or task not in domain.labels:
        return {}
    place, kind = domain.labels.index(task), kind_of(domain)
    before, after = (
        kind.decisions(domain, kind.values(domain, one[domain.name]))[:, place]
        for one in (reference, logits)
    )
    return {
        "domain": {
            "agreement": float((before == after).mean()),
            **({"refused": float(1 - after[own].mean())} if len(own) else {}),
        }
    }


def _baselines(report: Mapping[str, Any]) -> dict[str, Any]:
    """What training measured of them."""
    found = {name: dict(report[name]) for name in BASELINES if name in report}
    if "mean_pooling" in found:
        found["mean_pooling"]["depth"] = max(map(int, report["depths"]))
    return found


def _reported(
    checkpoint: Checkpoint, task: Task, rows: Sequence[Sample], logits: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Figures of those rows on which training reported its own.

    None for cross-validated figures: they are of other heads, and on the rows that these heads were
    trained on any figure would flatter.
    """
    split = checkpoint.report[task.name]["reported"]["split"]
    if split == CROSS_VALIDATION:
        return {}
    chosen = [i for i, sample in enumerate(rows) if sample.split == split]
    right = right_answers(task, [rows[i].label for i in chosen])
    return figures_of(task, right, logits[chosen])


def _require_accurate(
    target: str, task: Task, found: Mapping[str, float], max_accuracy_drop: float
) -> None:
    # Of few rows one or two may be more than the limit, and be chance.
    if found["points_lost"] > max_accuracy_drop and found["paired_p"] < SIGNIFICANT:
        raise ExportError(
            f"{target}: task {task.name!r} loses {found['points_lost']:.2f} points of "
            f"{headline_name(task)} on {found['compared_on']:.0f} rows ({found['rows_lost']:.0f} "
            f"lost, {found['rows_won']:.0f} won, exact paired p = {found['paired_p']:.2g}), and "
            f"--max-accuracy-drop is {max_accuracy_drop:g}; calibrate with rows more like those "
            "that you will ask, try another target, or allow more"
        )


def _require_faithful(
    target: str, fp32: bool, tasks: Sequence[Task], reference: Logits, logits: Logits
) -> None:
    for one in tasks:
        task, expected = one.name, reference[one.name]
        if not np.isfinite(logits[task]).all():
            raise ExportError(f"{target}: task {task!r} has logits that are not numbers")
        difference = float(np.abs(expected - logits[task]).max())
        agrees = float(agreement(one, expected, logits[task]).mean())
        if fp32 and difference > FP32_TOLERANCE:
            raise ExportError(
                f"{target}: logits of task {task!r} differ from torch's by {difference:.2g}, "
                f"expected at most {FP32_TOLERANCE:g}"
            )
        chance = 3 * (LEAST_AGREEMENT * (1 - LEAST_AGREEMENT) / len(expected)) ** 0.5
        if agrees < LEAST_AGREEMENT - chance:
            raise ExportError(
                f"{target}: task {task!r} agrees with torch on {agrees:.1%} of "
                f"{len(expected)} rows, expected {LEAST_AGREEMENT:.0%} or more; try another target "
                "or more training rows to calibrate with"
            )
