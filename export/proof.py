"""Each graph against its checkpoint, through the runtime that apps use.

The manifest's `evaluation` has, per task:

    split, rows, file, sha256     what it was measured on
    mean_pooling, bag_of_words    what a head has to beat: accuracy and macro_f1; depth: layers that
                                  the means are of, all that were trained
    fp32                          the torch model: accuracy and macro_f1
    graphs                        per target: accuracy and macro_f1; and on all rows that training
                                  set aside (compared_on; see `held_out`): agreement (share with
                                  the torch model's label), max_probability_change, rows_lost and
                                  rows_won (right in one model alone) and mcnemar_p (McNemar 1947,
                                  exact); before_refit: the same before heads were fitted to int8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from mtl_edge.answers.probabilities import softmax
from mtl_edge.bundle import Task
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.data import CROSS_VALIDATION
from mtl_edge.training.model import logits_of

__all__ = ["FP32_TOLERANCE", "evaluate", "figures", "held_out"]

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
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    reference = logits_of(checkpoint.model(), encoder(texts))
    result: dict[str, Any] = {}
    for name, task in tasks.items():
        report = checkpoint.report[name]
        before = reference[name][parts[name]]
        result[name] = {
            **report["reported"],
            "mean_pooling": {**report["mean_pooling"], "depth": max(map(int, report["depths"]))},
            "bag_of_words": report["bag_of_words"],
            "fp32": _reported(checkpoint, task, rows[name], before),
            "graphs": {},
        }
    for target in targets:
        with EdgeClassifier.load(bundle, target=target, verify="size") as classifier:
            logits = classifier.logits(texts)
            fp32 = classifier.graph.precision == "fp32"
        _require_faithful(target, fp32, reference, logits)
        for name, task in tasks.items():
            before, after = reference[name][parts[name]], logits[name][parts[name]]
            compared = _compared(task, rows[name], before, after)
            _require_accurate(target, name, compared, max_accuracy_drop)
            result[name]["graphs"][target] = {
                **_reported(checkpoint, task, rows[name], after),
                **compared,
            }
    return result


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
    return figures(task, [rows[i].label for i in chosen], logits[chosen])


def figures(task: Task, labels: Sequence[str], logits: npt.NDArray[np.float32]) -> dict[str, float]:
    """Accuracy and macro-F1 of `logits` `[n, labels]`."""
    answers = np.asarray(task.labels)[logits.argmax(1)]
    return {
        "accuracy": float(accuracy_score(labels, answers)),
        "macro_f1": float(f1_score(labels, answers, average="macro")),
    }


def _compared(
    task: Task,
    rows: Sequence[Sample],
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
) -> dict[str, float]:
    """A graph against the torch model, row by row."""
    right = np.array([sample.label for sample in rows])
    labels = np.asarray(task.labels)
    old, new = labels[before.argmax(1)], labels[after.argmax(1)]
    lost, won = (
        int(((old == right) & (new != right)).sum()),
        int(((old != right) & (new == right)).sum()),
    )
    difference = np.abs(softmax(before, task.temperature) - softmax(after, task.temperature))
    return {
        "compared_on": len(rows),
        "agreement": float((old == new).mean()),
        "max_probability_change": float(difference.max()),
        "rows_lost": lost,
        "rows_won": won,
        "mcnemar_p": float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
    }


def _require_accurate(
    target: str, task: str, compared: Mapping[str, float], max_accuracy_drop: float
) -> None:
    rows, lost = compared["compared_on"], compared["rows_lost"] - compared["rows_won"]
    # Of few rows one or two may be more than the limit, and be chance.
    if lost > max_accuracy_drop / 100 * rows and compared["mcnemar_p"] < SIGNIFICANT:
        raise ExportError(
            f"{target}: task {task!r} loses {100 * lost / rows:.2f} points of accuracy on "
            f"{rows:.0f} rows ({compared['rows_lost']:.0f} lost, {compared['rows_won']:.0f} won, "
            f"exact McNemar p = {compared['mcnemar_p']:.2g}), and --max-accuracy-drop is "
            f"{max_accuracy_drop:g}; calibrate with rows more like those that you will ask, try "
            "another target, or allow more"
        )


def _require_faithful(target: str, fp32: bool, reference: Logits, logits: Logits) -> None:
    for task, expected in reference.items():
        if not np.isfinite(logits[task]).all():
            raise ExportError(f"{target}: task {task!r} has logits that are not numbers")
        difference = float(np.abs(expected - logits[task]).max())
        agreement = float((expected.argmax(1) == logits[task].argmax(1)).mean())
        if fp32 and difference > FP32_TOLERANCE:
            raise ExportError(
                f"{target}: logits of task {task!r} differ from torch's by {difference:.2g}, "
                f"expected at most {FP32_TOLERANCE:g}"
            )
        chance = 3 * (LEAST_AGREEMENT * (1 - LEAST_AGREEMENT) / len(expected)) ** 0.5
        if agreement < LEAST_AGREEMENT - chance:
            raise ExportError(
                f"{target}: task {task!r} agrees with torch on {agreement:.1%} of "
                f"{len(expected)} rows, expected {LEAST_AGREEMENT:.0%} or more; try another target "
                "or more training rows to calibrate with"
            )
