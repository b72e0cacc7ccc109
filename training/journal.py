"""What a run leaves while it goes: figures to watch, states to go on from, the batch at fault.

FOLDER/run.json         what decides the result of the run
FOLDER/metrics.jsonl    a line for each epoch of each thing that learns
FOLDER/PART.pt          where the learning of PART stands
FOLDER/batch.jsonl      rows of a batch whose loss was not a number
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mtl_edge.errors import CheckpointError, MissingPackageError, one_line
from mtl_edge.io.changes import changes_of

__all__ = ["Journal"]

RUN, METRICS, FAULT = "run.json", "metrics.jsonl", "batch.jsonl"
SECONDS_BETWEEN_SAVES = 60.0
SHARE_OF_TIME_TO_SAVE = 0.05


class Journal:
    """Keeps the record of one run.

    Args:
        folder: where; none keeps figures in memory and nothing else. What a stopped run left there
            is gone on with.
        run: what decides the result.
        restart: forget what a stopped run left.
        tensorboard: folder for TensorBoard's files, if they are wanted.

    Raises:
        CheckpointError: the folder is of a run that another result would come of.
        MissingPackageError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        folder: Path | None = None,
        run: Mapping[str, Any] | None = None,
        *,
        restart: bool = False,
        tensorboard: Path | None = None,
    ) -> None:
        self.folder = folder
        self.metrics: list[dict[str, Any]] = []
        self._run = json.dumps(run or {}, indent=2, sort_keys=True, default=str)
        self._saved = time.monotonic()
        self._cost = 0.0
        self._board = _board(tensorboard) if tensorboard else None
        if folder is not None and restart and (folder / RUN).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        if folder is not None and (folder / RUN).is_file():
            self._go_on(folder)

    def _go_on(self, folder: Path) -> None:
        """Take up what a stopped run left, if it is the same run."""
        before, now = json.loads((folder / RUN).read_bytes()), json.loads(self._run)
        if changes := changes_of(before, now, "."):
            raise CheckpointError(
                f"{folder} is what a stopped run left, and this run differs in "
                f"{', '.join(changes)}; give the same command as then to go on with it, or "
                "--restart to begin anew"
            )
        print(f"note: going on from {folder}", file=sys.stderr)
        if (folder / METRICS).is_file():
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
            self.metrics = [json.loads(line) for line in lines]

    def _write(self, name: str, content: str) -> Path:
        """Write a file whole or not at all; the folder is made with the first one."""
        assert self.folder is not None
        if not (self.folder / RUN).is_file() and name != RUN:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(RUN, self._run)
        partial = self.folder / f"{name}.partial"
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, self.folder / name)
        return self.folder / name

    @property
    def advice(self) -> str:
        """What to tell who stopped the run."""
        if self.folder is None:
            return ""
        return f"the same command goes on from {self.folder}, --restart begins anew"

    def log(self, **figures: Any) -> None:
        """Keep one line of figures; `part` and `step` are among them. `save` writes it."""
        self.metrics.append(figures)
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{figures['part']}/{name}", value, figures["step"])
            self._board.flush()

    def due(self) -> bool:
        """Whether it is time to save within an epoch: rarely enough to cost little."""
        if self.folder is None:
            return False
        pause = max(SECONDS_BETWEEN_SAVES, self._cost / SHARE_OF_TIME_TO_SAVE)
        return time.monotonic() - self._saved > pause

    def save(self, part: str, state: Mapping[str, Any]) -> None:
        """Keep where the learning of `part` stands, whole or not at all."""
        if self.folder is None:
            return
        started = time.monotonic()
        self._write(METRICS, "".join(json.dumps(line) + "\n" for line in self.metrics))
        partial = self.folder / f"{part}.pt.partial"
        torch.save(dict(state), partial)
        os.replace(partial, self.folder / f"{part}.pt")
        self._saved = time.monotonic()
        self._cost = self._saved - started

    def load(self, part: str) -> dict[str, Any] | None:
        """What `save` kept, if a stopped run got that far.

        Raises:
            CheckpointError: the file is damaged.
        """
        if self.folder is None or not (file := self.folder / f"{part}.pt").is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and torch each have their own
            raise CheckpointError(
                f"{file} is damaged ({one_line(error)}); --restart begins anew"
            ) from None
        return state

    def forget_after(self, parts: Sequence[str], step: int) -> None:
        """Drop lines of `parts` behind `step`: they will be written again."""
        self.metrics = [m for m in self.metrics if m["part"] not in parts or m["step"] <= step]

    def reject(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Keep the rows of a batch whose loss was not a number; where they are, in words."""
        if self.folder is None:
            return ""
        file = self._write(FAULT, "".join(json.dumps(row) + "\n" for row in rows))
        return f" and give --restart; the batch's {len(rows)} rows are in {file}"

    def close(self) -> None:
        """The run is done: its figures are in the checkpoint now."""
        if self._board is not None:
            self._board.close()
        if self.folder is not None and (self.folder / RUN).is_file():
            shutil.rmtree(self.folder, ignore_errors=True)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingPackageError(
            "--tensorboard needs the package tensorboard; "
            "install it with `pip install 'mtl-edge[tensorboard]'`"
        ) from None
    return SummaryWriter(str(folder))
