"""From a bundle's folder to a session: verified, an engine started for each stage, tasks chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mtl_edge.bundle import TOKENIZER, Exit, Manifest, Verify, open_bundle
from mtl_edge.bundle.depths import domain_at, graph_at, tasks_at, up_to_depth
from mtl_edge.cascade.latency import LatencyEstimator
from mtl_edge.cascade.session import Session
from mtl_edge.cascade.stage import Stage
from mtl_edge.choosing import bundle_engine, start_chosen
from mtl_edge.engines import Engine, Setup
from mtl_edge.engines.forks import outlive_forks
from mtl_edge.errors import OptionError
from mtl_edge.io.limits import Limits
from mtl_edge.tokens.encoder import TextEncoder

__all__ = ["for_tasks", "open_session", "start_session"]

# Without layers a token costs little beside the call itself: batches hold so many times the tokens.
TIMES_WITHOUT_LAYERS = 4


def start_session(
    load: Callable[[], Session],
    tasks: Sequence[str] | None,
    depth_for: Sequence[str] | None,
    warm: bool,
) -> Session:
    """A session of what `load` opens, with these tasks alone, run once if `warm`.

    Processes that are forked later never destroy their copy of it.

    Raises:
        BundleError, EngineError, OptionError: see `open_session` and `for_tasks`.
    """
    session = for_tasks(load(), tasks, depth_for)
    outlive_forks(session)
    if warm:
        session.warm(batches=False)
    return session


def open_session(
    path: Path,
    engine: str,
    target: str | None,
    setup: Setup,
    limits: Limits,
    verify: Verify,
    public_key: str | Path | None,
    max_depth: int | None,
) -> Session:
    """Verify a bundle and start an engine on each of its stages: see `EdgeClassifier.load`."""
    opened = open_bundle(path, verify=verify, public_key=public_key)
    manifest = up_to_depth(opened.manifest, max_depth)
    bundle = replace(opened, manifest=manifest)
    max_tokens = min(manifest.max_tokens, limits.tokens or manifest.max_tokens)
    vocabulary = manifest.backbone.vocabulary
    encoder = TextEncoder.from_file(bundle.file(TOKENIZER), max_tokens, vocabulary)
    choice, deepest = start_chosen(bundle, engine=engine, target=target, setup=setup)
    stages: list[Stage] = []
    try:
        for index, cheaper in enumerate(manifest.exits):
            graph = graph_at(choice.graph, index)
            started = bundle_engine(bundle, graph, setup)
            stages.append(_exit_stage(cheaper, started, manifest, limits, first=not index))
    except BaseException:
        for running in (deepest, *(stage.engine for stage in stages)):
            running.close()
        raise
    tokens = _batch_tokens(manifest.depth, deepest, limits)
    latency = LatencyEstimator() if stages else None
    stages.append(
        Stage(manifest.depth, deepest, manifest.tasks, None, tokens, latency, manifest.domain)
    )
    return Session(
        bundle, opened.manifest, choice, tuple(stages), encoder, setup, limits, os.getpid()
    )


def _exit_stage(
    cheaper: Exit, engine: Engine, manifest: Manifest, limits: Limits, *, first: bool
) -> Stage:
    return Stage(
        depth=cheaper.depth,
        engine=engine,
        tasks=tasks_at(manifest.tasks, cheaper),
        domain=domain_at(manifest.domain, cheaper),
        exit_thresholds=cheaper.thresholds,
        batch_tokens=_batch_tokens(cheaper.depth, engine, limits),
        latency=None if first else LatencyEstimator(),  # the first runs in any case
    )


def _batch_tokens(depth: int, engine: Engine, limits: Limits) -> int:
    fastest = engine.tokens_per_batch * (1 if depth else TIMES_WITHOUT_LAYERS)
    return limits.batch_tokens or fastest


def for_tasks(
    session: Session, names: Sequence[str] | None, deciding: Sequence[str] | None = None
) -> Session:
    """The session with some of the tasks only; its engines are shared.

    Args:
        names: tasks to answer, in this order; None: all.
        deciding: those of them that decide whether a text goes on to the next stage; None: all.

    Raises:
        OptionError: there is no such task.
    """
    known = [task.name for task in session.tasks]
    asked = _known_names(names, known, "tasks", "the bundle has no task")
    decide = _known_names(deciding, asked, "depth_for", "what is asked for has no task")
    stages = tuple(_stage_for_tasks(stage, asked, decide) for stage in session.stages)
    return replace(session, stages=stages)


def _known_names(
    names: Sequence[str] | None, known: Sequence[str], what: str, lacks: str
) -> list[str]:
    if names is None:
        return list(known)
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not wanted:
        raise OptionError(f"{what} is empty, expected some of {', '.join(known)}")
    if strange := [name for name in wanted if name not in known]:
        raise OptionError(f"{lacks} {', '.join(map(repr, strange))}; it has {', '.join(known)}")
    return wanted


def _stage_for_tasks(stage: Stage, names: Sequence[str], deciding: Sequence[str]) -> Stage:
    tasks = {task.name: task for task in stage.tasks}
    thresholds = stage.exit_thresholds
    if thresholds is not None:
        thresholds = {name: thresholds[name] for name in deciding}
    asked = tuple(tasks[name] for name in names)
    domain = stage.domain
    if domain is not None and not set(names) & set(domain.labels):
        domain = None
    return replace(stage, tasks=asked, exit_thresholds=thresholds, domain=domain)
