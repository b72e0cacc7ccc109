"""One training run: tasks and a backbone in, a checkpoint out."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mtl_edge.answers.probabilities import softmax
from mtl_edge.batches.planning import Tokens
from mtl_edge.bundle import Task
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.io.folders import require_cache
from mtl_edge.io.labelled import Rows
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.baselines import bag_of_words, mean_pooling
from mtl_edge.training.batches import Labelled
from mtl_edge.training.calibration import calibration_error, fit_temperature, fit_thresholds
from mtl_edge.training.checkpoint import Checkpoint, Sample
from mtl_edge.training.data import TaskData, spread
from mtl_edge.training.finetune import finetune
from mtl_edge.training.fit import fit_heads, predict
from mtl_edge.training.folds import out_of_fold, require_texts
from mtl_edge.training.heads import DEFAULT_HEAD, Head, build_head, head_config
from mtl_edge.training.journal import Journal
from mtl_edge.training.model import MultiTaskModel, logits_of, means_of
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.scenarios import Learning, learning_of
from mtl_edge.training.states import StateCache, default_cache, device

__all__ = ["MAX_TOKENS", "Options", "train"]

MAX_TOKENS = 128

CALIBRATION_ROWS = 300
TRAIN_ROWS_SCORED = 1000
PACKAGES = ("torch", "transformers", "optimum", "tokenizers", "numpy", "scikit-learn")
CACHE_LIMIT = 20 * 10**9
TEXTS_AT_ONCE = 10_000
BASELINE_ROWS = 10_000  # their memory grows with the rows that teach them
FEWEST_OF_A_LABEL = 3  # as many as there are folds when a baseline is regularized

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told besides its data.

    Attributes:
        learn, freeze, top_layers: see `mtl_edge.training.scenarios`.
        heads: how each task's head is named; a task that is not here gets the default, or keeps
            the one that it has.
        depth: layers of the backbone to use; none: all.
        all_depths: whether to teach heads for every smaller depth too.
        exits: depths of cheaper stages that a bundle may have: heads are taught for them, too, and
            answers out of fold are kept, for `mtl_edge.export.exits` to fit thresholds on.
        exit_folds: of these answers, see `mtl_edge.training.folds`.
        max_tokens: of a text, the rest is cut; none: 128, or as the model was taught before.
        refit: whether to teach the heads once more at the end, on the rows that chose as well, for
            as long; temperatures and thresholds stay those that were chosen before. Needs rows to
            report on.
        abstain: accuracy that answers shall have from their label's threshold on; none: no
            thresholds.
        cache_limit: bytes that cached states may take.
        baselines: whether to measure what a head has to beat.
    """

    scenario: str = "heads"
    learn: Sequence[str] = ()
    freeze: Sequence[str] = ()
    top_layers: int = 2
    heads: Mapping[str, str] = field(default_factory=dict)
    depth: int | None = None
    all_depths: bool = False
    exits: Sequence[int] = ()
    exit_folds: int = 5
    max_tokens: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    refit: bool = False
    abstain: float | None = None
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
        self._labels = {task.name: task.labels for task in tasks}
        for task in tasks:
            for split, rows in (
                (self.train, task.train),
                (self.selection, task.selection),
                (self.report, task.report[1]),
            ):
                positions = [place.setdefault(text, len(place)) for text in rows.texts]
                split[task.name] = Labelled(positions, task.indices(rows))
        self.texts = list(place)

    def seen(self, task: str) -> Labelled:
        """Some of the rows that teach: enough to see overfitting."""
        train = self.train[task]
        by_label = sorted(range(len(train)), key=train.labels.__getitem__)
        some = spread(by_label, TRAIN_ROWS_SCORED)
        return Labelled([train.rows[i] for i in some], [train.labels[i] for i in some])

    def show(self, task: str, text: int, label: int) -> dict[str, str]:
        """A row as a user knows it."""
        return {"task": task, "text": self.texts[text], "label": self._labels[task][label]}


def train(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: Options = Options(),
    start: Checkpoint | None = None,
    journal: Journal | None = None,
) -> Checkpoint:
    """Teach what the scenario lets learn.

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
    journal = journal or Journal()
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
    if kept and learning.backbone != "frozen":
        raise OptionError(
            f"--scenario {options.scenario} changes the backbone under task "
            f"{', '.join(t.name for t in kept)}; give its rows with --task too, or freeze backbone"
        )
    if options.refit and (learning.backbone != "frozen" or any(t.dev is None for t in tasks)):
        raise OptionError(
            "--refit teaches on the rows that would be reported on, and only heads; give --dev for "
            "each task, and a --scenario that leaves the backbone frozen"
        )
    if start is not None:
        _require_as_taught(options, tasks, start)
    if options.exits:
        _require_exits(options, learning, tasks, start)
    require_cache(options.cache)
    depths = _depths(options, learning, backbone, start)
    depth = depths[-1]
    heads = {d: _heads(tasks, kept, backbone, d, options, start) for d in depths}
    encoder = backbone.text_encoder(start.max_tokens if start else options.max_tokens or MAX_TOKENS)
    rows = _Rows(tasks)
    ids, truncated = _encoded(encoder, rows.texts)
    cache = StateCache(options.cache, options.cache_limit)
    states = cache.states(backbone, ids, without_layers=0 in depths)
    backbone.encoder.cpu()
    before = {
        task.name: predict(heads[depth][task.name], states, rows.report[task.name].rows).numpy()
        for task in tasks
    }
    began = time.monotonic()
    learned = sum(
        p.numel()
        for at_depth in heads.values()
        for name in learning.heads
        for p in at_depth[name].parameters()
    )

    def fit(some: Mapping[int, Mapping[str, Head]], refit: bool) -> dict[str, dict[int, Any]]:
        recipe = replace(options.recipe, patience=None) if refit else options.recipe
        result = {}
        for name in [task.name for task in tasks if task.name in learning.heads]:
            chosen_by = rows.selection[name]
            result[name] = fit_heads(
                name,
                {d: at_depth[name] for d, at_depth in some.items()},
                states,
                rows.train[name] + chosen_by if refit else rows.train[name],
                chosen_by,
                recipe,
                journal=journal,
                show=rows.show,
                refit=refit,
            )
        return result

    model = None
    if learning.backbone == "frozen":
        chosen = fit(heads, refit=False)
        backbone = backbone.truncated(depth)
    else:
        backbone = backbone.truncated(depth)
        model, result = finetune(
            MultiTaskModel(copy.deepcopy(backbone.encoder), heads[depth]),
            ids,
            {name: r for name, r in rows.train.items() if name in learning.heads},
            {name: r for name, r in rows.selection.items() if name in learning.heads},
            learning,
            options.recipe,
            journal=journal,
            show=rows.show,
        )
        chosen = {name: {depth: result.chosen[name]} for name in learning.heads}
        learned = result.parameters
        backbone = backbone.changed(model.encoder, learning.backbone)

    def logits(
        some: Mapping[int, Mapping[str, Head]], task: str, of: Labelled
    ) -> dict[int, Values]:
        """By depth: from states where the backbone is still theirs, else from the model."""
        if model is not None:
            return {depth: logits_of(model, [ids[row] for row in of.rows])[task]}
        return {d: predict(at[task], states, of.rows).numpy() for d, at in some.items()}

    def pooled(of: Sequence[int]) -> Values:
        """What the usual recipe reads of these texts."""
        if model is not None:
            return means_of(model.encoder, [ids[row] for row in of])
        return states.means(of, depth)

    asked_out_of_fold = {}
    if options.exits:
        asked_out_of_fold = {
            task.name: out_of_fold(
                task.name,
                lambda name=task.name: {  # type: ignore[misc]
                    d: _heads(tasks, kept, backbone, d, options, start)[name]
                    for d in (*options.exits, depth)
                },
                states,
                rows.train[task.name] + rows.selection[task.name],
                options.exit_folds,
                options.recipe,
                journal=journal,
                show=rows.show,
            )
            for task in tasks
        }
    choosing = {task.name: logits(heads, task.name, rows.selection[task.name]) for task in tasks}
    if options.refit:
        heads = {d: _heads(tasks, kept, backbone, d, options, start) for d in depths}
        fit(heads, refit=True)
    seconds = time.monotonic() - began
    report = {
        task.name: _report(
            task,
            rows,
            pooled,
            _TaskLogits(
                before[task.name],
                choosing[task.name],
                logits(heads, task.name, rows.report[task.name]),
                logits({depth: heads[depth]}, task.name, rows.seen(task.name))[depth],
            ),
            heads[depth][task.name],
            chosen.get(task.name, {}),
            options,
            refitted=(options.refit and task.name in learning.heads)
            or (start is not None and task.name in start.heads and start.refitted(task.name)),
        )
        for task in tasks
    }
    return Checkpoint(
        backbone=backbone,
        depth=depth,
        tasks=(*kept, *(_task(task, report[task.name], depth) for task in tasks)),
        heads=heads[depth],
        shallower={d: heads[d] for d in depths[:-1]},
        max_tokens=encoder.max_tokens,
        samples=[
            *(s for s in (start.samples if start else ()) if s.task in {t.name for t in kept}),
            *_samples(tasks, names),
        ],
        report={
            **{
                t.name: {**start.report[t.name], "refitted": start.refitted(t.name)}
                for t in kept
                if start
            },
            **report,
        },
        out_of_fold={
            **{t.name: f for t in kept if start and (f := start.out_of_fold.get(t.name))},
            **asked_out_of_fold,
        },
        run={
            "scenario": options.scenario,
            "backbone": learning.backbone,
            "heads_that_learned": sorted(learning.heads),
            "parameters_that_learned": learned,
            "seconds_of_learning": round(seconds, 2),
            "refitted": options.refit,
            **({"exit_folds": options.exit_folds} if options.exits else {}),
            "device": str(device()),
            "texts": len(rows.texts),
            "texts_cut_to_max_tokens": truncated,
            "recipe": options.recipe.to_json(),
            "versions": {name: version(name) for name in ("mtl-edge", *PACKAGES)},
        },
        metrics=[*_earlier(start, journal), *journal.metrics],
    )


def _earlier(start: Checkpoint | None, journal: Journal) -> list[Mapping[str, Any]]:
    """Figures of what `start` learned and this run did not."""
    parts = {line["part"] for line in journal.metrics}
    return [line for line in (start.metrics if start else ()) if line["part"] not in parts]


def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> tuple[list[Tokens], int]:
    """Token ids of each text, and how many texts are longer than the limit."""
    ids: list[Tokens] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found, longer = encoder.counted(texts[start : start + TEXTS_AT_ONCE])
        ids += [np.array(tokens, np.int32) for tokens in found]  # a tenth of a list's memory
        truncated += longer
    return ids, truncated


def _require_as_taught(options: Options, tasks: Sequence[TaskData], start: Checkpoint) -> None:
    """
    Raises:
        OptionError: `start` has other maximum tokens, or its heads have seen what is needed unseen.
    """
    most = options.max_tokens
    if most is not None and min(most, start.backbone.max_tokens) != start.max_tokens:
        raise OptionError(
            f"--max-tokens is {most}, and the checkpoint was taught with {start.max_tokens}; leave "
            "--max-tokens out"
        )
    if options.abstain is not None and (seen := _known(tasks, start)):
        raise OptionError(
            f"--abstain fits thresholds on rows that heads have not seen, and the checkpoint's of "
            f"task {seen[0]!r} may have seen them; train it anew, without --extend"
        )


def _known(tasks: Sequence[TaskData], start: Checkpoint | None) -> list[str]:
    """Names of the tasks that `start` has heads for."""
    return [task.name for task in tasks if start is not None and task.name in start.heads]


def _require_exits(
    options: Options, learning: Learning, tasks: Sequence[TaskData], start: Checkpoint | None
) -> None:
    """
    Raises:
        OptionError: the heads of a fold would not be such as those that ship, or have no rows.
    """
    if learning.backbone != "frozen":
        raise OptionError("--exits needs a frozen backbone; choose another --scenario")
    if still := [task.name for task in tasks if task.name not in learning.heads]:
        raise OptionError(f"--exits needs heads that learn, and {still[0]!r} does not; let it")
    if seen := _known(tasks, start):
        raise OptionError(
            f"--exits asks heads for rows that they have not seen, and the checkpoint's of task "
            f"{seen[0]!r} may have seen them; train it anew, without --extend"
        )
    if not 2 <= options.exit_folds <= 50:
        raise OptionError(f"--exit-folds is {options.exit_folds}, expected 2 to 50")
    for task in tasks:
        require_texts(task.name, [*task.train.texts, *task.selection.texts], options.exit_folds)


def _depths(
    options: Options, learning: Learning, backbone: Backbone, start: Checkpoint | None
) -> list[int]:
    """Depths that get heads, the one to use last."""
    if start is not None:
        if options.depth not in (None, start.depth):
            raise OptionError(f"the checkpoint has depth {start.depth}; leave --depth out")
        if options.all_depths and not start.shallower and start.depth:
            raise OptionError(
                f"the checkpoint has heads for depth {start.depth} alone; leave --all-depths out"
            )
        if learning.backbone != "frozen":
            return [start.depth]
        if missing := [one for one in options.exits if one not in start.shallower]:
            raise OptionError(
                f"--exits {missing[0]}: the checkpoint has heads for depth "
                f"{', '.join(map(str, [*start.shallower, start.depth]))} alone"
            )
        return [*start.shallower, start.depth]
    layers = backbone.info.layers
    depth = layers if options.depth is None else options.depth
    if not 0 <= depth <= layers:
        raise OptionError(f"--depth is {depth}, and the backbone has layers 0 to {layers}")
    if options.all_depths and learning.backbone != "frozen":
        raise OptionError("--all-depths needs a frozen backbone; choose another --scenario")
    if high := [one for one in options.exits if not 0 <= one < depth]:
        raise OptionError(
            f"--exits {high[0]}: a cheaper stage has fewer layers than the model's {depth}"
        )
    depths = sorted({*(range(depth) if options.all_depths else options.exits), depth})
    for one in depths:
        backbone.require_depth(one)
    return depths


def _heads(
    tasks: Sequence[TaskData],
    kept: Sequence[Task],
    backbone: Backbone,
    depth: int,
    options: Options,
    start: Checkpoint | None,
) -> dict[str, Head]:
    """Heads of one depth by task: those of `start` where it has them, fresh ones for the rest.

    Raises:
        CheckpointError: `start` has other labels for one of the tasks.
        OptionError: there is no such head, or `start` has another.
    """
    torch.manual_seed(options.recipe.seed)  # also where no head is fresh: dropout draws from it
    there = start.at(depth).heads if start else {}
    heads = {task.name: there[task.name] for task in kept}
    known = {task.name: task for task in start.tasks} if start else {}
    for task in tasks:
        config = head_config(
            options.heads.get(task.name, DEFAULT_HEAD),
            states=depth + 1,
            width=backbone.width_at(depth),
            labels=len(task.labels),
        )
        if start is not None and task.name in known:
            if known[task.name].labels != task.labels:
                raise CheckpointError(
                    f"task {task.name!r} has the labels {', '.join(task.labels)} in "
                    f"{task.train.source['file']} and {', '.join(known[task.name].labels)} in the "
                    "checkpoint; give the task another name, or start anew"
                )
            found = there[task.name].config
            if task.name in options.heads and (config.kind, config.pooling) != (
                found.kind,
                found.pooling,
            ):
                raise OptionError(
                    f"--head {options.heads[task.name]}: the checkpoint's head of task "
                    f"{task.name!r} is {found.kind}, pooling {found.pooling}; leave --head out for "
                    "it, or give the task another name"
                )
            heads[task.name] = copy.deepcopy(there[task.name])
            continue
        torch.manual_seed(options.recipe.seed)  # a head does not depend on which others there are
        heads[task.name] = build_head(config)
    return heads


@dataclass(frozen=True, slots=True)
class _TaskLogits:
    """One task's logits.

    Attributes:
        before: of the reported rows, before learning.
        selection: by depth, when temperatures are chosen.
        reported: by depth, in the end.
        seen: of some rows that taught, in the end.
    """

    before: Values
    selection: Mapping[int, Values]
    reported: Mapping[int, Values]
    seen: Values


def _task(task: TaskData, report: Mapping[str, Any], depth: int) -> Task:
    found = report["depths"][str(depth)]
    return Task(task.name, task.labels, found["temperature"], tuple(found["thresholds"]))


def _report(
    task: TaskData,
    rows: _Rows,
    pooled: Callable[[Sequence[int]], Values],
    found: _TaskLogits,
    head: Head,
    chosen: Mapping[int, Mapping[str, float]],
    options: Options,
    *,
    refitted: bool,
) -> dict[str, Any]:
    """The figures of one task; the deepest head's where depth is not named.

    Args:
        pooled: means over tokens of texts given by their positions, `[texts, width]`.
        refitted: whether its heads were taught on the rows of selection as well.
    """
    split, reported = task.report
    asked = rows.report[task.name]
    deepest = max(found.reported)
    depths = {
        str(depth): {
            **_chosen(found.selection[depth], rows.selection[task.name], options.abstain),
            "accuracy": float((logits.argmax(1) == asked.labels).mean()),
        }
        for depth, logits in found.reported.items()
    }
    logits = found.reported[deepest]
    labels = np.array(task.labels)
    learn = rows.train[task.name]
    answers = {"head": labels[logits.argmax(1)], "before": labels[found.before.argmax(1)]}
    if options.baselines:
        some = _sampled(task.train.labels, BASELINE_ROWS, options.recipe.seed)
        teach = task.train.take(some)
        means = pooled([learn.rows[i] for i in some]), pooled(asked.rows)
        answers["mean_pooling"] = mean_pooling(means[0], teach.labels, means[1])
        answers["bag_of_words"] = bag_of_words(teach.texts, teach.labels).predict(reported.texts)
    temperature = depths[str(deepest)]["temperature"]
    return {
        "train": {
            **task.train.source,
            "rows": len(task.train),
            "accuracy": float((found.seen.argmax(1) == rows.seen(task.name).labels).mean()),
        },
        "selection": {"rows": len(task.selection), **chosen.get(deepest, {})},
        "refitted": refitted,
        "reported": {**reported.source, "split": split, "rows": len(reported)},
        "parameters": sum(p.numel() for p in head.parameters()),
        "depths": depths,
        "calibration_error": {
            "before": calibration_error(logits, asked.labels, 1.0),
            "after": calibration_error(logits, asked.labels, temperature),
        },
        **(
            {"abstaining": _abstaining(logits, asked, depths[str(deepest)])}
            if options.abstain is not None
            else {}
        ),
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


def _chosen(logits: Values, selection: Labelled, abstain: float | None) -> dict[str, Any]:
    """What is chosen by the logits of the selection rows."""
    temperature = fit_temperature(logits, selection.labels)
    thresholds = (
        ()
        if abstain is None
        else fit_thresholds(softmax(logits, temperature), selection.labels, abstain)
    )
    return {
        "temperature": temperature,
        "thresholds": list(thresholds),
        "selection_accuracy": float((logits.argmax(1) == selection.labels).mean()),
    }


def _sampled(labels: Sequence[str], most: int, seed: int) -> list[int]:
    """Positions of all rows, or of `most` of them and a few of each label that is rare."""
    if len(labels) <= most:
        return list(range(len(labels)))
    some = set(random.Random(seed).sample(range(len(labels)), most))
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    for of_label in places.values():
        if len(some.intersection(of_label)) < FEWEST_OF_A_LABEL:
            some.update(of_label[:FEWEST_OF_A_LABEL])
    return sorted(some)


def _abstaining(
    logits: Values, asked: Labelled, chosen: Mapping[str, Any]
) -> dict[str, float | None]:
    """How many of the reported rows get a sure answer, and how many of those are right."""
    probabilities = softmax(logits, chosen["temperature"])
    answers = probabilities.argmax(1)
    sure = probabilities.max(1) >= np.array(chosen["thresholds"])[answers]
    right = answers == asked.labels
    return {
        "answered": float(sure.mean()),
        "accuracy": float(right[sure].mean()) if sure.any() else None,
    }


def _spread(rows: Rows, count: int) -> list[int]:
    """Positions of `count` rows, or of all, that have every label and length in proportion."""
    order = sorted(range(len(rows)), key=lambda i: (rows.labels[i], len(rows.texts[i])))
    return spread(order, count)


def _samples(tasks: Sequence[TaskData], names: Sequence[str]) -> list[Sample]:
    """Rows that export needs: some of train to calibrate with, the rest to compare on."""
    samples = []
    for task in tasks:
        calibration = task.train.take(_spread(task.train, CALIBRATION_ROWS // len(names) + 1))
        splits = {"calibration": calibration, "selection": task.selection, "dev": task.dev}
        for split, rows in splits.items():
            if rows is not None:
                samples += [
                    Sample(split, task.name, text, label)
                    for text, label in zip(rows.texts, rows.labels, strict=True)
                ]
    return samples
