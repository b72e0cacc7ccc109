"""`mtl-edge study`: every scenario on the same tasks, side by side.

The study behind this project claims of a frozen backbone that it does not overfit, that it is
cheap and stable, and that one head can be trained without touching the others. Each claim is a
column here: train against dev accuracy, parameters and seconds, the spread over seeds, and what
became of the task whose head stayed frozen. `one-head` and `full-one-head` start from what `heads`
left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_edge.cli.reading import note, read_options
from mtl_edge.errors import OptionError
from mtl_edge.io.folders import require_free, staged_folder
from mtl_edge.table import clip, markdown_table, text_table
from mtl_edge.training.arguments import add_train_arguments, train_options
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.data import TaskData
from mtl_edge.training.drawing import drawn
from mtl_edge.training.kinds import headline, headline_name
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.run import train
from mtl_edge.training.scenarios import SCENARIOS
from mtl_edge.training.task_arguments import add_data_arguments, task_files
from mtl_edge.training.task_files import read_tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Row", "add_arguments", "run", "study"]


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario with one choice of learning heads, over all seeds.

    Attributes:
        score: per task, of the reported rows, one a seed: see `mtl_edge.training.kinds.headline`.
        before: the same before learning.
        train_score: the same of training rows.
    """

    scenario: str
    learned: tuple[str, ...]
    parameters: int
    seconds: float
    score: Mapping[str, tuple[float, ...]]
    before: Mapping[str, tuple[float, ...]]
    train_score: Mapping[str, tuple[float, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for table, JSON, picture")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--scenarios", default=",".join(SCENARIOS), help="comma-separated; default: all"
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each; default: %(default)s")
    add_train_arguments(parser)


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    files = task_files(args)
    names = [task.name for task in files]
    options = train_options(args, names)
    scenarios = list(filter(None, args.scenarios.split(",")))
    _require_scenarios(scenarios, options)
    if args.seeds < 1:
        raise OptionError(f"--seeds is {args.seeds}, expected 1 or more")
    tasks = read_tasks(files, read_options(args), options.recipe.seed, note)
    rows = study(tasks, load_backbone(args.backbone), options, scenarios, args.seeds)
    header, cells = table_of(rows, names)
    metrics = {task.name: headline_name(task.task) for task in tasks}
    with staged_folder(args.out, overwrite=args.overwrite) as stage:
        record = {
            "date": date.today().isoformat(),
            "backbone": args.backbone,
            "seeds": args.seeds,
            "recipe": options.recipe.to_json(),
            "rows": [asdict(row) for row in rows],
        }
        (stage / "study.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (stage / "study.md").write_text(markdown_table(header, cells) + "\n", encoding="utf-8")
    picture = ", study.png" if drawn(args.out / "study.png", _draw, rows, metrics) else ""
    print(text_table(header, cells))
    print(f"\nstudy {args.out}: study.md, study.json{picture}")


def _require_scenarios(names: Sequence[str], options: TrainOptions) -> None:
    """
    Raises:
        OptionError: there is no such scenario, or one that does not go with an option.
    """
    if unknown := [n for n in names if n not in SCENARIOS]:
        raise OptionError(f"--scenarios {unknown[0]}: unknown; there are {', '.join(SCENARIOS)}")
    learning = [n for n in names if SCENARIOS[n].backbone != "frozen"]
    if options.all_depths and learning:
        raise OptionError("--all-depths goes with scenarios that leave the backbone frozen alone")
    if options.refit and learning:
        raise OptionError(
            f"--refit teaches heads alone, and the backbone learns in {', '.join(learning)}; leave "
            "it out, or name other --scenarios"
        )


def study(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: TrainOptions,
    scenarios: Sequence[str],
    seeds: int,
) -> list[Row]:
    """Run the scenarios, those that train one head once per task."""
    # The table has no baselines, and thresholds cannot be fitted for heads that a run goes on from.
    options = replace(options, baselines=False, abstain=None)
    started = [_seeded(tasks, backbone, options, "heads", (), s, None) for s in range(seeds)]
    rows = []
    for name in scenarios:
        one_head = SCENARIOS[name].heads == "named"
        for learn in [(task.name,) for task in tasks] if one_head else [()]:
            runs = (
                started
                if name == "heads"
                else [
                    _seeded(
                        tasks, backbone, options, name, learn, s, started[s] if one_head else None
                    )
                    for s in range(seeds)
                ]
            )
            rows.append(_row(name, tasks, runs))
    return rows


def _seeded(
    tasks: Sequence[TaskData],
    backbone: Backbone,
    options: TrainOptions,
    scenario: str,
    learn: Sequence[str],
    seed: int,
    start: Checkpoint | None,
) -> Checkpoint:
    recipe = replace(options.recipe, seed=options.recipe.seed + seed)
    return train(
        tasks, backbone, replace(options, scenario=scenario, learn=learn, recipe=recipe), start
    )


def _row(scenario: str, tasks: Sequence[TaskData], runs: Sequence[Checkpoint]) -> Row:
    def each(part: str) -> dict[str, tuple[float, ...]]:
        return {
            task.name: tuple(headline(task.task, run.report[task.name][part]) for run in runs)
            for task in tasks
        }

    def on_train(task: TaskData) -> tuple[float, ...]:
        return tuple(run.report[task.name]["train"]["score"] for run in runs)

    return Row(
        scenario=scenario,
        learned=tuple(runs[0].run["heads_that_learned"]),
        parameters=runs[0].run["parameters_that_learned"],
        seconds=float(np.median([run.run["seconds_of_learning"] for run in runs])),
        score=each("head"),
        before=each("before"),
        train_score={task.name: on_train(task) for task in tasks},
    )


def table_of(rows: Sequence[Row], tasks: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and cells; scores in percent, the spread over seeds behind ±."""
    header = ["scenario", "heads that learn", "parameters", "seconds"]
    for task in tasks:
        header += [f"{task} before", f"{task} after", f"{task} on train"]
    cells = []
    for row in rows:
        line = [row.scenario, ", ".join(row.learned) or "none"]
        line += [f"{row.parameters:,}", f"{row.seconds:.1f}"]
        for task in tasks:
            line += [_percent(v[task]) for v in (row.before, row.score, row.train_score)]
        cells.append(line)
    return header, cells


def _percent(values: Sequence[float]) -> str:
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ±{100 * np.std(values):.1f}"


def _draw(rows: Sequence[Row], metrics: Mapping[str, str]) -> Figure:
    """Per task: before, after and on train, one group a scenario."""
    from matplotlib.figure import Figure

    tasks = list(metrics)
    figure = Figure(figsize=(1 + 5 * len(tasks), 0.55 * len(rows) + 1.6))
    axes = figure.subplots(1, len(tasks), squeeze=False)
    names = [
        row.scenario + (f" ({row.learned[0]})" if SCENARIOS[row.scenario].heads == "named" else "")
        for row in rows
    ]
    places = np.arange(len(rows))[::-1]
    for axis, task in zip(axes[0], tasks, strict=True):
        for offset, (label, color, values) in enumerate(
            (
                ("before", "#c9d2da", [row.before[task] for row in rows]),
                ("after", "#c0562b", [row.score[task] for row in rows]),
                ("on train", "#8fa3b3", [row.train_score[task] for row in rows]),
            )
        ):
            means: Any = [100 * np.mean(v) for v in values]
            spread: Any = [100 * np.std(v) for v in values]
            axis.barh(places + 0.27 * (1 - offset), means, 0.27, xerr=spread, color=color,
                      label=label, ecolor="#333333")  # fmt: skip
        axis.set_yticks(places, names if axis is axes[0][0] else [""] * len(rows), fontsize=8)
        axis.set_title(clip(task, 60), fontsize=10, loc="left")
        axis.set_xlabel(f"{metrics[task]}, %", fontsize=8)
        axis.set_xlim(0, 100)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", ncols=3, fontsize=8)
    figure.suptitle("What learns, and what comes of it", x=0.01, ha="left", fontsize=11)
    figure.tight_layout()
    return figure
