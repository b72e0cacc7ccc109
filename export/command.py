"""`mtl-edge export`: checkpoint in, bundle out."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mtl_edge import engines
from mtl_edge.bundle import SCHEMA, TOKENIZER, Bundle, Graph, Manifest, write_manifest
from mtl_edge.errors import OptionError
from mtl_edge.export.capture import capture_encoder, capture_heads
from mtl_edge.export.card import model_card
from mtl_edge.export.explain import noise_of, worst
from mtl_edge.export.proof import evaluate
from mtl_edge.export.targets import DEFAULT, TARGETS, Source
from mtl_edge.files import require_free, staged_folder
from mtl_edge.table import text_table
from mtl_edge.timing import alternate
from mtl_edge.training.checkpoint import Checkpoint, Sample, load_checkpoint
from mtl_edge.training.data import read_texts, spread
from mtl_edge.training.run import CALIBRATION_ROWS

__all__ = ["add_arguments", "export", "run"]

MAX_ACCURACY_DROP = 0.5
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "tokenizers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="a folder that `mtl-edge train` wrote"
    )
    parser.add_argument("--out", type=Path, help="the bundle's folder")
    parser.add_argument("--list", action="store_true", help="show the targets and export nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
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
    parser.add_argument("--text-column", default="text", help="of --calibration")
    parser.add_argument(
        "--reduce-range",
        action="store_true",
        help="of onnx-int8: weights in 7 bits, for x86 CPUs without VNNI, whose int8 products "
        "overflow with 8",
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
    parser.add_argument(
        "--depth",
        metavar="N",
        help="layers of the encoder to export, with the heads that `train --all-depths` taught for "
        "them; auto: the fewest that lose at most --depth-loss; default: all that were trained",
    )
    parser.add_argument(
        "--depth-loss",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="of --depth auto: accuracy that a task may lose on the selection rows; "
        "default: %(default)s",
    )


def run(args: argparse.Namespace) -> None:
    if args.list:
        print(_table_of_targets())
        return
    if args.checkpoint is None or (args.out is None and not args.explain):
        raise OptionError("expected a checkpoint and --out FOLDER, or --list")
    if not args.explain:
        require_free(args.out, overwrite=args.overwrite)
    if args.keep_worst < 0:
        raise OptionError(f"--keep-worst is {args.keep_worst}, expected 0 or more")
    targets = list(dict.fromkeys(filter(None, args.targets.split(","))))
    if unknown := [t for t in targets if t not in TARGETS]:
        raise OptionError(f"--targets {unknown[0]}: unknown; there are {', '.join(TARGETS)}")
    if not targets:
        raise OptionError(f"--targets is empty; there are {', '.join(TARGETS)}")
    started = time.monotonic()
    checkpoint = load_checkpoint(args.checkpoint)
    if args.depth is not None:
        checkpoint = checkpoint.at(_depth(checkpoint, args.depth, args.depth_loss))
    if args.explain:
        print(_explained(checkpoint, args.reduce_range))
        return
    if not args.max_accuracy_drop >= 0:
        raise OptionError(f"--max-accuracy-drop is {args.max_accuracy_drop}, expected 0 or more")
    if args.calibration is not None:
        checkpoint = _calibrated(checkpoint, read_texts(args.calibration, args.text_column))
    manifest = export(
        checkpoint,
        args.out,
        targets,
        args.overwrite,
        max_accuracy_drop=args.max_accuracy_drop,
        reduce_range=args.reduce_range,
        keep_worst=args.keep_worst,
    )
    print(_summary(manifest))
    print(f"\nbundle {args.out}, {time.monotonic() - started:.0f} s")


def _table_of_targets() -> str:
    rows = [
        [name, t.files[0], t.engine, t.precision, t.size, "yes" if name in DEFAULT else "", t.use]
        for name, t in TARGETS.items()
    ]
    header = ["target", "file", "engine", "precision", "bytes a weight", "default", "for"]
    return text_table(header, rows)


def _explained(checkpoint: Checkpoint, reduce_range: bool) -> str:
    """Each product's noise, the noisiest marked."""
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        source = _captured(checkpoint, Path(work), reduce_range)
        prepared = source.prepared()
    noises = noise_of(prepared, source.width, source.calibration, reduce_range)
    ranks = {output: rank for rank, output in enumerate(worst(noises, len(noises)), 1)}
    rows = [
        [
            noise.layer,
            " x ".join(map(str, noise.shape)),
            f"{noise.own:.1f}",
            f"{noise.total:.1f}",
            str(ranks[noise.output]),
        ]
        for noise in noises
    ]
    return (
        text_table(["product", "weights", "own dB", "total dB", "noise rank"], rows)
        + "\n\nsignal to noise of each product in int8, in decibels: its own, and with that of all "
        "before it\n`--keep-worst N` leaves the noisiest in float32"
    )


def _captured(
    checkpoint: Checkpoint, work: Path, reduce_range: bool, keep_worst: int = 0
) -> Source:
    """The checkpoint's encoder as every target takes it."""
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    calibration = encoder([s.text for s in checkpoint.samples if s.split == "calibration"])
    file = work / "encoder.onnx"
    capture_encoder(checkpoint, file)
    return Source(
        file, checkpoint.backbone, checkpoint.depth, calibration, reduce_range, keep_worst
    )


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


def export(
    checkpoint: Checkpoint,
    out: Path,
    targets: Sequence[str] = DEFAULT,
    overwrite: bool = False,
    *,
    max_accuracy_drop: float = MAX_ACCURACY_DROP,
    reduce_range: bool = False,
    keep_worst: int = 0,
) -> Manifest:
    """Build, prove and write a bundle; a failure leaves what was at `out` as it was.

    Args:
        max_accuracy_drop: see `mtl_edge.export.proof.evaluate`.
        reduce_range: see `mtl_edge.export.int8_onnx.quantize`.
        keep_worst: see `mtl_edge.export.targets.Source`.

    Raises:
        ExportError: a graph could not be built, or is not faithful to the checkpoint.
        OutputExistsError: `out` exists and `overwrite` is false.
    """
    info = checkpoint.backbone.info
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    with (
        staged_folder(out, overwrite=overwrite) as stage,
        tempfile.TemporaryDirectory(prefix="mtl-edge-") as work,
    ):
        with _step("capture"):
            source = _captured(checkpoint, Path(work), reduce_range, keep_worst)
            heads = Path(work) / "heads.onnx"
            capture_heads(checkpoint, heads)
        for name in targets:
            with _step(f"build {name}"):
                target = TARGETS[name]
                target.form.write(target.encoder(source), heads, stage, target.files)
        encoder.save(stage / TOKENIZER)
        manifest = Manifest(
            schema=SCHEMA,
            tasks=checkpoint.tasks,
            backbone=info,
            depth=checkpoint.depth,
            max_tokens=checkpoint.max_tokens,
            graphs=tuple(TARGETS[name].graph(name) for name in targets),
            versions={name: version(name) for name in ("mtl-edge", *PACKAGES)},
        )
        write_manifest(stage, manifest)
        with _step("compare with torch"):
            evaluation = evaluate(checkpoint, stage, targets, max_accuracy_drop)
        with _step("time"):
            graphs = _timed(Bundle(stage, manifest))
        manifest = replace(manifest, graphs=graphs, evaluation=evaluation)
        (stage / "README.md").write_text(model_card(manifest), encoding="utf-8")
        write_manifest(stage, manifest)
    return manifest


def _timed(bundle: Bundle) -> tuple[Graph, ...]:
    """The graphs with their latency for one text of 32 tokens, timed in alternation."""
    graphs = bundle.manifest.graphs
    ids = np.random.default_rng(0).integers(0, bundle.manifest.backbone.vocabulary, (1, 32))
    mask = np.ones_like(ids)
    running = {g.target: engines.start(g.engine, bundle.files_of(g)) for g in graphs}
    times = alternate(
        {name: lambda engine=engine: engine.run(ids, mask) for name, engine in running.items()}  # type: ignore[misc]
    )
    for engine in running.values():
        engine.close()
    return tuple(replace(g, latency_ms=round(times[g.target].median, 3)) for g in graphs)


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Say what is being done and how long it took."""
    started = time.monotonic()
    print(f"export: {name} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(" failed", file=sys.stderr)
        raise
    print(f" {time.monotonic() - started:.1f} s", file=sys.stderr)


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
            rows.append(
                [
                    task.name,
                    where,
                    graph.target,
                    f"{score['accuracy']:.1%}",
                    f"{score['agreement']:.1%}",
                    f"{score['max_probability_change']:.3f}",
                    f"{score['rows_lost']} / {score['rows_won']} of {score['compared_on']}",
                    f"{score['mcnemar_p']:.2g}",
                ]
            )
    header = ["task", "measured on", "graph", "accuracy", "agrees", "largest change"]
    return text_table([*header, "rows lost / won", "McNemar p"], rows)
