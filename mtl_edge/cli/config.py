"""Options from a TOML file: `--config FILE`, a table per command.

    [train]
    backbone = "minilm"
    epochs = 4
    class-weights = true
    [train.task]
    sentiment = "reviews.csv"
    topic = "news.csv"

Keys are the options' names. What is repeatable takes a list, and what takes NAME=VALUE a table too.
An option on the command line replaces the file's. Paths are relative to where the command runs.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_edge.errors import OptionError

__all__ = ["config_of", "with_config"]

OPTION = "--config"


def with_config(
    command: str, parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> list[str]:
    """The arguments, those of the file before them.

    Raises:
        OptionError: the file cannot be read, or has what the command does not know.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument(OPTION, type=Path)
    try:
        file = finder.parse_known_args(arguments)[0].config
    except argparse.ArgumentError as error:
        raise OptionError(f"{error}; give a TOML file") from None
    if file is None:
        return list(arguments)
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    added: list[str] = []
    actions = {
        name.removeprefix("--"): action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and name not in ("--help", OPTION)
    }
    for key, value in _section(file, command).items():
        if key not in actions:
            raise OptionError(
                f"{file}: [{command}] has {key!r}, which is no option of `mtl-edge {command}`; "
                f"there are {', '.join(actions)}"
            )
        if not given & set(actions[key].option_strings):
            added += _as_arguments(f"--{key}", actions[key], value, file)
    return [*added, *arguments]


def _section(file: Path, command: str) -> Mapping[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{OPTION} {file}: {error.strerror}; give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{OPTION} {file} is not TOML: {error}") from None
    section = content.get(command)
    if not isinstance(section, dict):
        there = ", ".join(f"[{name}]" for name in content) or "nothing"
        raise OptionError(f"{OPTION} {file} has no table [{command}]; it has {there}")
    return section


def _as_arguments(option: str, action: argparse.Action, value: Any, file: Path) -> list[str]:
    """One value of the file as command line arguments."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise OptionError(f"{file}: {option[2:]} is {value!r}; expected true or false")
        return [option] if value else []
    repeatable = isinstance(action, argparse._AppendAction)
    if isinstance(value, dict) and repeatable:
        value = [f"{name}={item}" for name, item in value.items()]
    if isinstance(value, list) and repeatable:
        return [f"{option}={item}" for item in value]
    if isinstance(value, (list, dict, bool)):
        raise OptionError(f"{file}: {option[2:]} is {value!r}; expected one value")
    return [f"{option}={value}"]


def config_of(
    parser: argparse.ArgumentParser, args: argparse.Namespace, leave_out: Collection[str]
) -> dict[str, Any]:
    """Every option's value as `--config` takes it, but those named in `leave_out`."""
    result: dict[str, Any] = {}
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if not action.option_strings or value in (None, []) or action.dest in leave_out:
            continue
        if not isinstance(value, (bool, int, float, list)):
            value = str(value)
        result[action.option_strings[-1].removeprefix("--")] = value
    return result
