"""What the commands that measure share: their options, and the way from figures to files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.core.machine import command_line, describe
from mtl_edge.benchmarks.core.record import SCHEMA_VERSION, Model, Record, Rounds
from mtl_edge.benchmarks.core.record_json import to_json
from mtl_edge.benchmarks.core.report import Report, terminal
from mtl_edge.benchmarks.core.writing import write_folder, write_text
from mtl_edge.bundle import Bundle
from mtl_edge.cli.terminal import take_any_text
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import MtlEdgeError, OptionError
from mtl_edge.io.folders import require_free

__all__ = [
    "Output",
    "add_output_arguments",
    "add_threads_argument",
    "backbone_name",
    "model_of",
    "new_record",
    "noise_in",
    "require_positive",
    "run_module",
]


@dataclass(frozen=True, slots=True)
class Output:
    """Where figures go besides the terminal."""

    json: Path | None = None
    folder: Path | None = None
    overwrite: bool = False

    def check(self) -> None:
        """
        Raises:
            OutputExistsError: the folder exists and may not be replaced.
        """
        if self.folder is not None:
            require_free(self.folder, overwrite=self.overwrite)

    def put(self, report: Report) -> None:
        """Print the report, and write what was asked for."""
        print(terminal(report))
        if self.json is not None:
            write_text(self.json, to_json(report.record))
            print(f"\nfigures {self.json}")
        if self.folder is not None:
            write_folder(report, self.folder, overwrite=self.overwrite)
            print(f"\nfigures, tables and pictures {self.folder}; a page with all of it "
                  f"{self.folder / f'{report.record.experiment}.html'}")  # fmt: skip


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="also write figures, tables, pictures and a page"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")


def add_threads_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=int,
        default=default_threads(),
        help="default: the physical cores, at most 8",
    )


def run_module(
    name: str,
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace, str], Report],
    arguments: Sequence[str] | None = None,
) -> None:
    """`python -m mtl_edge.benchmarks.NAME`: parse, measure, print and write.

    Args:
        description: the module's docstring.
        measure: takes the options, and the command for the record.
    """
    take_any_text()
    parser = argparse.ArgumentParser(
        prog=f"python -m mtl_edge.benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_threads_argument(parser)
    add_output_arguments(parser)
    args = parser.parse_args(arguments)
    output = Output(args.json, args.out, args.overwrite)
    try:
        require_positive(args, "threads")
        output.check()
        command = command_line(f"python -m mtl_edge.benchmarks.{name}", arguments)
        output.put(measure(args, command))
    except MtlEdgeError as error:
        parser.exit(2, f"mtl-edge: {error}\n")


def require_positive(args: argparse.Namespace, *options: str) -> None:
    """
    Raises:
        OptionError: one of these options is below 1.
    """
    for option in options:
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} is {getattr(args, option)}, expected 1 or more")


def new_record(experiment: str, command: str, threads: int, started: float, **rest: Any) -> Record:
    """A record of now.

    Args:
        started: the monotonic clock at the beginning.
        rest: the other fields of `Record`.
    """
    fields: dict[str, Any] = {"model": None, "inputs": {}, **rest}
    if "machine" not in fields:
        fields["machine"] = describe()
    fields.setdefault("noise", noise_in(fields.get("rounds", ())))
    return Record(
        schema_version=SCHEMA_VERSION,
        experiment=experiment,
        command=command,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        threads=threads,
        **fields,
    )


def noise_in(rounds: Sequence[Rounds]) -> float | None:
    """The largest spread of the first system against itself."""
    return max((one.noise.spread for one in rounds if one.noise is not None), default=None)


def backbone_name(name: str) -> str:
    """Without the folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name


def model_of(bundle: Bundle) -> Model:
    """A bundle, for the record."""
    manifest = bundle.manifest
    return Model(
        folder=bundle.path.name,
        backbone=backbone_name(manifest.backbone.name),
        depth=manifest.depth,
        max_tokens=manifest.max_tokens,
        tasks={task.name: list(task.labels) for task in manifest.tasks},
    )
