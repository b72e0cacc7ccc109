"""The `mtl-edge` command.

Exit codes: 0 done, 1 a failure of the system (no space, no memory) or inside a library, an engine
included, 2 wrong input or options (one line on standard error says what to do), 130 interrupted,
141 the reader of the output went away, 143 terminated.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mtl_edge.cli.config import config_of, with_config
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.errors import MissingPackageError, MtlEdgeError, OptionError, RunError
from mtl_edge.version import __version__

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand.

    Attributes:
        module: holds `add_arguments(parser)` and `run(args)`; imported when the command is used,
            so that `predict` never loads what `train` needs.
        extra: of this distribution, installs what the module imports.
    """

    module: str
    help: str
    extra: str | None = None


COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        "mtl_edge.cli.demo", "run all the commands below on small data that ships along"
    ),
    "train": Command("mtl_edge.training.command", "labelled text to checkpoint", "train"),
    "study": Command(
        "mtl_edge.training.study", "every scenario on your tasks, side by side", "train"
    ),
    "export": Command("mtl_edge.export.cli.command", "checkpoint to bundle", "export"),
    "bench": Command(
        "mtl_edge.benchmarks.bench.command", "accuracy and latency of a bundle", "bench"
    ),
    "frontier": Command(
        "mtl_edge.benchmarks.frontier", "every depth and engine of a checkpoint, measured", "bench"
    ),
    "predict": Command("mtl_edge.cli.predict", "answers for texts"),
    "update": Command("mtl_edge.cli.update", "a bundle's next version, or the one before"),
    "sign": Command("mtl_edge.cli.sign", "vouch for a bundle with a key"),
    "info": Command("mtl_edge.cli.info", "what a bundle holds; verifies it"),
}


NO_TEMPORARY = "No usable temporary directory"  # as tempfile says it
# Options that say where to write, not what: they are not part of a run's config.
NOT_IN_CONFIG = frozenset(
    {"help", "config", "out", "overwrite", "restart", "tensorboard", "cache", "cache_limit"}
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    take_any_text()
    _need_no_home()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        _top_parser().parse_args(arguments or ["--help"])
        return 2
    try:
        return _run(arguments[0], arguments[1:])
    except MtlEdgeError as error:
        print(f"mtl-edge: {error}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    except KeyboardInterrupt as stop:
        print(f"mtl-edge: interrupted; {str(stop) or 'no output was written'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, as in `| head`, has enough; nothing must be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # no space, no permission: what failed folders left was removed
        why = error.strerror or str(error)
        if why.startswith(NO_TEMPORARY):
            print(f"mtl-edge: {why}; set TMPDIR to one that can be written to", file=sys.stderr)
            return 2
        print(f"mtl-edge: {why}: {error.filename or 'write'}", file=sys.stderr)
        return 1


def _need_no_home() -> None:
    """Keep packages that are imported from failing, or warning, for want of a home folder."""
    if not os.path.isabs(os.path.expanduser("~")):  # the system does not know the user
        os.environ["HOME"] = os.devnull
    # OpenVINO does without; it would keep an identifier in the home folder, or tell that it cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _top_parser() -> argparse.ArgumentParser:
    """What `mtl-edge --help` shows."""
    parser = argparse.ArgumentParser(
        prog="mtl-edge", description="Multi-task text classification for small CPUs."
    )
    parser.add_argument("--version", action="version", version=f"mtl-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
    return parser


def _run(name: str, arguments: Sequence[str]) -> int:
    command = COMMANDS[name]
    module = _import(name, command)
    parser = Parser(prog=f"mtl-edge {name}", description=command.help, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML; its table [{name}] holds options, without dashes"
    )
    module.add_arguments(parser)
    # Intermixed: texts may come before, between and after options.
    args = parser.parse_intermixed_args(with_config(name, parser, arguments))
    args.resolved = config_of(parser, args, NOT_IN_CONFIG)
    code: int | None = module.run(args)
    sys.stdout.flush()
    return code or 0


class Parser(argparse.ArgumentParser):
    """Reports mistakes as all others are: in one line."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}; `{self.prog} --help` shows the options")


def _import(name: str, command: Command) -> Any:
    """The command's module; only this one is imported."""
    try:
        return importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "").startswith("mtl_edge"):
            raise
        raise MissingPackageError(
            f"`{name}` needs the package {error.name}; "
            f"install it with `pip install 'mtl-edge[{command.extra}]'`"
        ) from None
