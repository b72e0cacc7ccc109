"""The order of things in a training run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.io.folders import require_cache
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData
from mtl_edge.training.journal import Journal
from mtl_edge.training.options import DEFAULT_MAX_TOKENS, TrainOptions
from mtl_edge.training.run.corpus import Corpus, encode_texts, training_sample
from mtl_edge.training.run.initial_heads import initial_heads_by_depth
from mtl_edge.training.run.learn import Heads, Learned, learn, out_of_fold_logits, refit_heads
from mtl_edge.training.run.plan import RunPlan, plan_run
from mtl_edge.training.run.predictors import Predictor, StatesPredictor, Values
from mtl_edge.training.run.report import TaskLogits, TaskSplits, task_report
from mtl_edge.training.run.result import RunFigures, checkpoint_of
from mtl_edge.training.states import StateCache

__all__ = ["train"]


def train(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: TrainOptions | None = None,
    start: Checkpoint | None = None,
    journal: Journal | None = None,
) -> Checkpoint:
    """Train what the scenario lets learn.

    Args:
        start: go on from its backbone and heads; `backbone` is then its own. Tasks of `start`
            that have no rows here keep their heads, to the bit.
        journal: where figures and states go meanwhile, so that a stopped run can go on.

    Raises:
        OptionError: options that do not fit together or do not fit the tasks.
        CheckpointError: `start` has other labels for one of the tasks.
        MtlEdgeError: a loss is not a number.
        KeyboardInterrupt: the user stopped the run.
    """
    options, journal = options or TrainOptions(), journal or Journal()
    plan = plan_run(tasks, backbone, options, start)
    require_cache(options.cache)
    heads: Heads = initial_heads_by_depth(plan, backbone)
    corpus = Corpus(tasks)
    encoder = backbone.text_encoder(
        start.max_tokens if start else options.max_tokens or DEFAULT_MAX_TOKENS
    )
    ids, cut = encode_texts(encoder, corpus.texts)
    cache = StateCache(options.cache, options.cache_bytes)
    states = cache.states(backbone, ids, without_layers=0 in plan.depths)
    backbone.encoder.cpu()
    before = _reported_logits(plan, heads, StatesPredictor(states, plan.depth), corpus)

    began = time.monotonic()
    learned = learn(plan, backbone, heads, corpus, ids, states, journal)
    out_of_fold = out_of_fold_logits(plan, learned.backbone, corpus, states, journal)
    validation = {
        task.name: learned.predictor.logits(
            task.name, _of_task(heads, task.name), corpus.validation[task.name].rows
        )
        for task in tasks
    }
    if options.refit:
        heads = refit_heads(plan, learned.backbone, corpus, states, journal)
    seconds = time.monotonic() - began

    reports = {
        task.name: _report(
            plan, task, corpus, learned, heads, before[task.name], validation[task.name]
        )
        for task in tasks
    }
    figures = RunFigures(encoder.max_tokens, len(corpus.texts), cut, seconds)
    return checkpoint_of(plan, learned, heads, reports, out_of_fold, figures, journal)


def _of_task(heads: Heads, task: str) -> dict[int, Any]:
    return {depth: of_depth[task] for depth, of_depth in heads.items()}


def _reported_logits(
    plan: RunPlan, heads: Heads, predictor: Predictor, corpus: Corpus
) -> dict[str, Values]:
    """By task, logits of the reported rows at the model's depth."""
    depth = plan.depth
    return {
        task.name: predictor.logits(
            task.name, {depth: heads[depth][task.name]}, corpus.reported[task.name].rows
        )[depth]
        for task in plan.tasks
    }


def _report(
    plan: RunPlan,
    task: TaskData,
    corpus: Corpus,
    learned: Learned,
    heads: Heads,
    before: Values,
    validation: Mapping[int, Values],
) -> dict[str, Any]:
    """One task's figures, with the logits that they need."""
    name, depth, start = task.name, plan.depth, plan.start
    training = corpus.training[name]
    splits = TaskSplits(
        training, corpus.validation[name], corpus.reported[name], training_sample(training)
    )
    own, predictor = _of_task(heads, name), learned.predictor
    logits = TaskLogits(
        before,
        validation,
        predictor.logits(name, own, splits.reported.rows),
        predictor.logits(name, {depth: own[depth]}, splits.sample.rows)[depth],
    )
    return task_report(
        task,
        splits,
        logits,
        predictor,
        plan.options,
        best_epoch=learned.best_epochs.get(name, {}).get(depth, {}),
        parameters=sum(p.numel() for p in own[depth].parameters()),
        refitted=(plan.options.refit and name in plan.learning.heads)
        or (start is not None and name in start.heads and start.refitted(name)),
    )
