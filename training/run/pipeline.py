"""The order of things in a training run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mtl_edge.io.folders import require_cache
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData
from mtl_edge.training.journal import Journal
from mtl_edge.training.options import DEFAULT_MAX_TOKENS, TrainOptions
from mtl_edge.training.run.corpus import Corpus
from mtl_edge.training.run.initial_heads import initial_heads_by_depth
from mtl_edge.training.run.learn import Heads, learn, out_of_fold_logits, refit_heads
from mtl_edge.training.run.plan import plan_run
from mtl_edge.training.run.predictors import Predictor, StatesPredictor, task_logits
from mtl_edge.training.run.report import task_reports
from mtl_edge.training.run.result import checkpoint_of
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
    max_tokens = start.max_tokens if start else options.max_tokens or DEFAULT_MAX_TOKENS
    corpus = Corpus(tasks, backbone.text_encoder(max_tokens))
    cache = StateCache(options.cache, options.cache_bytes)
    states = cache.states(backbone, corpus.ids, without_layers=0 in plan.depths)
    backbone.encoder.cpu()
    predictor: Predictor = StatesPredictor(states, plan.depth)
    before = task_logits(predictor, {plan.depth: heads[plan.depth]}, corpus.reported)

    began = time.monotonic()
    learned = learn(plan, backbone, heads, corpus, states, journal)
    out_of_fold = out_of_fold_logits(plan, learned, corpus, states, journal)
    corpus.ask_out_of_fold({name: few.rows for name, few in learned.cross_validated.items()})
    validation = {
        **task_logits(learned.predictor, heads, corpus.validation),
        **{name: few.logits for name, few in learned.cross_validated.items()},
    }
    if options.refit:
        heads = refit_heads(plan, learned, heads, corpus, states, journal)
    seconds = time.monotonic() - began

    reports = task_reports(plan, corpus, learned, heads, before, validation)
    return checkpoint_of(plan, learned, heads, reports, out_of_fold, corpus, journal, seconds)
