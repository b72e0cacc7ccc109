"""A bundle that runs: token ids in, checked logits out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import TOKENIZER, Bundle, Task, Verify, open_bundle
from mtl_edge.choosing import Choice, start_chosen
from mtl_edge.engines import Engine, Ids, Logits, Setup
from mtl_edge.errors import EngineError, OptionError, OutOfMemoryError
from mtl_edge.limits import Limits
from mtl_edge.planning import Tokens, in_batches, joined
from mtl_edge.probabilities import softmax
from mtl_edge.text import TextEncoder

__all__ = ["Loaded", "Probabilities", "answering", "load_bundle"]

Probabilities = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Loaded:
    """One version of a bundle, running. Calls hold on to it, so that it goes with the last one.

    Attributes:
        process: that its threads live in.
    """

    bundle: Bundle
    choice: Choice
    engine: Engine
    encoder: TextEncoder
    tasks: tuple[Task, ...]
    setup: Setup
    batch_tokens: int
    process: int

    def probabilities(self, ids: Sequence[Tokens]) -> Probabilities:
        """`[n, labels]` per task, of one or more texts' token ids."""
        return self.softmax(self.logits(ids))

    def softmax(self, logits: Logits) -> Probabilities:
        """Logits as probabilities, each task's at its temperature."""
        return {task.name: softmax(logits[task.name], task.temperature) for task in self.tasks}

    def logits(self, ids: Sequence[Tokens]) -> Logits:
        """`[n, labels]` per task, of one or more texts' token ids."""
        return in_batches(self.run, ids, self.batch_tokens, self.engine.multiple)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """One batch's logits, checked; a batch that is too large for memory is halved.

        Raises:
            OutOfMemoryError: a single text is too large.
            EngineError: the engine failed, or what came is not what the manifest says.
        """
        outputs: Logits | None
        try:
            outputs = self.engine.run(input_ids, attention_mask)
        except MemoryError as error:  # ours derives from it
            if len(input_ids) == 1:
                raise OutOfMemoryError(
                    f"a text of {input_ids.shape[1]} tokens does not fit into memory even alone; "
                    "free some, or lower Limits.tokens"
                ) from error
            outputs = None  # the error would keep what it was raised with in memory
        if outputs is None:
            half = len(input_ids) // 2
            parts = [self.run(input_ids[part], attention_mask[part])
                     for part in (slice(half), slice(half, None))]  # fmt: skip
            return joined(parts)
        return {task.name: _expected(outputs, task, len(input_ids)) for task in self.tasks}

    def warm(self, *, batches: bool) -> None:
        """Run every shape that was compiled ahead, the longest text and, of batches, the largest.

        Raises:
            EngineError: see `run`.
        """
        longest = self.encoder.max_tokens
        shapes = {*self.engine.fixed_shapes, (1, longest)}
        if batches:
            shapes.add((max(1, self.batch_tokens // longest), longest))
        for shape in sorted(shapes):
            self.run(np.zeros(shape, np.int64), np.ones(shape, np.int64))


def load_bundle(
    path: Path,
    engine: str,
    target: str | None,
    setup: Setup,
    limits: Limits,
    verify: Verify,
    public_key: str | Path | None,
) -> Loaded:
    """Verify a bundle and start an engine on it: see `EdgeClassifier.load`."""
    bundle = open_bundle(path, verify=verify, public_key=public_key)
    most = bundle.manifest.max_tokens
    most = min(most, limits.tokens or most)
    words = bundle.manifest.backbone.vocabulary
    encoder = TextEncoder.from_file(bundle.file(TOKENIZER), most, words)
    choice, started = start_chosen(bundle, engine=engine, target=target, setup=setup)
    batch_tokens = limits.batch_tokens or started.tokens_per_batch
    return Loaded(
        bundle, choice, started, encoder, bundle.manifest.tasks, setup, batch_tokens, os.getpid()
    )


def answering(loaded: Loaded, names: Sequence[str] | None) -> Loaded:
    """The same with these of the tasks only."""
    if names is None:
        return loaded
    known = {task.name: task for task in loaded.tasks}
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not wanted:
        raise OptionError(f"tasks is empty, expected some of {', '.join(known)}")
    if strange := [name for name in wanted if name not in known]:
        raise OptionError(
            f"the bundle has no task {', '.join(map(repr, strange))}; it has {', '.join(known)}"
        )
    return replace(loaded, tasks=tuple(known[name] for name in wanted))


def _expected(outputs: Logits, task: Task, rows: int) -> npt.NDArray[np.float32]:
    value, shape = outputs.get(task.name), (rows, len(task.labels))
    if value is None or value.shape != shape:
        came = "no such output" if value is None else f"shape {value.shape}"
        raise EngineError(
            f"task {task.name!r}: expected logits {shape}, got {came}; the graph does not belong "
            "to the manifest: export the bundle again"
        )
    if not np.isfinite(value).all():
        raise EngineError(
            f"task {task.name!r}: the graph gave logits that are not finite; its weights are "
            "damaged: export the bundle again"
        )
    return value
