"""An open bundle with an engine running for each of its stages: texts in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mtl_edge.batches.planning import Tokens
from mtl_edge.batches.prefetch import prefetched, windows
from mtl_edge.bundle import Bundle, Manifest, Task
from mtl_edge.cascade.early_exit import answer, answer_one
from mtl_edge.cascade.outputs import StageOutput
from mtl_edge.cascade.stage import Stage
from mtl_edge.choosing import Choice
from mtl_edge.engines import Engine, Setup
from mtl_edge.io.in_memory import valid_texts
from mtl_edge.io.limits import Limits
from mtl_edge.tokens.encoder import TextEncoder

__all__ = ["WINDOW", "Session"]

WINDOW = 2048  # texts that are planned into batches together
SHORT_TOKENS = 32  # of the shorter of two single texts that a latency estimate begins with


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Session:
    """One version of a bundle, running. Calls hold on to it, so that it goes with the last one.

    Attributes:
        bundle: as it runs: without the stages that are deeper than was asked for.
        manifest: the bundle's whole manifest.
        choice: the graph and engine that run, and why.
        stages: the cheapest first, the deepest last.
        limits: on what a call may ask for.
        process: the id of the process that the engines' threads live in.
    """

    bundle: Bundle
    manifest: Manifest
    choice: Choice
    stages: tuple[Stage, ...]
    encoder: TextEncoder
    setup: Setup
    limits: Limits
    process: int

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are asked, as the deepest stage answers them."""
        return self.stages[-1].tasks

    @property
    def engine(self) -> Engine:
        """The deepest stage's engine."""
        return self.stages[-1].engine

    @property
    def batch_tokens(self) -> int:
        """Tokens in a batch of the deepest stage, padding included."""
        return self.stages[-1].batch_tokens

    def token_ids(
        self, texts: list[str], first: int = 0, *, stream: bool = False
    ) -> list[list[int]]:
        """Each text's token ids.

        Args:
            first: position of the first text, where they are part of a longer stream.
            stream: whether they are: then their number and their bytes in all are not limited.

        Raises:
            TextError: an item is not a string; or, as LimitError, beyond the limits.
        """
        return self.encoder.ids(self._allowed(texts, first, stream=stream))

    def answer_texts(self, texts: list[str], deadline: float | None = None) -> list[StageOutput]:
        """Any number of texts' answers, in parts of one stage each.

        Args:
            deadline: see `mtl_edge.cascade.early_exit.answer`.

        Raises:
            TextError: see `token_ids`.
            EngineError: the engine failed.
        """
        texts = self._allowed(texts)
        if not texts:
            return []
        if len(texts) <= WINDOW:
            return self.answer_ids(self.encoder.ids(texts), deadline)
        ids = prefetched(self.encoder.ids, windows(texts, WINDOW))
        return list(answer(self.stages, ids, deadline))

    def answer_ids(self, ids: Sequence[Tokens], deadline: float | None = None) -> list[StageOutput]:
        """The same of one or more texts' token ids."""
        if len(ids) == 1:
            return [answer_one(self.stages, ids[0], deadline)]
        return list(answer(self.stages, [ids], deadline))

    def warm(self, *, batches: bool) -> None:
        """Run every shape that was compiled ahead, the longest text and, of batches, the largest.

        Latency estimates then begin with single texts, now that shapes are warm.

        Raises:
            EngineError: see `Stage.run`.
        """
        longest = self.encoder.max_tokens
        for stage in self.stages:
            shapes = {*stage.engine.fixed_shapes, (1, longest)}
            if batches:
                shapes.add((max(1, stage.batch_tokens // longest), longest))
            _run_shapes(stage, shapes)
            if stage.latency is not None:
                stage.latency.clear()
                _run_shapes(stage, {(1, min(SHORT_TOKENS, longest)), (1, longest)})

    def close(self) -> None:
        """Close the engines of all stages."""
        for stage in self.stages:
            stage.engine.close()

    def _allowed(self, texts: list[str], first: int = 0, *, stream: bool = False) -> list[str]:
        valid = valid_texts(texts, first)
        self.limits.check(valid, first, stream=stream)
        return valid


def _run_shapes(stage: Stage, shapes: Iterable[tuple[int, int]]) -> None:
    for shape in sorted(shapes):
        stage.run(np.zeros(shape, np.int64), np.ones(shape, np.int64))
