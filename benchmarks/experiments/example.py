"""A bundle to measure where there is none: packaged MiniLM, small heads, in half a minute.

Its times are those of any bundle with this backbone and such heads; its answers are not its point.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from mtl_edge.benchmarks.demo import DATA
from mtl_edge.export.build import export
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import DEFAULT
from mtl_edge.io.labelled import read_rows
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import save_checkpoint
from mtl_edge.training.data import build_task
from mtl_edge.training.options import TrainOptions
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.run import train

__all__ = ["write"]

HEAD, EPOCHS = "mlp:mean", 4


def write(folder: Path) -> tuple[Path, Path]:
    """Put `checkpoint` and `bundle` into a folder; returns both.

    Raises:
        BackboneError: the packaged backbone is not installed.
        OutputExistsError: they are there.
    """
    tasks = [
        build_task(task, read_rows(task, DATA / "dev.csv"), None, seed=0)
        for task in ("sentiment", "topic")
    ]
    options = TrainOptions(
        heads={task.name: HEAD for task in tasks},
        recipe=Recipe(epochs=EPOCHS),
        cache=folder / "cache",
    )
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF's bars
        trained = train(tasks, load_backbone("minilm"), options)
        save_checkpoint(trained, checkpoint)
        # However low its accuracy is: it is not what is measured.
        export(trained, bundle, DEFAULT, settings=Settings(float("inf"), cache=folder / "cache"))
    return checkpoint, bundle
