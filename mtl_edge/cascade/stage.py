"""One stage of a cascade: a graph of one depth, its engine, and when a text may exit there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.kinds import kind_of
from mtl_edge.batches.planning import joined
from mtl_edge.bundle import Task
from mtl_edge.cascade.latency import LatencyEstimator
from mtl_edge.engines import Engine, Ids, Logits
from mtl_edge.errors import EngineError, OutOfMemoryError

__all__ = ["Probabilities", "Stage"]

Probabilities = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A graph of one depth with an engine that runs it.

    Attributes:
        depth: layers of the encoder that the graph runs.
        tasks: that are asked, with this stage's temperatures and thresholds.
        exit_thresholds: the certainty from which on a text exits here, by task; tasks that are
            not listed have no say. None: the last stage, where every text ends.
        batch_tokens: tokens in a batch, padding included.
        domain: see `mtl_edge.bundle.Manifest`, with this stage's thresholds; None also where none
            of the tasks that are asked has a label there.
        latency: estimates what the next batch takes, for calls with a deadline. None for the first
            stage of several, which always runs, and where there is only one.
    """

    depth: int
    engine: Engine
    tasks: tuple[Task, ...]
    exit_thresholds: Mapping[str, float] | None
    batch_tokens: int
    latency: LatencyEstimator | None = None
    domain: Task | None = None

    @property
    def outputs(self) -> tuple[Task, ...]:
        """What is taken of the graph's outputs: the tasks', and the domain's."""
        return self.tasks if self.domain is None else (*self.tasks, self.domain)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """One batch's logits, `[batch, labels]` per task, checked against the manifest.

        A batch that is too large for memory is halved.

        Raises:
            OutOfMemoryError: a single text is too large.
            EngineError: the engine failed, or its outputs are not what the manifest says.
        """
        outputs: Logits | None
        began = time.perf_counter()
        try:
            outputs = self.engine.run(input_ids, attention_mask)
        except MemoryError as error:  # OutOfMemoryError derives from it
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
        if self.latency is not None:
            self.latency.add(input_ids.size, time.perf_counter() - began)
        return {task.name: _checked(outputs, task, len(input_ids)) for task in self.outputs}

    def probabilities(self, logits: Logits) -> Probabilities:
        """Each task's probabilities, or its score, `[n, outputs]`."""
        return {task.name: kind_of(task).values(task, logits[task.name]) for task in self.outputs}

    def exits(self, probabilities: Probabilities) -> bool:
        """Whether a single text exits here; the same as that its margin is 0 or more."""
        if self.exit_thresholds is None:
            return True
        return all(
            self._certainty(task, probabilities)[0] >= threshold
            for task, threshold in self.exit_thresholds.items()
        )

    def margins(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        """By how much each text's certainty is above the exit thresholds, `[n]`.

        Of several tasks, the lowest counts. Texts below 0 go on to the next stage.
        """
        if self.exit_thresholds is None:
            return np.zeros(len(next(iter(probabilities.values()))))
        lowest: npt.NDArray[np.float64] = np.min(
            [self._certainty(task, probabilities) - threshold
             for task, threshold in self.exit_thresholds.items()], axis=0)  # fmt: skip
        return lowest

    def _certainty(self, name: str, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        task = next(task for task in self.tasks if task.name == name)
        certainty = kind_of(task).certainty
        if certainty is None:  # nothing says how sure a score is: every text goes on
            return np.full(len(probabilities[name]), -1.0)
        return certainty(task, probabilities[name])


def _checked(outputs: Logits, task: Task, rows: int) -> npt.NDArray[np.float32]:
    """A task's logits, if the engine gave as many as the manifest says, all of them finite."""
    value, shape = outputs.get(task.name), (rows, task.outputs)
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
