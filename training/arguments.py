"""Command-line options of training that several commands share, and the options they make.

Defaults are those of `mtl_edge.training.options`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtl_edge.cli.named_values import for_each, named
from mtl_edge.errors import OptionError
from mtl_edge.training.batches import MIXES
from mtl_edge.training.heads import DEFAULT_HEAD, HEADS
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.weighting import WEIGHTINGS

__all__ = ["add_cache_arguments", "add_train_arguments", "depths_of", "train_options"]


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say how parts learn and what the model is: those of `train_options`."""
    default = TrainOptions()
    _add_learning_arguments(parser, default.recipe)
    _add_backbone_arguments(parser.add_argument_group("where the backbone learns"), default)
    parser.add_argument(
        "--class-weights", action="store_true", help="weight each label's loss by its rarity"
    )
    parser.add_argument(
        "--no-baselines",
        action="store_true",
        help="do not measure what a head has to beat: the usual recipe and a bag of words",
    )
    _add_model_arguments(parser.add_argument_group("model"))
    add_cache_arguments(parser)


def _add_learning_arguments(parser: argparse.ArgumentParser, default: Recipe) -> None:
    parser.add_argument(
        "--epochs",
        type=int,
        help="default: 8, or as many more as 500 steps take on few rows; 3 if the backbone learns",
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="default: %(default)s"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=default.learning_rate, help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")
    parser.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop early after so many without improvement; default: run all, keep the best",
    )


def _add_backbone_arguments(parts: argparse._ArgumentGroup, default: TrainOptions) -> None:
    recipe = default.recipe
    parts.add_argument(
        "--top-layers", type=int, default=default.top_layers, help="default: %(default)s"
    )
    parts.add_argument(
        "--backbone-learning-rate",
        type=float,
        default=recipe.backbone_learning_rate,
        help="where the backbone learns; default: %(default)s",
    )
    parts.add_argument(
        "--mix",
        default=recipe.mix,
        choices=MIXES,
        help="which task a batch is of: drawn by their rows, by rows to the power of "
        "1/temperature, with equal chances, or in turns; default: %(default)s",
    )
    parts.add_argument(
        "--mix-temperature",
        type=float,
        default=recipe.mix_temperature,
        help="of --mix temperature; default: %(default)s",
    )
    parts.add_argument(
        "--weighting",
        default=recipe.weighting,
        choices=WEIGHTINGS,
        help="of the tasks' losses: by --task-weight, or learned from how uncertain each task stays"
        "; default: %(default)s",
    )
    parts.add_argument(
        "--task-weight",
        action="append",
        default=[],
        metavar="TASK=WEIGHT",
        help="how much a task's loss counts; default: 1",
    )


def _add_model_arguments(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="[TASK=]HEAD",
        help=f"{', '.join(HEADS)}; linear and mlp with :cls, :mean or :max; "
        f"default: {DEFAULT_HEAD}",
    )
    model.add_argument("--depth", type=int, help="layers of the backbone to use; default: all")
    model.add_argument(
        "--all-depths",
        action="store_true",
        help="teach heads for every smaller depth too, for `export --depth`",
    )
    model.add_argument(
        "--refit",
        action="store_true",
        help="at the end train the heads once more, on the validation rows as well; needs --dev",
    )
    model.add_argument(
        "--abstain",
        type=float,
        metavar="ACCURACY",
        help="fit thresholds from which on answers are right at this rate, as 0.95; an answer "
        "below its label's is marked unsure",
    )


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say where encoder states are kept, and how many gigabytes of them."""
    default = TrainOptions()
    cache = parser.add_argument_group("cache of encoder states")
    cache.add_argument("--cache", type=Path, default=default.cache, help="default: %(default)s")
    cache.add_argument(
        "--cache-limit",
        type=float,
        default=default.cache_limit,
        metavar="GB",
        help="default: %(default)s",
    )


def train_options(args: argparse.Namespace, tasks: Sequence[str]) -> TrainOptions:
    """What the options of `add_train_arguments` say of these tasks.

    Raises:
        OptionError: a number that is out of range, or a task that is not there.
    """
    recipe = Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        backbone_learning_rate=args.backbone_learning_rate,
        class_weights=args.class_weights,
        mix=args.mix,
        mix_temperature=args.mix_temperature,
        weighting=args.weighting,
        task_weights=_task_weights(args.task_weight, tasks),
        patience=args.patience,
        seed=args.seed,
    )
    return TrainOptions(
        top_layers=args.top_layers,
        heads=for_each("--head", args.head, tasks),
        depth=args.depth,
        all_depths=args.all_depths,
        max_tokens=args.max_tokens,
        recipe=recipe,
        refit=args.refit,
        abstain=args.abstain,
        cache=args.cache,
        cache_limit=args.cache_limit,
        baselines=not args.no_baselines,
    )


def _task_weights(given: Sequence[str], tasks: Sequence[str]) -> dict[str, float]:
    weights = named("--task-weight", given)
    if unknown := sorted(set(weights) - set(tasks)):
        raise OptionError(f"--task-weight {unknown[0]}: no such task; there are {', '.join(tasks)}")
    try:
        return {task: float(value) for task, value in weights.items()}
    except ValueError as error:
        raise OptionError(f"--task-weight: {error}; expected TASK=NUMBER") from None


def depths_of(text: str) -> tuple[int, ...]:
    """Depths as a user lists them for `--exits`, separated by commas; the least first.

    Raises:
        OptionError: one is no number of layers, or there is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"--exits {text!r}: expected numbers of layers, as 0 or 0,2")
    return tuple(sorted({int(part) for part in parts}))
