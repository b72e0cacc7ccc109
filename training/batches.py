"""Batches of training rows: within one task, and across tasks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import Task

__all__ = ["MIXES", "DescribeRow", "Labelled", "batches_of", "endless", "mixed"]

BATCHES_SORTED_TOGETHER = 16

# A row as a user knows it, from its task, the position of its text, and its target.
DescribeRow = Callable[[str, int, Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled rows as numbers.

    Attributes:
        task: that the labels are of.
        rows: positions of the texts among those of the run.
        targets: see `mtl_edge.training.kinds`.
    """

    task: Task
    rows: Sequence[int]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: Labelled) -> Labelled:
        targets = [self.targets, other.targets]
        if targets[0].ndim != targets[1].ndim:  # one has soft labels
            targets = [_as_shares(one, self.task.outputs) for one in targets]
        return Labelled(self.task, [*self.rows, *other.rows], np.concatenate(targets))

    def take(self, which: npt.NDArray[np.int64]) -> Labelled:
        """Some of the rows, by their positions in here."""
        return Labelled(self.task, [self.rows[i] for i in which.tolist()], self.targets[which])


def _as_shares(targets: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
    return targets if targets.ndim > 1 else np.eye(labels, dtype=np.float32)[targets]


def batches_of(lengths: Sequence[int], size: int, generator: random.Random) -> Iterator[list[int]]:
    """Shuffled positions in batches, those of like length together so that little is padding."""
    order = list(range(len(lengths)))
    generator.shuffle(order)
    span = size * BATCHES_SORTED_TOGETHER
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span], key=lengths.__getitem__)
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    generator.shuffle(batches)
    return iter(batches)


def endless(lengths: Sequence[int], size: int, generator: random.Random) -> Iterator[list[int]]:
    """`batches_of`, epoch after epoch."""
    while True:
        yield from batches_of(lengths, size, generator)


# Each takes the tasks' numbers of rows, the temperature and a generator, and gives tasks' positions
# without end.
Mix = Callable[[Sequence[int], float, random.Random], Iterator[int]]


def _sampled(shares: Sequence[float], generator: random.Random) -> Iterator[int]:
    places = range(len(shares))
    while True:
        yield from generator.choices(places, shares)


# Proportional and temperature mixing are those of Raffel et al. 2020 (arXiv:1910.10683, 3.5.2);
# drawing tasks by their rows goes back to Sanh et al. 2018 (arXiv:1811.06031), and taking them in
# turns to Dong et al. 2015.
MIXES: Mapping[str, Mix] = {
    "proportional": lambda rows, _, generator: _sampled(rows, generator),
    "temperature": lambda rows, temperature, generator: _sampled(
        [count ** (1 / temperature) for count in rows], generator
    ),
    "uniform": lambda rows, _, generator: _sampled([1.0] * len(rows), generator),
    "round-robin": lambda rows, _, __: itertools.cycle(range(len(rows))),
}


def mixed(
    train: Mapping[str, Labelled],
    lengths: Sequence[int],
    size: int,
    mix: str,
    temperature: float,
    seed: int,
) -> Iterator[tuple[str, list[int]]]:
    """A task and positions among its rows, without end.

    Args:
        lengths: of all texts, which `train` refers to.
        mix: an entry of `MIXES`.
        temperature: of `temperature`: a task's share of the steps is proportional to
            rows ** (1 / temperature).
    """
    generator = random.Random(seed)
    tasks = list(train)
    streams = [endless([lengths[r] for r in train[t].rows], size, generator) for t in tasks]
    for place in MIXES[mix]([len(train[t]) for t in tasks], temperature, generator):
        yield tasks[place], next(streams[place])
