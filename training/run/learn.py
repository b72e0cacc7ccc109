"""The learning of a run: heads on kept states, or the backbone with its heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mtl_edge.training.backbone import Backbone
from mtl_edge.training.few import CrossValidated, solve_few
from mtl_edge.training.finetune import finetune
from mtl_edge.training.fit import fit_heads, linear_heads
from mtl_edge.training.folds import OutOfFold, out_of_fold
from mtl_edge.training.heads import Head
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import training_kind
from mtl_edge.training.model import MultiTaskModel
from mtl_edge.training.run.corpus import Corpus
from mtl_edge.training.run.initial_heads import initial_heads, initial_heads_by_depth
from mtl_edge.training.run.plan import RunPlan
from mtl_edge.training.run.predictors import ModelPredictor, Predictor, StatesPredictor
from mtl_edge.training.states import States

__all__ = ["BestEpochs", "Heads", "Learned", "learn", "out_of_fold_logits", "refit_heads"]

Heads = Mapping[int, Mapping[str, Head]]  # by depth and task
BestEpochs = Mapping[int, Mapping[str, float]]  # by depth: number, accuracy and loss


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of learning, besides the heads, which learn in place.

    Attributes:
        backbone: of the model's depth, with the weights that it has now.
        best_epochs: by task that learned, the epoch that each depth's head was kept from.
        parameters: how many learned.
        cross_validated: by task that has but a few rows, what stands in for validation rows.
    """

    backbone: Backbone
    predictor: Predictor
    best_epochs: Mapping[str, BestEpochs]
    parameters: int
    cross_validated: Mapping[str, CrossValidated] = field(default_factory=dict)


def learn(
    plan: RunPlan,
    backbone: Backbone,
    heads: Heads,
    corpus: Corpus,
    states: States,
    journal: Journal,
) -> Learned:
    """Train what the scenario lets learn; the heads are trained in place.

    Raises:
        MtlEdgeError: a loss is not a number.
    """
    if plan.learning.backbone != "frozen":
        return _finetune(plan, backbone, heads[plan.depth], corpus, journal)
    cross_validated = _fit_few(plan, heads, corpus, states, journal)
    best_epochs = {
        **_fit(plan, heads, corpus, states, journal),
        **{name: found.best for name, found in cross_validated.items()},
    }
    parameters = sum(
        parameter.numel()
        for of_depth in heads.values()
        for name in plan.learning.heads
        for parameter in of_depth[name].parameters()
    )
    predictor = StatesPredictor(states, plan.depth)
    return Learned(
        backbone.truncated(plan.depth), predictor, best_epochs, parameters, cross_validated
    )


def _finetune(
    plan: RunPlan,
    backbone: Backbone,
    heads: Mapping[str, Head],
    corpus: Corpus,
    journal: Journal,
) -> Learned:
    backbone = backbone.truncated(plan.depth)
    names = plan.learning.heads
    result = finetune(
        MultiTaskModel(copy.deepcopy(backbone.encoder), heads),
        corpus.ids,
        {
            name: rows + corpus.described[name]
            for name, rows in corpus.training.items()
            if name in names
        },
        {name: rows for name, rows in corpus.validation.items() if name in names},
        plan.learning,
        plan.options.recipe,
        journal=journal,
        describe_row=corpus.describe_row,
    )
    return Learned(
        backbone.changed(result.model.encoder, plan.learning.backbone),
        ModelPredictor(result.model, corpus.ids, plan.depth),
        {name: {plan.depth: result.best_epochs[name]} for name in names},
        result.parameters,
    )


def _fit_few(
    plan: RunPlan, heads: Heads, corpus: Corpus, states: States, journal: Journal
) -> dict[str, CrossValidated]:
    """Solve the heads of tasks that have but a few rows."""
    return {
        task.name: solve_few(
            task.name,
            linear_heads({depth: of_depth[task.name] for depth, of_depth in heads.items()}),
            states,
            corpus.training[task.name],
            corpus.described[task.name],
            plan.options.recipe,
            journal,
        )
        for task in plan.learning_tasks
        if task.few
    }


def _fit(
    plan: RunPlan,
    heads: Heads,
    corpus: Corpus,
    states: States,
    journal: Journal,
    first_pass: Mapping[str, BestEpochs] | None = None,
) -> dict[str, BestEpochs]:
    """Train the heads of each task that learns, of all depths in one pass.

    Args:
        first_pass: what came of it, for a second one: on training and validation rows, for all
            epochs.
    """
    refit = first_pass is not None
    recipe = replace(plan.options.recipe, patience=None) if refit else plan.options.recipe
    found: dict[str, BestEpochs] = {}
    for task in plan.learning_tasks:
        if task.few:
            continue
        validation = corpus.validation[task.name]
        training = corpus.training[task.name] + corpus.described[task.name]
        found[task.name] = fit_heads(
            task.name,
            {depth: of_depth[task.name] for depth, of_depth in heads.items()},
            states,
            training + validation if refit else training,
            validation,
            recipe,
            journal=journal,
            describe_row=corpus.describe_row,
            first_pass=None if first_pass is None else first_pass[task.name],
        )
    return found


def refit_heads(
    plan: RunPlan,
    learned: Learned,
    learned_heads: Heads,
    corpus: Corpus,
    states: States,
    journal: Journal,
) -> Heads:
    """Heads from the beginning, trained on the validation rows as well, where there are some."""
    heads = {
        depth: {
            name: learned_heads[depth][name] if name in learned.cross_validated else head
            for name, head in of_depth.items()
        }
        for depth, of_depth in initial_heads_by_depth(plan, learned.backbone).items()
    }
    _fit(plan, heads, corpus, states, journal, learned.best_epochs)
    return heads


def out_of_fold_logits(
    plan: RunPlan, learned: Learned, corpus: Corpus, states: States, journal: Journal
) -> dict[str, OutOfFold]:
    """By task, logits of heads that were not trained on the rows; none without `--exits`."""
    if not plan.options.exits:
        return {}
    depths = (*plan.options.exits, plan.depth)

    def build_heads(name: str) -> dict[int, Head]:
        return {depth: initial_heads(plan, learned.backbone, depth)[name] for depth in depths}

    return {
        name: OutOfFold(
            training_kind(few.rows.task).right(few.rows.task, few.rows.targets),
            {depth: few.logits[depth] for depth in depths},
        )
        for name, few in learned.cross_validated.items()
    } | {
        task.name: out_of_fold(
            task.name,
            lambda name=task.name: build_heads(name),  # type: ignore[misc]
            states,
            corpus.training[task.name] + corpus.validation[task.name],
            plan.options.exit_folds,
            plan.options.recipe,
            journal=journal,
            describe_row=corpus.describe_row,
        )
        for task in plan.tasks
        if not task.few
    }
