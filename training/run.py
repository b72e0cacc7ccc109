"""One training run: tasks and a backbone in, a checkpoint out."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mtl_edge.bundle import Task
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.baselines import bag_of_words, mean_pooling
from mtl_edge.training.calibration import calibration_error, fit_temperature
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.data import TaskData
from mtl_edge.training.finetune import finetune
from mtl_edge.training.fit import Labelled, Recipe, fit_head, predict
from mtl_edge.training.heads import DEFAULT_HEAD, Head, build_head, head_config
from mtl_edge.training.model import MultiTaskModel, logits_of
from mtl_edge.training.scenarios import learning_of
from mtl_edge.training.states import StateCache, States, default_cache

__all__ = ["Options", "train"]

CALIBRATION_ROWS = 300
TRAIN_ROWS_SCORED = 1000  # enough to see overfitting
PACKAGES = ("torch", "transformers", "optimum", "tokenizers", "numpy", "scikit-learn")
CACHE_LIMIT = 20 * 10**9


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told besides its data.

    Attributes:
        learn, freeze, top_layers: see `mtl_edge.training.scenarios`.
        heads: how each task's head is named; a task that is not here gets the default.
        depth: layers of the backbone to use; none: all.
        cache_limit: bytes that cached states may take.
        baselines: whether to measure what a head has to beat.
    """

    scenario: str = "heads"
    learn: Sequence[str] = ()
    freeze: Sequence[str] = ()
    top_layers: int = 2
    heads: Mapping[str, str] = field(default_factory=dict)
    depth: int | None = None
    max_tokens: int = 128
    recipe: Recipe = field(default_factory=Recipe)
    cache: Path = field(default_factory=default_cache)
    cache_limit: int = CACHE_LIMIT
    baselines: bool = True


class _Rows:
    """Every text of the run once, and where each split's rows are among them."""

    def __init__(self, tasks: Sequence[TaskData]) -> None:
        place: dict[str, int] = {}
        self.train: dict[str, Labelled] = {}
        self.selection: dict[str, Labelled] = {}
        self.report: dict[str, Labelled] = {}
        for task in tasks:
            for split, rows in (
                (self.train, task.train),
                (self.selection, task.selection),
                (self.report, task.report[1]),
            ):
                positions = [place.setdefault(text, len(place)) for text in rows.texts]
                split[task.name] = Labelled(positions, task.indices(rows))
        self.texts = list(place)


def train(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: Options = Options(),
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Teach what the scenario lets learn.

    Args:
        start: go on from its backbone and heads; `backbone` is then its own. Tasks of `start`
            that have no rows here keep their heads, to the bit.

    Raises:
        OptionError: options that do not fit together or do not fit the tasks.
        CheckpointError: `start` has other labels for one of the tasks.
        MtlEdgeError: a loss is not a number.
    """
    kept = [t for t in (start.tasks if start else ()) if t.name not in {d.name for d in tasks}]
    names = [*(t.name for t in kept), *(d.name for d in tasks)]
    learning = learning_of(
        options.scenario,
        names,
        learn=options.learn,
        freeze=options.freeze,
        top_layers=options.top_layers,
        fixed=[t.name for t in kept],
    )
    depth = _depth(options, backbone, start)
    heads = _heads(tasks, kept, backbone, depth, options, start)
    encoder = backbone.text_encoder(start.max_tokens if start else options.max_tokens)
    rows = _Rows(tasks)
    ids, truncated = encoder.counted(rows.texts)
    states = StateCache(options.cache, options.cache_limit).states(backbone, ids)
    before = {
        task.name: predict(heads[task.name], states, rows.report[task.name].rows).numpy()
        for task in tasks
    }
    chosen: dict[str, Any] = {}
    began = time.monotonic()
    learned = sum(p.numel() for name in learning.heads for p in heads[name].parameters())
    if learning.backbone == "frozen":
        for task in tasks:
            if task.name in learning.heads:
                chosen[task.name] = fit_head(
                    heads[task.name],
                    states,
                    rows.train[task.name],
                    rows.selection[task.name],
                    options.recipe,
                    f"task {task.name}",
                )
        backbone = backbone.truncated(depth)
        scores = _Scores(heads, states, None, ids)
    else:
        backbone = backbone.truncated(depth)
        model, result = finetune(
            MultiTaskModel(copy.deepcopy(backbone.encoder), heads),
            ids,
            {name: r for name, r in rows.train.items() if name in learning.heads},
            {name: r for name, r in rows.selection.items() if name in learning.heads},
            learning,
            options.recipe,
        )
        chosen = dict.fromkeys(learning.heads, result)
        learned = result["parameters"]
        backbone = backbone.changed(model.encoder, learning.backbone)
        scores = _Scores(heads, states, model, ids)
    seconds = time.monotonic() - began
    temperatures = {
        task.name: fit_temperature(
            scores.logits(task.name, rows.selection[task.name].rows),
            rows.selection[task.name].labels,
        )
        for task in tasks
    }
    return Checkpoint(
        backbone=backbone,
        depth=depth,
        tasks=(
            *kept,
            *(Task(task.name, task.labels, temperatures[task.name]) for task in tasks),
        ),
        heads=heads,
        max_tokens=encoder.max_tokens,
        samples=[
            *(s for s in (start.samples if start else ()) if s.task in {t.name for t in kept}),
            *_samples(tasks, names, options.recipe.seed),
        ],
        report={
            **{t.name: start.report[t.name] for t in kept if start},
            **{
                task.name: _report(
                    task,
                    rows,
                    states,
                    before[task.name],
                    scores,
                    temperatures[task.name],
                    chosen.get(task.name, {}),
                    options,
                )
                for task in tasks
            },
        },
        run={
            "scenario": options.scenario,
            "backbone": learning.backbone,
            "heads_that_learned": sorted(learning.heads),
            "parameters_that_learned": learned,
            "seconds_of_learning": round(seconds, 2),
            "texts": len(rows.texts),
            "texts_cut_to_max_tokens": truncated,
            "recipe": options.recipe.to_json(),
            "versions": {name: version(name) for name in ("mtl-edge", *PACKAGES)},
        },
    )


def _depth(options: Options, backbone: Backbone, start: Checkpoint | None) -> int:
    if start is not None:
        if options.depth not in (None, start.depth):
            raise OptionError(f"the checkpoint has depth {start.depth}; leave --depth out")
        return start.depth
    layers = backbone.info.layers
    depth = layers if options.depth is None else options.depth
    if not 0 <= depth <= layers:
        raise OptionError(f"--depth is {depth}, and the backbone has layers 0 to {layers}")
    return depth


def _heads(
    tasks: Sequence[TaskData],
    kept: Sequence[Task],
    backbone: Backbone,
    depth: int,
    options: Options,
    start: Checkpoint | None,
) -> dict[str, Head]:
    """Heads by task: those of `start` where it has them, fresh ones for the rest."""
    heads = {task.name: start.heads[task.name] for task in kept if start}
    known = {task.name: task for task in start.tasks} if start else {}
    for task in tasks:
        if start is not None and task.name in known:
            if known[task.name].labels != task.labels:
                raise CheckpointError(
                    f"task {task.name!r} has the labels {', '.join(task.labels)} in "
                    f"{task.train.source['file']} and {', '.join(known[task.name].labels)} in the "
                    "checkpoint; give the task another name, or start anew"
                )
            heads[task.name] = copy.deepcopy(start.heads[task.name])
            continue
        config = head_config(
            options.heads.get(task.name, DEFAULT_HEAD),
            states=depth + 1,
            width=backbone.info.hidden_size,
            labels=len(task.labels),
        )
        torch.manual_seed(options.recipe.seed)  # a head does not depend on which others there are
        heads[task.name] = build_head(config)
    return heads


@dataclass(frozen=True, slots=True)
class _Scores:
    """Logits of the finished model: from states where the backbone is still theirs."""

    heads: Mapping[str, Head]
    states: States
    model: MultiTaskModel | None
    ids: Sequence[Sequence[int]]

    def logits(self, task: str, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        if self.model is None:
            return predict(self.heads[task], self.states, rows).numpy()
        return logits_of(self.model, [self.ids[row] for row in rows])[task]


def _report(
    task: TaskData,
    rows: _Rows,
    states: States,
    before: npt.NDArray[np.float32],
    scores: _Scores,
    temperature: float,
    chosen: Mapping[str, float],
    options: Options,
) -> dict[str, Any]:
    """The figures of one task."""
    split, reported = task.report
    asked = rows.report[task.name]
    logits = scores.logits(task.name, asked.rows)
    labels = np.array(task.labels)
    learn = rows.train[task.name]
    seen, known = learn.rows[:TRAIN_ROWS_SCORED], learn.labels[:TRAIN_ROWS_SCORED]
    answers = {"head": labels[logits.argmax(1)], "before": labels[before.argmax(1)]}
    if options.baselines:
        means = states.means(learn.rows), states.means(asked.rows)
        answers["mean_pooling"] = mean_pooling(means[0], task.train.labels, means[1])
        answers["bag_of_words"] = bag_of_words(task.train.texts, task.train.labels, reported.texts)
    return {
        "train": {
            **task.train.source,
            "rows": len(task.train),
            "accuracy": float((scores.logits(task.name, seen).argmax(1) == known).mean()),
        },
        "selection": {"rows": len(task.selection), **chosen},
        "reported": {**reported.source, "split": split, "rows": len(reported)},
        "parameters": sum(p.numel() for p in scores.heads[task.name].parameters()),
        "calibration_error": {
            "before": calibration_error(logits, asked.labels, 1.0),
            "after": calibration_error(logits, asked.labels, temperature),
        },
        "confusion": confusion_matrix(
            reported.labels, answers["head"], labels=task.labels
        ).tolist(),
        **{
            name: {
                "accuracy": float(accuracy_score(reported.labels, answer)),
                "macro_f1": float(f1_score(reported.labels, answer, average="macro")),
            }
            for name, answer in answers.items()
        },
    }


def _samples(tasks: Sequence[TaskData], names: Sequence[str], seed: int) -> list[Sample]:
    """Rows that export needs: some of train to calibrate with, the rest to compare on."""
    generator = random.Random(seed)
    samples = []
    for task in tasks:
        count = min(len(task.train), CALIBRATION_ROWS // len(names) + 1)
        calibration = task.train.take(generator.sample(range(len(task.train)), count))
        splits = {"calibration": calibration, "selection": task.selection, "dev": task.dev}
        for split, rows in splits.items():
            if rows is not None:
                samples += [
                    Sample(split, task.name, text, label)
                    for text, label in zip(rows.texts, rows.labels, strict=True)
                ]
    return samples
