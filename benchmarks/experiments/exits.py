"""What cheaper stages save on real texts.

A bundle with stages against its own full depth, both through the runtime, tokenization included, in
interleaved rounds of one run:

    each its own   each text is asked its own task
    all tasks      each text is asked every task, those outside its domain too, and exits early
                   only if all are sure
    crossed        each text is asked a task of another domain: the share that exits should fall,
                   as no threshold was fitted on such texts

and single texts one after the other, for how latency is distributed. With `--teach`, TF-IDF and
logistic regression, trained on those rows, are timed in the same rounds. With `--simulate`, for an
encoder of random weights, thresholds are set so that given shares of the texts exit: then the times
mean something, and answers and accuracy nothing.

Texts are asked several times, and the runtime keeps the ids of words: in bulk it so saves some 10
microseconds a text that a text with new words alone would take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from mtl_edge.answers.predictions import Prediction
from mtl_edge.batches.planning import Tokens
from mtl_edge.benchmarks.core.command import model_of, new_record, run_module
from mtl_edge.benchmarks.core.measure import ONE, rounds_of, text_times
from mtl_edge.benchmarks.core.record import Record, SystemInfo
from mtl_edge.benchmarks.core.report import Report
from mtl_edge.benchmarks.experiments.exits_report import BAG, FULL, STAGED, report_of
from mtl_edge.bundle import open_bundle
from mtl_edge.cascade.early_exit import answer, answer_one
from mtl_edge.cascade.opening import for_tasks
from mtl_edge.cascade.outputs import in_order, predictions
from mtl_edge.cascade.session import Session
from mtl_edge.cascade.stage import Stage
from mtl_edge.cli.named_values import named
from mtl_edge.cli.reading import add_label_arguments, add_read_arguments, rows_of
from mtl_edge.errors import OptionError
from mtl_edge.export.early_exit.exit_proof import open_cascade, promised
from mtl_edge.io.labelled import Rows
from mtl_edge.timing import time_calls
from mtl_edge.training.baselines import bag_of_words
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.progress import Progress

__all__ = ["Asking", "main", "measure"]

ROUNDS, SECONDS = 15, 30.0
SINGLES = 400

Data = Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Asking:
    """Some texts, the tasks that are asked of them, and the right labels where they are known."""

    name: str
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, Sequence[str | None]]


def askings(data: Data, tasks: Sequence[str]) -> list[Asking]:
    """How texts may be asked."""
    labels = {name: [str(label) for label in rows.labels] for name, rows in data.items()}
    own = [Asking(f"{n}, its own", rows.texts, [n], {n: labels[n]}) for n, rows in data.items()]
    every = [
        Asking(f"{name}, all tasks", rows.texts, tasks, {name: labels[name]})
        for name, rows in data.items()
        if len(tasks) > 1
    ]
    crossed = [
        Asking(f"{name}, crossed: {other}", rows.texts, [other], {})
        for name, rows in data.items()
        for other in tasks
        if other != name
    ]
    return [*own, *every, *crossed]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a folder that `export --exits` wrote")
    for option, rows in (
        ("--data", "labelled rows of a task"),
        ("--teach", "labelled rows that TF-IDF and logistic regression learn a task from"),
    ):
        parser.add_argument(option, action="append", default=[], metavar="TASK=FILE", help=rows)
    parser.add_argument(
        "--simulate",
        metavar="SHARES",
        help="of the texts that exit at each cheaper stage, as 0.6 or 0.6,0.2: thresholds are set "
        "so",
    )
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument("--targets", help="comma-separated; default: all that the bundle has")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS,
        help="for each way of asking; default: %(default)s",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    run_module("experiments.exits", __doc__, add_arguments, _measured, arguments)


def _measured(args: argparse.Namespace, command: str) -> Report:
    manifest = open_bundle(args.bundle).manifest
    known = [graph.target for graph in manifest.graphs]
    targets = known if args.targets is None else [t for t in args.targets.split(",") if t]
    if not targets or set(targets) - set(known):
        raise OptionError(f"--targets {args.targets}: the bundle has {', '.join(known)}")
    tasks = {task.name: task for task in manifest.tasks}

    def rows(option: str, files: Mapping[str, str]) -> dict[str, Rows]:
        if set(files) - set(tasks):
            raise OptionError(f"{option} TASK=FILE: expected some of the tasks {', '.join(tasks)}")
        if other := [name for name in files if tasks[name].kind != "single"]:
            raise OptionError(f"{option} {other[0]}: expected a task of one label a text")
        return {t: rows_of(t, file, args, list(tasks), tasks[t]) for t, file in files.items()}

    data = rows("--data", named("--data", args.data))
    if not data:
        raise OptionError(f"--data TASK=FILE: expected some of the tasks {', '.join(tasks)}")
    teach = rows("--teach", named("--teach", args.teach))
    shares = _shares(args.simulate, len(manifest.exits)) if args.simulate else ()
    return report_of(
        measure(args.bundle, data, targets, args.seconds, args.threads, command, teach=teach,
                simulate=shares)
    )  # fmt: skip


def _shares(text: str, stages: int) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
        raise OptionError(f"--simulate {text}: expected shares whose sum is below 1, as 0.6,0.2")
    if len(shares) != stages:
        raise OptionError(
            f"--simulate has {len(shares)} shares, and the bundle {stages} cheaper stages; give "
            "one each"
        )
    return shares


def measure(
    bundle: Path,
    data: Data,
    targets: Sequence[str],
    seconds: float,
    threads: int,
    command: str,
    *,
    teach: Data | None = None,
    simulate: Sequence[float] = (),
) -> Record:
    """All figures.

    Args:
        seconds: that each way of asking is timed for; three rounds at least.
        teach: rows that bags of words learn from, by task.
        simulate: shares of the texts that exit, of each stage but the last; none: as they do.
    """
    started = time.monotonic()
    bags = {
        task: bag_of_words(rows.texts, [str(label) for label in rows.labels])
        for task, rows in (teach or {}).items()
    }
    opened = open_bundle(bundle)
    drop, confidence = promised(opened.manifest)
    ways = askings(data, [task.name for task in opened.manifest.tasks])
    graphs = {graph.target: graph for graph in opened.manifest.graphs}
    record = new_record(
        "exits", command, threads, started, model=model_of(opened),
        inputs={
            "depths": [exit_.depth for exit_ in opened.manifest.exits],
            "drop": drop, "confidence": confidence, "simulated": list(simulate),
        },
        systems=[
            SystemInfo(t, graphs[t].engine, graphs[t].precision, opened.size_of(graphs[t]))
            for t in targets
        ],
    )  # fmt: skip
    with Progress("asking", total=len(targets) * len(ways), unit="ways") as progress:
        for target in targets:
            with open_cascade(bundle, target, threads) as session:
                for way in ways:
                    _ask(record, target, session, way, seconds, bags, simulate)
                    progress.update(1, f"{target}, {way.name}")
    return replace(record, seconds=round(time.monotonic() - started, 1))


def _ask(
    record: Record,
    target: str,
    session: Session,
    way: Asking,
    seconds: float,
    bags: Mapping[str, Pipeline],
    simulate: Sequence[float],
) -> None:
    """Add one way of asking: with stages, at full depth and, where its only task's labels are
    known and a bag of words was taught, by that."""
    stages, texts = for_tasks(session, way.tasks).stages, list(way.texts)
    ids = session.encoder.ids
    if simulate:
        stages = _simulated(stages, ids(texts), simulate)
    (known,) = way.labels if len(way.tasks) == 1 and way.labels else (None,)
    bag = bags.get(known) if known else None

    def ask(some: Sequence[Stage]) -> list[Prediction]:
        return predictions(answer(some, [ids(texts)]))

    def ask_one(some: Sequence[Stage], text: str) -> None:
        predictions([answer_one(some, ids([text])[0])])

    calls: dict[str, Callable[[], object]] = {
        STAGED: partial(ask, stages), FULL: partial(ask, stages[-1:]),
    }  # fmt: skip
    singles: dict[str, Callable[[str], object]] = {
        STAGED: partial(ask_one, stages), FULL: partial(ask_one, stages[-1:]),
    }  # fmt: skip
    if bag is not None:
        calls[BAG] = partial(bag.predict_proba, texts)
        singles[BAG] = lambda text: bag.predict_proba([text])
    name = f"{target}: {way.name}"
    record.figures[name] = _answers(way, stages, ask(stages), ask(stages[-1:]), bag)
    times = time_calls(calls, rounds=ROUNDS, seconds=seconds, warm_up=0)
    found = {n: timing.rounds for n, timing in times.items()}
    record.rounds.append(rounds_of(name, found, texts=len(texts), references=[FULL]))
    alone = text_times(singles, texts[:SINGLES], 1)
    flat = {n: t.ravel() for n, t in alone.items()}
    record.rounds.append(rounds_of(f"{name}, {ONE}", flat, texts=1, references=[FULL]))


def _answers(
    way: Asking,
    stages: Sequence[Stage],
    staged: Sequence[Prediction],
    full: Sequence[Prediction],
    bag: Pipeline | None,
) -> dict[str, float]:
    """How deep texts go, and how right they are answered."""
    found = {f"depth {s.depth}": _share(p.depth == s.depth for p in staged) for s in stages}
    found["agreement"] = min(
        _share(a[task].label == b[task].label for a, b in zip(staged, full, strict=True))
        for task in way.tasks
    )
    for task, labels in way.labels.items():
        answers = {STAGED: [p[task].label for p in staged], FULL: [p[task].label for p in full]}
        if bag is not None:
            answers[BAG] = bag.predict(list(way.texts))
        for name, own in answers.items():
            found[f"accuracy, {name}"] = _share(a == b for a, b in zip(own, labels, strict=True))
    return found


def _simulated(
    stages: Sequence[Stage], ids: Sequence[Tokens], shares: Sequence[float]
) -> tuple[Stage, ...]:
    """The stages with thresholds at which these shares of the texts exit."""
    made: list[Stage] = []
    waiting = np.arange(len(ids))
    for stage, share in zip(stages, shares, strict=False):
        tasks = [task.name for task in stage.tasks]
        alone = answer([replace(stage, exit_thresholds=None)], [[ids[i] for i in waiting.tolist()]])
        part = in_order(list(alone), stage.tasks, lambda some: some.probabilities)
        sure = np.min([part[task].max(1) for task in tasks], axis=0)
        count = min(round(share * len(ids)), len(waiting) - 1)
        least = float(np.sort(sure)[::-1][count - 1]) if count else NEVER
        made.append(replace(stage, exit_thresholds=dict.fromkeys(tasks, least)))
        waiting = waiting[sure < least]
    return (*made, *stages[len(made) :])


def _share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main()
