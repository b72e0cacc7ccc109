"""Options of training are the same from the command line and from Python."""

from __future__ import annotations

import argparse

import pytest

from mtl_edge.errors import OptionError
from mtl_edge.training import command
from mtl_edge.training.arguments import train_options
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe


def test_the_command_s_defaults_are_those_of_python() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--task", "t=rows.csv", "--out", "checkpoint"])
    default = TrainOptions()
    assert train_options(args, ["t"]) == default
    assert (args.scenario, args.exit_folds) == (default.scenario, default.exit_folds)
    assert args.learn == args.freeze == [*default.exits]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_limit": float("nan")}, "--cache-limit is nan, expected gigabytes"),
        ({"cache_limit": 0}, "--cache-limit is 0, expected more than 0"),
        ({"max_tokens": 2}, "--max-tokens is 2, expected 3 or more"),
        ({"abstain": 1.0}, "--abstain is 1.0, expected a share between 0 and 1"),
        ({"top_layers": 0}, "--top-layers is 0, expected more than 0"),
    ],
)
def test_a_number_out_of_range_is_refused_from_python_too(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        TrainOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs is 0, expected more than 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan, expected more than 0"),
        ({"task_weights": {"t": 0.0}}, "--task-weight is 0.0, expected more than 0"),
    ],
)
def test_so_is_one_of_the_recipe(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**options)  # type: ignore[arg-type]


def test_gigabytes_of_the_cache_are_counted_in_bytes() -> None:
    assert TrainOptions(cache_limit=0.5).cache_bytes == 500_000_000
