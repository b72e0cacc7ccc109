"""Options of export: one default each, and the same on the command line as in Python."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from mtl_edge.errors import OptionError
from mtl_edge.export.cli.arguments import Request, add_arguments, request_of
from mtl_edge.export.cli.prepare import settings_of
from mtl_edge.export.options import ExportOptions
from mtl_edge.export.settings import Settings


def asked(*command: str) -> Request:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return request_of(parser.parse_args(command))


def test_the_command_line_has_the_defaults_of_the_options() -> None:
    assert asked() == Request()
    assert asked().given() == ()
    assert settings_of(ExportOptions()) == Settings()


def test_every_option_is_on_the_command_line_by_its_name() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    known = set(vars(parser.parse_args([])))
    assert {field.name for field in fields(ExportOptions)} - {"reading"} < known


def test_an_option_that_is_given_is_known_to_be() -> None:
    request = asked("c", "--out", "b", "--targets", "onnx-int8,onnx-fp32", "--depth", "2",
                    "--exits", "2,0", "--refit", "a.csv", "--separator", ";")  # fmt: skip
    options = request.options
    assert (options.targets, options.depth) == (("onnx-int8", "onnx-fp32"), 2)
    assert (options.exits, options.refit) == ((0, 2), (Path("a.csv"),))
    given = {"checkpoint", "out", "targets", "depth", "exits", "refit", "separator"}
    assert set(request.given()) == given
    assert asked("--depth", "auto", "--exits", "auto").options.depth == "auto"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["--depth", "two"], "--depth 'two': expected a number of layers, or auto"),
        (["--exits", "some"], "--exits 'some': expected numbers of layers"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(command: list[str], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        asked(*command)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ExportOptions(max_accuracy_drop=float("nan")), "--max-accuracy-drop is nan"),
        (ExportOptions(cache_limit=0), "--cache-limit is 0"),
        (ExportOptions(keep_worst=-1), "--keep-worst is -1"),
    ],
)
def test_a_number_out_of_range_is_named(options: ExportOptions, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        options.require_in_range()
    with pytest.raises(OptionError, match="--exit-drop is 0"):
        settings_of(ExportOptions(exits=(0,), exit_drop=0))
    with pytest.raises(OptionError, match="--exit-drop goes with --exits"):
        settings_of(ExportOptions(exit_drop=1))
