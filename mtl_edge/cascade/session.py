"""A bundle that runs: token ids in, checked answers out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl_edge.batches.planning import Tokens
from mtl_edge.bundle import TOKENIZER, Bundle, Exit, Manifest, Task, Verify, open_bundle
from mtl_edge.bundle.depths import at_most, graph_at, tasks_at
from mtl_edge.cascade.latency import Pace
from mtl_edge.cascade.stages import Answered, Stage, answer, answer_one
from mtl_edge.choosing import Choice, bundle_engine, start_chosen
from mtl_edge.engines import Engine, Setup
from mtl_edge.errors import OptionError
from mtl_edge.io.limits import Limits
from mtl_edge.tokens.encoder import TextEncoder

__all__ = ["Loaded", "answering", "load_bundle"]

TIMES_WITHOUT_LAYERS = 4  # as many tokens are in a batch; the call itself counts for more there
PACE_TOKENS = 32  # of the shorter of two single texts by which a stage's pace is first known


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Loaded:
    """One version of a bundle, running. Calls hold on to it, so that it goes with the last one.

    Attributes:
        bundle: as it runs: without the stages that are deeper than was asked for.
        manifest: all that the bundle says of itself.
        stages: the cheapest first, the deepest last.
        process: that its threads live in.
    """

    bundle: Bundle
    manifest: Manifest
    choice: Choice
    stages: tuple[Stage, ...]
    encoder: TextEncoder
    setup: Setup
    process: int

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those that are asked, as the deepest stage answers them."""
        return self.stages[-1].tasks

    @property
    def engine(self) -> Engine:
        """The deepest stage's."""
        return self.stages[-1].engine

    @property
    def batch_tokens(self) -> int:
        """That the deepest stage runs at once."""
        return self.stages[-1].batch_tokens

    def answers(self, ids: Sequence[Tokens], deadline: float | None = None) -> list[Answered]:
        """One or more texts' answers, in parts of one stage each: see `mtl_edge.cascade.stages`."""
        if len(ids) == 1:
            return [answer_one(self.stages, ids[0], deadline)]
        return list(answer(self.stages, [ids], deadline))

    def answers_of_many(
        self, windows: Iterable[Sequence[Tokens]], deadline: float | None = None
    ) -> list[Answered]:
        """The same of any number of texts, a window of which is in work at a time."""
        return list(answer(self.stages, windows, deadline))

    def warm(self, *, batches: bool) -> None:
        """Run every shape that was compiled ahead, the longest text and, of batches, the largest.

        Stages whose pace counts run single texts once more, now that shapes are warm.

        Raises:
            EngineError: see `Stage.run`.
        """
        longest = self.encoder.max_tokens
        for stage in self.stages:
            shapes = {*stage.engine.fixed_shapes, (1, longest)}
            if batches:
                shapes.add((max(1, stage.batch_tokens // longest), longest))
            for shape in sorted(shapes):
                stage.run(np.zeros(shape, np.int64), np.ones(shape, np.int64))
            if stage.pace is not None:
                stage.pace.clear()
                for shape in sorted({(1, min(PACE_TOKENS, longest)), (1, longest)}):
                    stage.run(np.zeros(shape, np.int64), np.ones(shape, np.int64))


def load_bundle(
    path: Path,
    engine: str,
    target: str | None,
    setup: Setup,
    limits: Limits,
    verify: Verify,
    public_key: str | Path | None,
    max_depth: int | None,
) -> Loaded:
    """Verify a bundle and start an engine on each of its stages: see `EdgeClassifier.load`."""
    opened = open_bundle(path, verify=verify, public_key=public_key)
    manifest = at_most(opened.manifest, max_depth)
    bundle = replace(opened, manifest=manifest)
    most = min(manifest.max_tokens, limits.tokens or manifest.max_tokens)
    words = manifest.backbone.vocabulary
    encoder = TextEncoder.from_file(bundle.file(TOKENIZER), most, words)
    choice, deepest = start_chosen(bundle, engine=engine, target=target, setup=setup)
    stages: list[Stage] = []
    try:
        for index, stage in enumerate(manifest.exits):
            graph = graph_at(choice.graph, index)
            started = bundle_engine(bundle, graph, setup, choice.engine)
            stages.append(_cheaper(stage, started, manifest.tasks, limits, first=not index))
    except BaseException:
        for running in (deepest, *(s.engine for s in stages)):
            running.close()
        raise
    tokens = _batch_tokens(manifest.depth, deepest, limits)
    pace = Pace() if stages else None
    stages.append(Stage(manifest.depth, deepest, manifest.tasks, None, tokens, pace))
    return Loaded(bundle, opened.manifest, choice, tuple(stages), encoder, setup, os.getpid())


def _cheaper(
    stage: Exit, engine: Engine, tasks: Sequence[Task], limits: Limits, *, first: bool
) -> Stage:
    return Stage(
        depth=stage.depth,
        engine=engine,
        tasks=tasks_at(tasks, stage),
        leaving=stage.thresholds,
        batch_tokens=_batch_tokens(stage.depth, engine, limits),
        pace=None if first else Pace(),  # the first runs in any case
    )


def _batch_tokens(depth: int, engine: Engine, limits: Limits) -> int:
    """That a stage runs at once: more where no layers work on them."""
    most = engine.tokens_per_batch * (1 if depth else TIMES_WITHOUT_LAYERS)
    return limits.batch_tokens or most


def answering(
    loaded: Loaded, names: Sequence[str] | None, deciding: Sequence[str] | None = None
) -> Loaded:
    """The same with these of the tasks only.

    Args:
        names: to answer, in this order; none: all.
        deciding: of these, whose certainty decides whether a text goes on; none: all of them.

    Raises:
        OptionError: there is no such task.
    """
    known = [task.name for task in loaded.tasks]
    asked = _among(names, known, "tasks", "the bundle has no task")
    decide = _among(deciding, asked, "depth_for", "what is asked for has no task")
    return replace(loaded, stages=tuple(_asked(stage, asked, decide) for stage in loaded.stages))


def _among(names: Sequence[str] | None, known: Sequence[str], what: str, lacks: str) -> list[str]:
    if names is None:
        return list(known)
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not wanted:
        raise OptionError(f"{what} is empty, expected some of {', '.join(known)}")
    if strange := [name for name in wanted if name not in known]:
        raise OptionError(f"{lacks} {', '.join(map(repr, strange))}; it has {', '.join(known)}")
    return wanted


def _asked(stage: Stage, names: Sequence[str], deciding: Sequence[str]) -> Stage:
    tasks = {task.name: task for task in stage.tasks}
    leaving = stage.leaving
    if leaving is not None:
        leaving = {name: leaving[name] for name in deciding}
    return replace(stage, tasks=tuple(tasks[name] for name in names), leaving=leaving)
