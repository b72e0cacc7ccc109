"""What cheaper stages save on real texts: `python -m mtl_edge.benchmarks.exits BUNDLE --data ...`.

A bundle with stages against its own full depth, both through the runtime, tokenization included, in
alternating rounds of one run:

    each its own   each text is asked its own task
    all tasks      each text is asked every task, those outside its domain too, and leaves early
                   only if all are sure
    crossed        each text is asked a task of another domain: the share that leaves early should
                   fall, as no threshold was fitted on such texts

and single texts one after the other, for how latency is distributed. With rows to learn from
(`--teach`), TF-IDF and logistic regression are timed in the same rounds. With `--simulate`, for an
encoder of random weights, thresholds are set so that given shares of the texts leave: then the
times mean something, and answers and accuracy nothing.

Texts are asked several times, and the runtime keeps the ids of words: in bulk it so saves some 10
microseconds a text that a text with new words alone would take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from mtl_edge.answers.predictions import Prediction, in_order, predictions
from mtl_edge.batches.planning import Tokens
from mtl_edge.benchmarks.machine import describe, processor_of
from mtl_edge.benchmarks.shown import shown
from mtl_edge.bundle import open_bundle
from mtl_edge.cascade.session import Loaded, answering
from mtl_edge.cascade.stages import Stage, answer, answer_one
from mtl_edge.cli import Parser
from mtl_edge.cli.named_values import named
from mtl_edge.cli.reading import add_label_arguments, add_read_arguments, rows_of
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.export.exit_proof import open_cascade, promised
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.io.labelled import Rows
from mtl_edge.table import markdown_table, text_table
from mtl_edge.timing import Timing, alternate
from mtl_edge.training.baselines import bag_of_words
from mtl_edge.training.calibration import NEVER
from mtl_edge.training.progress import Progress

__all__ = ["main", "measure"]

ROUNDS, SECONDS = 15, 30.0
SINGLES = 400
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Way:
    """Some texts, the tasks that are asked of them, and the right labels where they are known."""

    name: str
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, Sequence[str | None]]


def ways_of(data: Mapping[str, Rows], tasks: Sequence[str]) -> list[Way]:
    """How texts may be asked."""
    ways = []
    for name, rows in data.items():
        ways.append(Way(f"{name}, its own", rows.texts, [name], {name: rows.labels}))
    for name, rows in data.items():
        if len(tasks) > 1:
            ways.append(Way(f"{name}, all tasks", rows.texts, tasks, {name: rows.labels}))
    for name, rows in data.items():
        ways += [
            Way(f"{name}, crossed: {other}", rows.texts, [other], {})
            for other in tasks
            if other != name
        ]
    return ways


def measure(
    bundle: Path,
    data: Mapping[str, Rows],
    targets: Sequence[str],
    seconds: float = SECONDS,
    *,
    teach: Mapping[str, Rows] | None = None,
    simulate: Sequence[float] = (),
) -> dict[str, Any]:
    """All figures, as `exits.json` has them.

    Args:
        seconds: that each way of asking is timed for; three rounds at least.
        teach: rows that bags of words learn from, by task.
        simulate: shares of the texts that leave, of each stage but the last; none: as they do.
    """
    bags = {task: bag_of_words(rows.texts, rows.labels) for task, rows in (teach or {}).items()}
    manifest = open_bundle(bundle).manifest
    drop, confidence = promised(manifest)
    ways = ways_of(data, [task.name for task in manifest.tasks])
    found: dict[str, Any] = {}
    with Progress("asking", total=len(targets) * len(ways), unit="ways") as progress:
        for target in targets:
            with open_cascade(bundle, target) as loaded:
                found[target] = {}
                for way in ways:
                    found[target][way.name] = _asked(loaded, way, seconds, bags, simulate)
                    progress.update(1, f"{target}, {way.name}")
    return {
        "date": date.today().isoformat(),
        "machine": describe(),
        "bundle": {"depth": manifest.depth, "exits": [e.depth for e in manifest.exits]},
        "promise": {"drop": drop, "confidence": confidence},
        "simulated": list(simulate) or None,
        "targets": found,
    }


def _asked(
    loaded: Loaded,
    way: Way,
    seconds: float,
    bags: Mapping[str, Pipeline],
    simulate: Sequence[float],
) -> dict[str, Any]:
    """One way of asking, with stages and at full depth; and of a bag of words where there is one
    for the only task that is asked, and its labels are known."""
    stages = answering(loaded, way.tasks).stages
    texts = list(way.texts)
    if simulate:
        stages = _simulated(stages, loaded.encoder.ids(texts), simulate)
    (known,) = way.labels if len(way.tasks) == 1 and way.labels else (None,)
    bag = bags.get(known) if known else None

    def ask(some: Sequence[Stage]) -> list[Prediction]:
        return predictions(answer(some, [loaded.encoder.ids(texts)]))

    staged, full = ask(stages), ask(stages[-1:])
    calls: dict[str, Callable[[], object]] = {
        "staged": lambda: ask(stages),
        "full": lambda: ask(stages[-1:]),
    }
    if bag is not None:
        calls["bag_of_words"] = lambda: bag.predict_proba(texts)
    times = alternate(calls, rounds=ROUNDS, seconds=seconds, warm_up=0)
    return {
        "texts": len(texts),
        "depths": {str(s.depth): _share([p.depth == s.depth for p in staged]) for s in stages},
        "agreement": {
            t: _share([a[t].label == b[t].label for a, b in _pairs(staged, full)])
            for t in way.tasks
        },
        "accuracy": {
            task: {
                name: _right(answers, labels)
                for name, answers in {
                    "staged": [p[task].label for p in staged],
                    "full": [p[task].label for p in full],
                    **({} if bag is None else {"bag_of_words": bag.predict(texts)}),
                }.items()
            }
            for task, labels in way.labels.items()
        },
        "texts_per_second": {n: 1e3 * len(texts) / t.median for n, t in times.items()},
        "ratio": _ratio(times["staged"], times["full"]),
        **({} if bag is None else {"bag_ratio": _ratio(times["bag_of_words"], times["full"])}),
        "ms": {name: found.to_json() for name, found in times.items()},
        "single_ms": _singles(loaded, stages, bag, texts[:SINGLES]),
    }


def _simulated(
    stages: Sequence[Stage], ids: Sequence[Tokens], shares: Sequence[float]
) -> tuple[Stage, ...]:
    """The stages with thresholds at which these shares of the texts leave."""
    made: list[Stage] = []
    waiting = np.arange(len(ids))
    for stage, share in zip(stages, shares, strict=False):
        tasks = [task.name for task in stage.tasks]
        alone = answer([replace(stage, leaving=None)], [[ids[i] for i in waiting.tolist()]])
        part = in_order(list(alone), stage.tasks, lambda some: some.probabilities)
        sure = np.min([part[task].max(1) for task in tasks], axis=0)
        count = min(round(share * len(ids)), len(waiting) - 1)
        least = float(np.sort(sure)[::-1][count - 1]) if count else NEVER
        made.append(replace(stage, leaving=dict.fromkeys(tasks, least)))
        waiting = waiting[sure < least]
    return (*made, *stages[len(made) :])


def _ratio(one: Timing, other: Timing) -> dict[str, float]:
    """How many times as fast `one` is."""
    middle, low, high = one.ratio_of(other)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def _right(answers: Iterable[str], labels: Sequence[str | None]) -> float:
    return _share([answer == label for answer, label in zip(answers, labels, strict=True)])


def _pairs(
    some: Sequence[Prediction], others: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    return list(zip(some, others, strict=True))


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values))


def _singles(
    loaded: Loaded, stages: Sequence[Stage], bag: Pipeline | None, texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How long single texts take, one after the other, each asked in every way."""

    def ask(some: Sequence[Stage], text: str) -> None:
        predictions([answer_one(some, loaded.encoder.ids([text])[0])])

    calls: dict[str, Callable[[str], None]] = {
        "staged": lambda text: ask(stages, text),
        "full": lambda text: ask(stages[-1:], text),
    }
    if bag is not None:
        calls["bag_of_words"] = lambda text: bag.predict_proba([text])
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number, text in enumerate(texts):
        for name, call in calls.items():
            call(texts[number - 1])  # the way before has emptied the caches
            before = time.perf_counter()
            call(text)
            taken[name].append(1e3 * (time.perf_counter() - before))
    return {
        name: {
            "mean": float(np.mean(values)),
            **{f"p{round(100 * q)}": Timing(tuple(values)).quantile(q) for q in QUANTILES},
        }
        for name, values in taken.items()
    }


def table_of(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    depths = figures["bundle"]["exits"]
    header = ["graph", "texts and what is asked", "texts"]
    header += [f"leave at depth {depth} %" for depth in depths]
    header += [] if figures["simulated"] else ["full depth %", "with stages %", "agrees %"]
    header += ["texts/s full", "texts/s staged"]
    header += ["times as fast", "ms single full p50/p90/p99", "ms single staged p50/p90/p99"]
    rows = []
    for target, ways in figures["targets"].items():
        for name, way in ways.items():
            (accuracy,) = way["accuracy"].values() if way["accuracy"] else ({},)
            scores = [f"{100 * accuracy[n]:.1f}" if accuracy else "" for n in ("full", "staged")]
            scores.append(f"{100 * min(way['agreement'].values()):.1f}")
            rows.append(
                [
                    target,
                    name,
                    str(way["texts"]),
                    *(f"{100 * way['depths'][str(depth)]:.0f}" for depth in depths),
                    *([] if figures["simulated"] else scores),
                    *(f"{way['texts_per_second'][n]:,.0f}" for n in ("full", "staged")),
                    f"{way['ratio']['median']:.2f}",
                    *(_latency(way["single_ms"][n]) for n in ("full", "staged")),
                ]
            )
    return header, rows


def bags_of(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for the bags of words, beside the graph that ran in the same rounds."""
    header = ["beside", "TF-IDF on", "%", "texts/s", "times as fast as full depth"]
    header += ["ms single p50/p90/p99"]
    return header, [
        [
            target,
            name,
            *(f"{100 * a['bag_of_words']:.1f}" for a in way["accuracy"].values()),
            f"{way['texts_per_second']['bag_of_words']:,.0f}",
            f"{way['bag_ratio']['median']:.2f}",
            _latency(way["single_ms"]["bag_of_words"]),
        ]
        for target, ways in figures["targets"].items()
        for name, way in ways.items()
        if "bag_ratio" in way
    ]


def _latency(found: Mapping[str, float]) -> str:
    return " / ".join(f"{found[f'p{round(100 * q)}']:.2f}" for q in QUANTILES)


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with where it comes from."""
    machine, promise = figures["machine"], figures["promise"]
    tables = [markdown_table(*table_of(figures))]
    if bags_of(figures)[1]:
        tables.append(markdown_table(*bags_of(figures)))
    said = (
        f"promised: at most {100 * promise['drop']:g} points below full depth, "
        f"{promise['confidence']:.0%} confidence"
    )
    if figures["simulated"]:
        shares = ", ".join(f"{100 * share:g}%" for share in figures["simulated"])
        said = (
            f"simulated: thresholds are such that {shares} of the texts leave, answers mean nothing"
        )
    rounds = [way["ms"]["full"]["rounds"] for ways in figures["targets"].values()
              for way in ways.values()]  # fmt: skip
    counted = " to ".join(map(str, sorted({min(rounds), max(rounds)})))
    return "\n\n".join(tables) + (
        f"\n\n`{figures['command']}`, {figures['date']}: {processor_of(machine)}, "
        f"{machine['cores']} threads; {said}. Medians of {counted} "
        "alternating rounds of one run, tokenization included.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run it from the command line."""
    parser = Parser(prog="python -m mtl_edge.benchmarks.exits", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("bundle", type=Path, help="a folder that `export --exits` wrote")
    parser.add_argument(
        "--data", action="append", default=[], metavar="TASK=FILE", help="labelled rows of a task"
    )
    parser.add_argument(
        "--teach",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="labelled rows that TF-IDF and logistic regression learn a task from",
    )
    parser.add_argument(
        "--simulate",
        type=_shares,
        default=(),
        metavar="SHARES",
        help="of the texts that leave at each cheaper stage, as 0.6 or 0.6,0.2: thresholds are set "
        "so",
    )
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument("--targets", help="comma-separated; default: all that the bundle has")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="for each way of asking; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for the figures")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    try:
        args = parser.parse_args(argv)
        return _run(args, shown("exits", argv))
    except MtlEdgeError as error:
        parser.exit(2, f"exits: {error}\n")


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
        raise OptionError(f"--simulate {text}: expected shares whose sum is below 1, as 0.6,0.2")
    return shares


def _run(args: argparse.Namespace, command: str) -> int:
    require_free(args.out, overwrite=args.overwrite)
    manifest = open_bundle(args.bundle).manifest
    known = [graph.target for graph in manifest.graphs]
    targets = known if args.targets is None else [t for t in args.targets.split(",") if t]
    if not targets or set(targets) - set(known):
        raise OptionError(f"--targets {args.targets}: the bundle has {', '.join(known)}")
    tasks = {task.name: task.labels for task in manifest.tasks}
    files = named("--data", args.data)
    if not files or set(files) - set(tasks):
        raise OptionError(f"--data TASK=FILE: expected some of the tasks {', '.join(tasks)}")

    def rows(files: Mapping[str, str]) -> dict[str, Rows]:
        return {t: rows_of(t, file, args, list(tasks), tasks[t]) for t, file in files.items()}

    data = rows(files)
    taught = named("--teach", args.teach)
    if set(taught) - set(tasks):
        raise OptionError(f"--teach TASK=FILE: expected some of the tasks {', '.join(tasks)}")
    teach = rows(taught)
    if args.simulate and len(args.simulate) != len(manifest.exits):
        raise OptionError(
            f"--simulate has {len(args.simulate)} shares, and the bundle {len(manifest.exits)} "
            "cheaper stages; give one each"
        )
    figures = {"command": command} | measure(
        args.bundle, data, targets, args.seconds, teach=teach, simulate=args.simulate
    )
    with staged_folder(args.out, overwrite=args.overwrite) as stage:
        text = json.dumps(figures, indent=2) + "\n"
        (stage / "exits.json").write_text(text, encoding="utf-8")
        (stage / "exits.md").write_text(markdown(figures), encoding="utf-8")
    print(text_table(*table_of(figures)))
    if bags_of(figures)[1]:
        print(f"\n{text_table(*bags_of(figures))}")
    print(f"\nfigures {args.out}")
    return 0


if __name__ == "__main__":
    take_any_text()
    raise SystemExit(main())
