"""`mtl-edge export`: checkpoint in, bundle out."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_edge.bundle import Manifest, open_bundle
from mtl_edge.bundle.update import previous_of, write_update
from mtl_edge.cli.reading import add_label_arguments, add_read_arguments, note, texts_in
from mtl_edge.engines import ENGINES
from mtl_edge.errors import OptionError, OutputExistsError
from mtl_edge.export import int8_openvino, openvino_graph
from mtl_edge.export.budget_options import add_budget_argument, frontier_summary, limits_of
from mtl_edge.export.build import captured, export, replace_heads
from mtl_edge.export.exit_options import (
    add_exit_arguments,
    asked_of,
    check,
    exits_table,
    promise_of,
)
from mtl_edge.export.explain import Noise, noise_of, noise_of_openvino, worst
from mtl_edge.export.refit import FEWEST
from mtl_edge.export.search import search
from mtl_edge.export.settings import MAX_ACCURACY_DROP, Settings
from mtl_edge.export.targets import DEFAULT, TARGETS, targets_of
from mtl_edge.io.folders import require_free
from mtl_edge.table import text_table
from mtl_edge.training.arguments import add_cache_arguments
from mtl_edge.training.checkpoint import Checkpoint, Sample, load_checkpoint
from mtl_edge.training.data import spread
from mtl_edge.training.run.samples import CALIBRATION_ROWS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--targets",
        default=",".join(DEFAULT),
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
        default="8bit",
        help="of int8 graphs: bits that a number of the word table takes; default: %(default)s",
    )
    add_cache_arguments(parser)
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
        default=0,
        metavar="N",
        help="of onnx-int8: leave the N products that --explain shows as the noisiest in float32",
    )
    parser.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=MAX_ACCURACY_DROP,
        metavar="POINTS",
        help="that a graph may lose to the torch model on the rows which training set aside; "
        "beyond it, unless it may be chance, nothing is written; default: %(default)s",
    )
    add_budget_argument(parser)
    add_exit_arguments(parser)
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument(
        "--depth",
        metavar="N",
        help="layers of the encoder to export, with the heads that `train --all-depths` taught for "
        "them; auto: the fewest that lose at most --max-accuracy-drop on the selection rows; "
        "default: all that were trained",
    )


def run(args: argparse.Namespace) -> int:
    if args.list:
        print(_table_of_targets())
        return 0
    given = _given(args)
    limits = limits_of(args, given)
    if args.check_exits:
        return check(args, given)
    wanted = sum((args.out is not None, args.into is not None, args.explain))
    if args.checkpoint is None or wanted != 1 or args.heads_only != (args.into is not None):
        raise OptionError(
            "expected a checkpoint and one of --out FOLDER, --heads-only --into BUNDLE and "
            "--explain; or --list"
        )
    if not args.max_accuracy_drop >= 0:
        raise OptionError(f"--max-accuracy-drop is {args.max_accuracy_drop}, expected 0 or more")
    if not 0 < args.cache_limit < math.inf:
        raise OptionError(f"--cache-limit is {args.cache_limit}, expected gigabytes, more than 0")
    _require_meant(args, given)
    started = time.monotonic()
    if args.into is not None:
        _replace_heads(args)
        print(f"\nbundle {args.into}, {time.monotonic() - started:.0f} s")
        return 0
    if not args.explain:
        require_free(args.out, overwrite=args.overwrite)
    if args.keep_worst < 0:
        raise OptionError(f"--keep-worst is {args.keep_worst}, expected 0 or more")
    targets = targets_of(args.targets)
    checkpoint = load_checkpoint(args.checkpoint)
    if args.depth is not None:
        checkpoint = checkpoint.at(_depth(checkpoint, args.depth, args.max_accuracy_drop))
    if args.calibration is not None:
        checkpoint = _calibrated(checkpoint, texts_in([args.calibration], args))
    refit = _once(args.refit, args)
    if args.refit and len(refit) < FEWEST:
        raise OptionError(
            f"--refit has {len(refit)} texts, expected {FEWEST} or more: the training texts will do"
        )
    settings = Settings(
        max_accuracy_drop=args.max_accuracy_drop,
        reduce_range=args.reduce_range,
        keep_worst=args.keep_worst,
        refit=refit,
        vocabulary=_once(args.vocabulary, args),
        four_bits=args.embeddings == "4bit",
        with_tokenizer=args.with_tokenizer,
        ort=args.ort,
        promise=None if limits else promise_of(args),
        cache=args.cache,
        cache_limit=int(args.cache_limit * 10**9),
    )
    if args.explain:
        print(_explained(checkpoint, targets, settings))
        return 0
    if limits:
        promise = asked_of(args, None)
        manifest, frontier = search(
            checkpoint, args.out, targets, limits, promise, settings, args.overwrite
        )
        print(f"{frontier_summary(frontier)}\n")
    else:
        manifest = export(checkpoint, args.out, targets, args.overwrite, settings)
    print(_summary(manifest))
    print(f"\nbundle {args.out}, {time.monotonic() - started:.0f} s")
    return 0


# Options, by what they are for: a mode of the command, or targets of which one has to be asked for.
OF_NEW_BUNDLES = (
    "targets", "calibration", "refit", "vocabulary", "embeddings", "with_tokenizer", "ort",
    "reduce_range", "keep_worst", "depth", "overwrite", "exits", "exit_drop", "exit_confidence",
)  # fmt: skip
NOT_OF_EXPLAIN = (
    "refit", "vocabulary", "embeddings", "with_tokenizer", "ort", "keep_worst", "overwrite",
)  # fmt: skip
EXPLAINED = ("onnx-int8", "openvino-int8")
OF_TARGETS = {
    "refit": ("onnx-int8", "openvino-int8"),
    "vocabulary": ("onnx-int8", "openvino-int8"),
    "embeddings": ("onnx-int8", "openvino-int8"),
    "reduce_range": ("onnx-int8",),
    "keep_worst": ("onnx-int8",),
    "ort": tuple(name for name, target in TARGETS.items() if target.engine == "onnxruntime"),
}


def _require_meant(args: argparse.Namespace, all_given: Sequence[str]) -> None:
    """
    Raises:
        OptionError: an option that would do nothing, or no place for the file of --update.
        OutputExistsError: that file exists and may not be replaced.
    """
    given = [n for n in OF_NEW_BUNDLES if n in all_given]
    of_update = ["overwrite"] if args.update is not None else []
    if args.into is not None and (wrong := [n for n in given if n not in of_update]):
        raise OptionError(
            f"--{wrong[0].replace('_', '-')} is for new bundles; --heads-only leaves all but the "
            "heads as it is"
        )
    if args.update is not None:
        _require_place(args.update, args.into, overwrite=args.overwrite)
    if args.label_column:
        raise OptionError("--label-column is of --check-exits; give both, or neither")
    targets = targets_of(args.targets)
    if args.explain and (idle := [n for n in NOT_OF_EXPLAIN if n in all_given]):
        raise OptionError(
            f"--{idle[0].replace('_', '-')} is for bundles, and --explain makes none; leave one out"
        )
    if args.explain and not set(EXPLAINED) & set(targets):
        raise OptionError(
            f"--explain is of {' and '.join(EXPLAINED)}; ask for one of them with --targets"
        )
    for name in given:
        wanted = OF_TARGETS.get(name, targets)
        if not set(wanted) & set(targets):
            raise OptionError(
                f"--{name.replace('_', '-')} is for {' and '.join(wanted)}; ask for it with "
                "--targets, or leave the option out"
            )


def _require_place(update: Path, into: Path | None, *, overwrite: bool) -> None:
    """Fail before the bundle is replaced if the update cannot be written behind that."""
    if into is None:
        raise OptionError("--update is of --heads-only; give both, or neither")
    if not update.absolute().parent.is_dir():
        raise OptionError(f"--update {update}: no such folder; make it first")
    if update.is_dir():
        raise OptionError(f"--update {update} is a folder, expected a file; name one in it")
    if update.exists() and not overwrite:
        raise OutputExistsError(f"{update} exists; choose another --update or pass --overwrite")


def _given(args: argparse.Namespace) -> list[str]:
    """This command's options that are not at their default."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    return [name for name, default in defaults.items() if getattr(args, name) != default]


def _once(files: Sequence[Path], args: argparse.Namespace) -> list[str]:
    """Their texts, each once."""
    return list(dict.fromkeys(texts_in(files, args)))


def _replace_heads(args: argparse.Namespace) -> None:
    bundle = open_bundle(args.into)
    checkpoint = load_checkpoint(args.checkpoint)
    if bundle.manifest.depth in checkpoint.shallower:
        checkpoint = checkpoint.at(bundle.manifest.depth)
    settings = Settings(max_accuracy_drop=args.max_accuracy_drop)
    kept = {task.name for task in checkpoint.tasks}
    if gone := [task.name for task in bundle.manifest.tasks if task.name not in kept]:
        note(f"the checkpoint has no task {', '.join(gone)}; it goes")
    print(_summary(replace_heads(checkpoint, bundle, settings)))
    print(f"\nthe version before is {previous_of(args.into)}")
    if args.update is not None:
        former = open_bundle(previous_of(args.into), verify="size")
        size = write_update(former, args.into, args.update)
        print(f"update {args.update}, {size / 1e6:.2f} MB")


def _table_of_targets() -> str:
    rows = [
        [
            name,
            t.files[0],
            t.precision,
            ENGINES[t.engine].install,
            t.size,
            "yes" if name in DEFAULT else "",
            t.use,
        ]
        for name, t in TARGETS.items()
    ]
    header = ["target", "file", "precision", "to run", "bytes a weight", "default", "for"]
    return text_table(header, rows)


def _explained(checkpoint: Checkpoint, targets: Sequence[str], settings: Settings) -> str:
    """Each product's noise, the noisiest marked; a table for each engine that is exported to."""
    tables = []
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        source = captured(checkpoint, Path(work), settings)
        if "onnx-int8" in targets:
            reduce_range = settings.reduce_range
            noises = noise_of(source.prepared(), source.width, source.calibration, reduce_range)
            tables.append(f"onnx-int8\n\n{_noise_table(noises)}")
        if "openvino-int8" in targets:
            exact = openvino_graph.read(source.file)
            rounded = int8_openvino.quantize(source)
            noises = noise_of_openvino(exact, rounded, source.calibration)
            tables.append(f"openvino-int8\n\n{_noise_table(noises)}")
    return "\n\n".join(tables) + (
        "\n\nsignal to noise of each product in int8, in decibels: its own, and with that of all "
        "before it\nof onnx-int8, `--keep-worst N` leaves the noisiest in float32"
    )


def _noise_table(noises: Sequence[Noise]) -> str:
    known = all(noise.own is not None for noise in noises)
    ranks = {output: rank for rank, output in enumerate(worst(noises, len(noises)), 1)}
    rows = [
        [
            noise.layer,
            " x ".join(map(str, noise.shape)),
            *([] if noise.own is None else [f"{noise.own:.1f}"]),
            f"{noise.total:.1f}",
            *([str(ranks[noise.output])] if known else []),
        ]
        for noise in noises
    ]
    own, rank = (["own dB"], ["noise rank"]) if known else ([], [])
    return text_table(["product", "weights", *own, "total dB", *rank], rows)


def _calibrated(checkpoint: Checkpoint, texts: Sequence[str]) -> Checkpoint:
    """The same with other texts to set the scales by, at most as many as training would keep."""
    chosen = spread(sorted(texts, key=len), CALIBRATION_ROWS)
    kept = [sample for sample in checkpoint.samples if sample.split != "calibration"]
    added = [Sample("calibration", "", text, "") for text in chosen]
    return replace(checkpoint, samples=[*kept, *added])


def _depth(checkpoint: Checkpoint, asked: str, loss: float) -> int:
    """The depth that `--depth` asks for."""
    if asked != "auto":
        if not asked.isdecimal():
            raise OptionError(f"--depth {asked!r}: expected a number of layers, or auto")
        return int(asked)
    if not checkpoint.shallower:
        raise OptionError(
            f"--depth auto: the checkpoint has heads for depth {checkpoint.depth} alone; train "
            "with --all-depths"
        )

    def lost(depth: int) -> float:
        """The most points that a task loses at this depth."""
        deepest = str(checkpoint.depth)
        losses: list[float] = []
        for task in checkpoint.tasks:
            found = checkpoint.report[task.name]["depths"]
            kept, whole = (found[d]["selection_accuracy"] for d in (str(depth), deepest))
            losses.append(100 * (whole - kept))
        return max(losses)

    depths = sorted([*checkpoint.shallower, checkpoint.depth])
    chosen = next(depth for depth in depths if lost(depth) <= max(loss, 0.0))
    print(f"export: depth {chosen} of {checkpoint.depth}", file=sys.stderr)
    return chosen


def _summary(manifest: Manifest) -> str:
    rows = []
    for task in manifest.tasks:
        found = manifest.evaluation[task.name]
        where = f"{found['split']} ({found['rows']})"
        rows.append(
            [task.name, where, "fp32 (torch)", f"{found['fp32']['accuracy']:.1%}", *[""] * 4]
        )
        for graph in manifest.graphs:
            score = found["graphs"][graph.target]
            if "before_refit" in score:
                name = f"{graph.target} before --refit"
                rows.append([task.name, where, name, *_scores(score["before_refit"])])
            rows.append([task.name, where, graph.target, *_scores(score)])
    header = ["task", "measured on", "graph", "accuracy", "agrees", "largest change"]
    table = text_table([*header, "rows lost / won", "McNemar p"], rows)
    if manifest.exits:
        table = f"{table}\n\n{exits_table(manifest)}"
    return "\n".join([table, *_accounts(manifest)])


def _accounts(manifest: Manifest) -> list[str]:
    """What was left out on request."""
    found = manifest.reduced.get("vocabulary")
    if found is None:
        return []
    share = found.get("share_of_held_out_tokens_kept")
    return [
        f"\nvocabulary of int8 graphs: {found['tokens_kept']:,} of {found['tokens']:,} tokens keep "
        "their embeddings"
        + ("" if share is None else f", {share:.2%} of the tokens in the rows set aside")
        + "; texts of these alone are answered as before, any other token reads as unknown"
    ]


def _scores(score: Mapping[str, Any]) -> list[str]:
    return [
        f"{score['accuracy']:.1%}",
        f"{score['agreement']:.1%}",
        f"{score['max_probability_change']:.3f}",
        f"{score['rows_lost']} / {score['rows_won']} of {score['compared_on']}",
        f"{score['mcnemar_p']:.2g}",
    ]
