"""Early exit: a cheap stage answers the texts that it is sure of, the next stage the rest.

Texts that go on are planned into batches anew. Under a deadline those with the lowest margins go
first, a few batches at a time, as long as the estimate of the next stage's latency says that there
is time; the others keep the answer that they have.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.batches.planning import Tokens, in_batches, joined, pad, plan
from mtl_edge.cascade.outputs import Rows, StageOutput
from mtl_edge.cascade.stage import Stage

__all__ = ["answer", "answer_one"]

# Under a deadline, full batches that are planned together: with fewer, texts run closer to the
# order of their margins; with more, there is less padding.
BATCHES_PLANNED = 4
# Latencies are scaled by this when a deadline is near: half of all batches take longer than
# estimated.
HEADROOM = 1.2


@dataclass(frozen=True, slots=True)
class Undecided:
    """Texts that a stage is not sure of.

    Attributes:
        output: the stage's answers, which stand if there is no time for the next stage.
        ids: each text's token ids.
        margins: below 0, `[n]`: see `Stage.margins`.
    """

    output: StageOutput
    ids: Sequence[Tokens]
    margins: npt.NDArray[np.float64]


def answer_one(stages: Sequence[Stage], ids: Tokens, deadline: float | None = None) -> StageOutput:
    """A single text's answer by the first stage that is sure of it; arguments as of `answer`."""
    arrays = pad([ids])
    found: StageOutput | None = None
    for stage in stages:
        if found is not None and not _fitting(stage, [len(ids)], deadline):
            break
        logits = stage.run(*arrays)
        found = StageOutput(stage, range(1), logits, stage.probabilities(logits))
        if stage.exits(found.probabilities):
            break
    assert found is not None, "a bundle has a stage"
    return found


def answer(
    stages: Sequence[Stage], windows: Iterable[Sequence[Tokens]], deadline: float | None = None
) -> Iterator[StageOutput]:
    """Each text's answer by the first stage that is sure of it, in parts of one stage each.

    Args:
        stages: one or more, the cheapest first; the last answers every text that reaches it.
        windows: texts' token ids; positions count through all windows.
        deadline: of `time.perf_counter`, in seconds: no batch of a later stage begins that would
            end after it, and its texts keep their answer. Texts of all windows compete for the
            time.

    Raises:
        OutOfMemoryError, EngineError: see `Stage.run`.
    """
    first, *deeper = stages
    waiting: list[Undecided] = []
    start = 0
    for ids in windows:
        done, undecided = _run(first, ids, np.arange(start, start + len(ids)))
        yield done
        start += len(ids)
        if undecided is None:
            continue
        if deadline is None:
            yield from _deepen(deeper, [undecided], None)
        else:  # an array takes a tenth of a list's memory
            ids = [np.asarray(tokens, np.int32) for tokens in undecided.ids]
            waiting.append(Undecided(undecided.output, ids, undecided.margins))
    yield from _deepen(deeper, waiting, deadline)


def _deepen(
    stages: Sequence[Stage], waiting: Sequence[Undecided], deadline: float | None
) -> Iterator[StageOutput]:
    """Run the later stages on texts that the stage before was not sure of."""
    for stage in stages:
        if not waiting:
            return
        queue, waiting = _by_margin(waiting), []
        lengths = [len(tokens) for tokens in queue.ids]
        start = 0
        while start < len(lengths):
            most = len(lengths) if deadline is None else BATCHES_PLANNED * stage.batch_tokens
            count = _fitting(stage, lengths[start : start + most], deadline)
            if not count:  # no time is left: these keep their answers
                yield queue.output.take(np.arange(start, len(lengths)))
                break
            part = slice(start, start + count)
            done, undecided = _run(stage, queue.ids[part], queue.output.rows[part])
            yield done
            if undecided is not None:
                waiting.append(undecided)
            start += count


def _fitting(stage: Stage, lengths: Sequence[int], deadline: float | None) -> int:
    """How many of the first texts to run together before the deadline; 0: no time for any."""
    if deadline is None:
        return len(lengths)
    left = (deadline - time.perf_counter()) / HEADROOM
    count, room = 0, BATCHES_PLANNED * stage.batch_tokens
    while count < len(lengths) and (not count or lengths[count] <= room):
        room -= lengths[count]
        count += 1
    if left <= 0 or _estimated(stage, lengths[:1]) > left:
        return 0
    if stage.latency is None or stage.latency.seconds(1) is None:
        return 1  # no estimate, or none any more: one text tells the least that a call takes
    if _estimated(stage, lengths[:count]) <= left:
        return count
    low = 1
    while count - low > 1:
        middle = (low + count) // 2
        if _estimated(stage, lengths[:middle]) <= left:
            low = middle
        else:
            count = middle
    return low


def _estimated(stage: Stage, lengths: Sequence[int]) -> float:
    """Seconds that texts of these lengths will take; 0 where there is no estimate."""
    if stage.latency is None:
        return 0.0
    batches = plan(lengths, stage.batch_tokens, stage.engine.multiple)
    sizes = (len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return sum(stage.latency.seconds(size) or 0.0 for size in sizes)


def _by_margin(waiting: Sequence[Undecided]) -> Undecided:
    """All texts in one, the lowest margin first."""
    if len(waiting) == 1:
        whole = waiting[0]
    else:
        outputs = [part.output for part in waiting]
        whole = Undecided(
            StageOutput(
                outputs[0].stage,
                np.concatenate([output.rows for output in outputs]),
                joined([output.logits for output in outputs]),
                joined([output.probabilities for output in outputs]),
            ),
            [tokens for part in waiting for tokens in part.ids],
            np.concatenate([part.margins for part in waiting]),
        )
    order = np.argsort(whole.margins, kind="stable")
    ids = [whole.ids[position] for position in order.tolist()]
    return Undecided(whole.output.take(order), ids, whole.margins[order])


def _run(stage: Stage, ids: Sequence[Tokens], rows: Rows) -> tuple[StageOutput, Undecided | None]:
    """A stage on texts: those that exit there, and the others, if there are any."""
    logits = in_batches(stage.run, ids, stage.batch_tokens, stage.engine.multiple)
    whole = StageOutput(stage, rows, logits, stage.probabilities(logits))
    margins = stage.margins(whole.probabilities)
    below = np.flatnonzero(margins < 0)
    if not len(below):
        return whole, None
    ids = [ids[position] for position in below.tolist()]
    undecided = Undecided(whole.take(below), ids, margins[below])
    return whole.take(np.flatnonzero(margins >= 0)), undecided
