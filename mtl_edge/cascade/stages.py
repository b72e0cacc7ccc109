"""Depth by need: a cheap stage answers the texts that it is sure of, the next one the rest.

Texts that go on are planned into batches anew. Under a deadline the least sure of them go first, a
few batches at a time, as long as the next stage's pace says that there is time; the others keep
the answer that they have.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.probabilities import softmax
from mtl_edge.batches.planning import Tokens, in_batches, joined, pad, plan
from mtl_edge.bundle import Task
from mtl_edge.cascade.latency import Pace
from mtl_edge.engines import Engine, Ids, Logits
from mtl_edge.errors import EngineError, OutOfMemoryError

__all__ = ["Answered", "Probabilities", "Stage", "answer", "answer_one"]

Probabilities = dict[str, npt.NDArray[np.float32]]
Rows = Sequence[int] | npt.NDArray[np.int64]

# Under a deadline so many full batches are planned together: the fewer, the closer to the order of
# need, and the more, the less padding.
GROUP = 4
# A batch takes longer than predicted as often as shorter; so much is kept for those that do.
HEADROOM = 1.2


@dataclass(frozen=True, slots=True)
class Stage:
    """A graph of one depth, running.

    Attributes:
        depth: layers that it runs.
        tasks: those that are asked, with this stage's temperatures and thresholds.
        leaving: by task that decides whether a text goes on, the probability from which on it does
            not; none: it never does.
        batch_tokens: that it runs at once, padding included.
        pace: what its batches take; none: nobody asks.
    """

    depth: int
    engine: Engine
    tasks: tuple[Task, ...]
    leaving: Mapping[str, float] | None
    batch_tokens: int
    pace: Pace | None = None

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """One batch's logits, checked; a batch that is too large for memory is halved.

        Raises:
            OutOfMemoryError: a single text is too large.
            EngineError: the engine failed, or what came is not what the manifest says.
        """
        outputs: Logits | None
        began = time.perf_counter()
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
        if self.pace is not None:
            self.pace.add(input_ids.size, time.perf_counter() - began)
        return {task.name: _expected(outputs, task, len(input_ids)) for task in self.tasks}

    def probabilities(self, logits: Logits) -> Probabilities:
        """Logits as probabilities, each task's at its temperature."""
        return {task.name: softmax(logits[task.name], task.temperature) for task in self.tasks}

    def sure_of_one(self, probabilities: Probabilities) -> bool:
        """Whether a single text goes no further."""
        if self.leaving is None:
            return True
        # In Python's floats, as `doubts`: a threshold rounded to float32 would be another one.
        return all(
            max(probabilities[task][0].tolist()) >= least for task, least in self.leaving.items()
        )

    def doubts(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        """How far each text is from leaving, `[n]`: above 0 it goes on, and the largest first."""
        if self.leaving is None:
            return np.zeros(len(next(iter(probabilities.values()))))
        worst: npt.NDArray[np.float64] = np.max(
            [least - probabilities[task].max(1).astype(np.float64)
             for task, least in self.leaving.items()], axis=0)  # fmt: skip
        return worst


@dataclass(frozen=True, slots=True)
class Answered:
    """Texts and what one stage says of them.

    Attributes:
        rows: the texts' positions in the call, `[n]`.
        logits, probabilities: by task, `[n, labels]`.
    """

    stage: Stage
    rows: Rows
    logits: Logits
    probabilities: Probabilities

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: npt.NDArray[np.int64]) -> Answered:
        """Some of them, by their position in here."""
        return Answered(
            self.stage,
            np.asarray(self.rows)[which],
            {name: values[which] for name, values in self.logits.items()},
            {name: values[which] for name, values in self.probabilities.items()},
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Texts that a stage is not sure of: its answer, their token ids and how they doubt, `[n]`."""

    answered: Answered
    ids: Sequence[Tokens]
    doubts: npt.NDArray[np.float64]


def answer_one(stages: Sequence[Stage], ids: Tokens, deadline: float | None = None) -> Answered:
    """What the first stage that is sure of a text says of it; arguments as of `answer`."""
    arrays = pad([ids])
    found: Answered | None = None
    for stage in stages:
        if found is not None and not _within(stage, [len(ids)], deadline):
            break
        logits = stage.run(*arrays)
        found = Answered(stage, range(1), logits, stage.probabilities(logits))
        if stage.sure_of_one(found.probabilities):
            break
    assert found is not None, "a bundle has a stage"
    return found


def answer(
    stages: Sequence[Stage], windows: Iterable[Sequence[Tokens]], deadline: float | None = None
) -> Iterator[Answered]:
    """Each text's answer by the first stage that is sure of it, in parts of one stage each.

    Args:
        stages: one or more, the cheapest first; the last answers all that reach it.
        windows: texts' token ids; positions count through all of them.
        deadline: of `time.perf_counter`, in seconds: no batch of a later stage begins that would
            end after it, and its texts keep their answer. Texts of all windows compete for it.

    Raises:
        OutOfMemoryError, EngineError: see `Stage.run`.
    """
    first, *deeper = stages
    waiting: list[Waiting] = []
    start = 0
    for ids in windows:
        done, rest = _run(first, ids, np.arange(start, start + len(ids)))
        yield done
        start += len(ids)
        if rest is None:
            continue
        if deadline is None:
            yield from _onward(deeper, [rest], None)
        else:  # an array takes a tenth of a list's memory
            ids = [np.asarray(tokens, np.int32) for tokens in rest.ids]
            waiting.append(Waiting(rest.answered, ids, rest.doubts))
    yield from _onward(deeper, waiting, deadline)


def _onward(
    stages: Sequence[Stage], waiting: Sequence[Waiting], deadline: float | None
) -> Iterator[Answered]:
    """Answers of texts that the stage before was not sure of."""
    for stage in stages:
        if not waiting:
            return
        line, waiting = _in_need(waiting), []
        lengths = [len(tokens) for tokens in line.ids]
        start = 0
        while start < len(lengths):
            most = len(lengths) if deadline is None else GROUP * stage.batch_tokens
            count = _within(stage, lengths[start : start + most], deadline)
            if not count:  # no time is left: these stay as they are
                yield line.answered.take(np.arange(start, len(lengths)))
                break
            part = slice(start, start + count)
            done, rest = _run(stage, line.ids[part], line.answered.rows[part])
            yield done
            if rest is not None:
                waiting.append(rest)
            start += count


def _within(stage: Stage, lengths: Sequence[int], deadline: float | None) -> int:
    """How many of the first texts to run together; 0: there is no time for any."""
    if deadline is None:
        return len(lengths)
    left = (deadline - time.perf_counter()) / HEADROOM
    count, room = 0, GROUP * stage.batch_tokens
    while count < len(lengths) and (not count or lengths[count] <= room):
        room -= lengths[count]
        count += 1
    if left <= 0 or _predicted(stage, lengths[:1]) > left:
        return 0
    if stage.pace is None or stage.pace.seconds(1) is None:
        return 1  # nothing is known, or no more: one text tells the least that a call takes
    if _predicted(stage, lengths[:count]) <= left:
        return count
    low = 1
    while count - low > 1:
        middle = (low + count) // 2
        if _predicted(stage, lengths[:middle]) <= left:
            low = middle
        else:
            count = middle
    return low


def _predicted(stage: Stage, lengths: Sequence[int]) -> float:
    """Seconds that texts of these lengths will take; 0 where nothing is known."""
    if stage.pace is None:
        return 0.0
    batches = plan(lengths, stage.batch_tokens, stage.engine.multiple)
    sizes = (len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return sum(stage.pace.seconds(size) or 0.0 for size in sizes)


def _in_need(waiting: Sequence[Waiting]) -> Waiting:
    """All of them as one, the least sure first."""
    if len(waiting) == 1:
        whole = waiting[0]
    else:
        parts = [one.answered for one in waiting]
        whole = Waiting(
            Answered(
                parts[0].stage,
                np.concatenate([part.rows for part in parts]),
                joined([part.logits for part in parts]),
                joined([part.probabilities for part in parts]),
            ),
            [tokens for one in waiting for tokens in one.ids],
            np.concatenate([one.doubts for one in waiting]),
        )
    order = np.argsort(-whole.doubts, kind="stable")
    ids = [whole.ids[position] for position in order.tolist()]
    return Waiting(whole.answered.take(order), ids, whole.doubts[order])


def _run(stage: Stage, ids: Sequence[Tokens], rows: Rows) -> tuple[Answered, Waiting | None]:
    """A stage on texts: those that it is sure of, and the others, if there are any."""
    logits = in_batches(stage.run, ids, stage.batch_tokens, stage.engine.multiple)
    whole = Answered(stage, rows, logits, stage.probabilities(logits))
    doubts = stage.doubts(whole.probabilities)
    on = np.flatnonzero(doubts > 0)
    if not len(on):
        return whole, None
    rest = Waiting(whole.take(on), [ids[position] for position in on.tolist()], doubts[on])
    return whole.take(np.flatnonzero(doubts <= 0)), rest


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
