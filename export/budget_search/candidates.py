"""What a checkpoint could become: every depth, combination of stages and target, built and timed.

One candidate is loaded at a time, as in an app: engines that share a process slow each other down.
All have their turn in each of a few interleaved rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from mtl_edge.classifier import EdgeClassifier
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.budget_search.frontier import Plan
from mtl_edge.export.build import export
from mtl_edge.export.early_exit.exit_choice import cheapest, choices, costs_of
from mtl_edge.export.early_exit.exits import Promise
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import TARGETS
from mtl_edge.timing import Timing, interleave, time_calls, wall_ms
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import spread
from mtl_edge.training.progress import Progress

__all__ = ["PASSES", "CandidateTimes", "build", "depths_of_stages", "measure", "plans", "tried"]

TEXTS, PASSES, BULK = 256, 3, 2
LEAD = 16  # untimed single texts after a candidate was loaded
SHAPE_ROUNDS, SHAPE_SECONDS = 15, 1.0  # of the engine's own calls, in each pass


@dataclass(slots=True)
class CandidateTimes:
    """Of one candidate: milliseconds of single texts, of whole calls and of the engine's own calls.

    Attributes:
        texts: that a whole call has.
        shapes: by `texts x tokens`, as `1x32`.
    """

    texts: int
    single: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    shapes: dict[str, list[float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """By quantity, in the units of `mtl_edge.export.budget_search.budget`."""
        p50, p95, p99 = (float(q) for q in np.quantile(self.single, [0.5, 0.95, 0.99]))
        speed = 1e3 * self.texts / float(np.median(self.bulk))
        return {"p50": p50, "p95": p95, "p99": p99, "texts/s": speed}


def plans(
    checkpoint: Checkpoint, targets: Sequence[str], promise: Promise
) -> tuple[list[Plan], list[str]]:
    """Everything that the checkpoint could become, and what was left out.

    Every depth that has heads; before full depth, each depth that has answers out of fold as a
    stage by itself, and of several the combination that makes a text cheapest.
    """
    known = depths_of_stages(checkpoint)
    combinations: list[tuple[int, ...]] = [(depth,) for depth in known]
    left_out = []
    if len(known) > 1:
        asked = replace(promise, depths=None)
        try:
            pays = cheapest(checkpoint, asked, costs_of(checkpoint)).depths or ()
        except OptionError as error:
            left_out.append(f"the cheapest combination of stages: {error}")
        else:
            combinations += [pays] if pays not in combinations else []
    depths = sorted({*checkpoint.shallower, checkpoint.depth})
    forms = [*((depth, ()) for depth in depths), *((checkpoint.depth, c) for c in combinations)]
    return [Plan(depth, before, target) for depth, before in forms for target in targets], left_out


def depths_of_stages(checkpoint: Checkpoint) -> list[int]:
    """Those that have what thresholds are fitted on, for every task."""
    found = [answers.logits.keys() for answers in checkpoint.out_of_fold.values()]
    complete = len(found) == len(checkpoint.tasks) and bool(found)
    shared = set.intersection(*map(set, found)) if complete else set()
    return sorted(shared - {checkpoint.depth}) if checkpoint.depth in shared else []


def tried(checkpoint: Checkpoint) -> int:
    """How many combinations of stages are looked at: the level of the promise is divided by it."""
    return max(1, len(choices(depths_of_stages(checkpoint))))


def build(
    checkpoint: Checkpoint,
    wanted: Sequence[Plan],
    promise: Promise,
    settings: Settings,
    work: Path,
    left_out: list[str],
) -> dict[Plan, Path]:
    """A proven bundle of each plan, in `work`; those that fail are added to `left_out`.

    Raises:
        ExportError: none could be built.
    """
    built = {}
    for number, plan in enumerate(wanted, 1):
        print(f"export: candidate {number} of {len(wanted)}, {plan}", file=sys.stderr, flush=True)
        alone = replace(plan, stages=())
        if plan.stages and alone not in built:
            left_out.append(f"{plan}: so is {alone}")
            continue
        folder = work / str(number)
        own = replace(promise, depths=plan.stages) if plan.stages else None
        # Rows may be too few for a promise, which is no reason to do without the other candidates.
        harmless = (ExportError, OptionError) if plan.stages else (ExportError,)
        try:
            at_depth = checkpoint.at(plan.depth)
            export(at_depth, folder, [plan.target], settings=replace(settings, promise=own))
        except harmless as error:
            left_out.append(f"{plan}: {error}")
            print(f"export: left out {plan}: {error}", file=sys.stderr)
        else:
            built[plan] = folder
    if not built:
        raise ExportError(f"no candidate could be built; the first: {left_out[0]}")
    return built


def measure(
    built: Mapping[Plan, Path],
    texts: Sequence[str],
    *,
    shapes: Sequence[tuple[int, int]] = (),
    threads: int | None = None,
    first: Callable[[Plan, EdgeClassifier], None] | None = None,
) -> dict[Plan, CandidateTimes]:
    """Each candidate's times: single texts, all in one call, and the engine's calls at shapes.

    Args:
        texts: some of them, evenly by length, are timed.
        threads: of the engines; None: as the runtime decides.
        first: called once with each candidate's classifier, as to see how right it is.
    """
    some = spread(sorted(texts, key=len), TEXTS)
    measured = {plan: CandidateTimes(len(some)) for plan in built}
    rng = np.random.default_rng(0)
    with Progress("measuring", total=PASSES * len(built), unit="turns") as progress:

        def turn(plan: Plan) -> None:
            target = TARGETS[plan.target]
            with EdgeClassifier.load(
                built[plan],
                engine=target.engine,
                target=plan.target,
                threads=threads,
                verify="size",
            ) as classifier:
                if first is not None and not measured[plan].single:
                    first(plan, classifier)
                shuffled = [some[i] for i in rng.permutation(len(some))]
                _time(classifier, shuffled, shapes, measured[plan])
            progress.update()

        interleave({str(plan): partial(turn, plan) for plan in built}, rounds=PASSES)
    return measured


def _time(
    classifier: EdgeClassifier,
    texts: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    into: CandidateTimes,
) -> None:
    """One turn: every text by itself, all of them in one call, and the engine's own calls."""
    for text in texts[:LEAD]:
        classifier.predict(text)
    into.single += [wall_ms(partial(classifier.predict, text)) for text in texts]
    whole = partial(classifier.predict, texts)
    into.bulk += time_calls(
        {"": whole}, rounds=BULK, seconds=np.inf, warm_up=1, lead=0, settle=0
    )[""].rounds  # fmt: skip
    for batch, tokens in shapes:
        session = classifier._running()
        ids = np.random.default_rng(0).integers(
            0, session.bundle.manifest.backbone.vocabulary, (batch, tokens)
        )
        call = partial(session.engine.run, ids, np.ones_like(ids))
        found: Timing = time_calls({"": call}, rounds=SHAPE_ROUNDS, seconds=SHAPE_SECONDS)[""]
        into.shapes.setdefault(f"{batch}x{tokens}", []).extend(found.rounds)
