"""The command line of `mtl-edge export`: its options, and what was asked with them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mtl_edge.cli.reading import add_label_arguments, add_read_arguments, read_options
from mtl_edge.errors import OptionError
from mtl_edge.export.cli.budget_options import add_budget_argument
from mtl_edge.export.options import ExportOptions, changed
from mtl_edge.training.arguments import add_cache_arguments, depths_of

__all__ = ["Request", "add_arguments", "request_of"]

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one run of the command is to do: a mode, its folders, and options.

    Attributes:
        checkpoint: folder of the checkpoint; of the bundle with `check_exits`.
        out: the new bundle's folder.
        overwrite: whether `out`, or the file of `update`, may be replaced.
        into: bundle that `heads_only` gives new heads.
        update: file that `heads_only` writes what changed to.
        check_exits: `TASK=FILE` of labelled rows.
        label_column, label_columns, logits, label_separator, kind: how labels stand in those files,
            see `mtl_edge.cli.reading.add_label_arguments`.
    """

    checkpoint: Path | None = None
    out: Path | None = None
    overwrite: bool = False
    heads_only: bool = False
    into: Path | None = None
    update: Path | None = None
    list: bool = False
    explain: bool = False
    check_exits: tuple[str, ...] = ()
    label_column: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    logits: tuple[str, ...] = ()
    label_separator: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    options: ExportOptions = field(default_factory=ExportOptions)

    def given(self) -> tuple[str, ...]:
        """Names of what is not at its default, options included."""
        return (*changed(self, Request(), but=("options",)), *self.options.given())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_mode_arguments(parser)
    _add_graph_arguments(parser)
    _add_size_arguments(parser)
    add_cache_arguments(parser)
    _add_form_arguments(parser)
    _add_precision_arguments(parser)
    add_budget_argument(parser)
    _add_exit_arguments(parser)
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument(
        "--depth",
        metavar="N",
        help="layers of the encoder to export, with the heads that `train --all-depths` taught for "
        "them; auto: the fewest that lose at most --max-accuracy-drop on the selection rows; "
        "default: all that were trained",
    )


def _add_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command does, and where."""
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="a folder that `mtl-edge train` wrote"
    )
    parser.add_argument("--out", type=Path, help="the bundle's folder")
    parser.add_argument(
        "--heads-only",
        action="store_true",
        help="replace the heads of the bundle --into by the checkpoint's, of the same encoder",
    )
    parser.add_argument("--into", type=Path, metavar="BUNDLE", help="of --heads-only")
    parser.add_argument(
        "--update",
        type=Path,
        metavar="FILE",
        help="of --heads-only: also write what changed as a zip, for `mtl-edge update` elsewhere",
    )
    parser.add_argument("--list", action="store_true", help="show the targets and export nothing")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace --out, or the file of --update, if it exists",
    )


def _add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Which graphs, and on which texts their numbers and heads are set."""
    parser.add_argument(
        "--targets",
        default=",".join(ExportOptions.targets),
        help="comma-separated, of those that --list shows; default: %(default)s",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="rows like those that you will ask, whose activations set the int8 scales; default: "
        "some of the training rows",
    )
    parser.add_argument(
        "--refit",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="fit the heads of int8 graphs once more, on what the quantized encoder makes of these "
        "texts, so that they say what the checkpoint's say; no labels needed; may be repeated",
    )


def _add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """How the word tables of int8 graphs are made smaller."""
    parser.add_argument(
        "--vocabulary",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="smaller int8 graphs: only the tokens of these texts keep their embeddings, all "
        "others read as unknown; may be repeated",
    )
    parser.add_argument(
        "--embeddings",
        choices=("8bit", "4bit"),
        default=ExportOptions.embeddings,
        help="of int8 graphs: bits that a number of the word table takes; default: %(default)s",
    )


def _add_form_arguments(parser: argparse.ArgumentParser) -> None:
    """What is written besides the graphs."""
    parser.add_argument(
        "--with-tokenizer",
        action="store_true",
        help="also write graphs that take strings, for apps in C++, C# or Java",
    )
    parser.add_argument(
        "--ort",
        action="store_true",
        help="also write ONNX Runtime's own format and its list of operators, for a reduced build",
    )


def _add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """What int8 may cost, and how that is seen and lessened."""
    parser.add_argument(
        "--reduce-range",
        action="store_true",
        help="of onnx-int8: weights in 7 bits, which x86 CPUs without VNNI multiply exactly and "
        "fast; those of 8 bits are exact but slower there",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show how much noise int8 adds to each product of the encoder, and export nothing",
    )
    parser.add_argument(
        "--keep-worst",
        type=int,
        default=ExportOptions.keep_worst,
        metavar="N",
        help="of onnx-int8: leave the N products that --explain shows as the noisiest in float32",
    )
    parser.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=ExportOptions.max_accuracy_drop,
        metavar="POINTS",
        help="that a graph may lose to the torch model on the rows which training set aside; "
        "beyond it, unless it may be chance, nothing is written; default: %(default)s",
    )


def _add_exit_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "cheaper stages, which answer the texts that they are sure of"
    )
    group.add_argument(
        "--exits",
        metavar="DEPTHS",
        help="layers of each, as 0 or 0,2, of those that `train --exits` named; auto: those of "
        "them that pay, up to two, for which the promise takes more rows; default: full depth "
        "answers every text",
    )
    group.add_argument(
        "--exit-drop",
        type=float,
        default=ExportOptions.exit_drop,
        metavar="POINTS",
        help="of accuracy that a task may lose to full depth; default: %(default)s",
    )
    group.add_argument(
        "--exit-confidence",
        type=float,
        default=ExportOptions.exit_confidence,
        metavar="PERCENT",
        help="that it loses no more; default: %(default)s",
    )
    group.add_argument(
        "--check-exits",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="measure what the BUNDLE in the place of the checkpoint promised on labelled rows of "
        "yours, and export nothing; may be repeated; exit code 1 if the promise is broken",
    )


def request_of(args: argparse.Namespace) -> Request:
    """
    Raises:
        OptionError: an option that cannot be read as what it is.
    """
    plain = {f.name: _fixed(getattr(args, f.name)) for f in fields(Request) if f.name != "options"}
    return Request(**plain, options=_options_of(args))


def _options_of(args: argparse.Namespace) -> ExportOptions:
    plain = {
        f.name: _fixed(getattr(args, f.name)) for f in fields(ExportOptions) if f.name != "reading"
    }
    read = {
        "targets": tuple(filter(None, args.targets.split(","))),
        "depth": _depth(args.depth),
        "exits": args.exits if args.exits in (None, AUTO) else depths_of(args.exits),
    }
    return ExportOptions(**{**plain, **read}, reading=read_options(args))


def _fixed(value: Any) -> Any:
    """What argparse collected in a list, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _depth(asked: str | None) -> int | str | None:
    if asked is None or asked == AUTO:
        return asked
    if not asked.isdecimal():
        raise OptionError(f"--depth {asked!r}: expected a number of layers, or auto")
    return int(asked)
