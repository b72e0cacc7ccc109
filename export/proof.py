"""Each graph against its checkpoint, through the runtime that apps use.

The manifest's `evaluation` has, per task:

    split, rows, file, sha256     what it was measured on
    mean_pooling, bag_of_words    what a head has to beat: accuracy and macro_f1
    fp32                          the torch model: accuracy and macro_f1
    graphs                        per target: accuracy, macro_f1, agreement (share of rows with the
                                  torch model's label) and max_probability_change
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score

from mtl_edge.bundle import Task
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError
from mtl_edge.probabilities import softmax
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.model import logits_of

__all__ = ["FP32_TOLERANCE", "evaluate", "figures"]

FP32_TOLERANCE = 1e-4
LEAST_AGREEMENT = 0.9  # by three standard errors below it, a graph is broken, not merely rounded

Logits = Mapping[str, npt.NDArray[np.float32]]


def evaluate(checkpoint: Checkpoint, bundle: Path, targets: Sequence[str]) -> dict[str, Any]:
    """Measure each of the bundle's graphs on the rows that training set aside.

    Raises:
        ExportError: an fp32 graph's logits differ from torch's by more than 1e-4, or another
            graph's labels differ on clearly more than a tenth of the rows.
    """
    tasks = {task.name: task for task in checkpoint.tasks}
    rows = {name: _rows(checkpoint, name) for name in tasks}
    texts = [sample.text for name in tasks for sample in rows[name]]
    starts = dict(zip(tasks, np.cumsum([0, *map(len, rows.values())]), strict=False))
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    reference = logits_of(checkpoint.model(), encoder(texts))
    result: dict[str, Any] = {}
    for name, task in tasks.items():
        report = checkpoint.report[name]
        labels = [sample.label for sample in rows[name]]
        part = slice(starts[name], starts[name] + len(labels))
        result[name] = {
            **report["reported"],
            **{kind: report[kind] for kind in ("mean_pooling", "bag_of_words")},
            "fp32": figures(task, labels, reference[name][part]),
            "graphs": {},
        }
    for target in targets:
        with EdgeClassifier.load(bundle, target=target, verify="size") as classifier:
            logits = classifier.logits(texts)
            fp32 = classifier.graph.precision == "fp32"
        _require_faithful(target, fp32, reference, logits)
        for name, task in tasks.items():
            labels = [sample.label for sample in rows[name]]
            part = slice(starts[name], starts[name] + len(labels))
            result[name]["graphs"][target] = {
                **figures(task, labels, logits[name][part]),
                **_change(task, reference[name][part], logits[name][part]),
            }
    return result


def figures(task: Task, labels: Sequence[str], logits: npt.NDArray[np.float32]) -> dict[str, float]:
    """Accuracy and macro-F1 of `logits` `[n, labels]`."""
    answers = np.asarray(task.labels)[logits.argmax(1)]
    return {
        "accuracy": float(accuracy_score(labels, answers)),
        "macro_f1": float(f1_score(labels, answers, average="macro")),
    }


def _rows(checkpoint: Checkpoint, task: str) -> list[Sample]:
    split = checkpoint.report[task]["reported"]["split"]
    return [s for s in checkpoint.samples if s.task == task and s.split == split]


def _change(
    task: Task, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
) -> dict[str, float]:
    difference = np.abs(softmax(before, task.temperature) - softmax(after, task.temperature))
    return {
        "agreement": float((before.argmax(1) == after.argmax(1)).mean()),
        "max_probability_change": float(difference.max()),
    }


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
