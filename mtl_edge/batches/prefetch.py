"""Prefetch: a stream in windows, the next one prepared while the last is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["prefetched", "windows"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last list may be shorter."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def prefetched(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)`, in a thread that is one item ahead of whoever takes the results.

    Items are drawn in the caller's thread. Closing the iterator waits for the item in work.
    """
    from concurrent.futures import ThreadPoolExecutor  # for streams alone: 10 ms to import

    with ThreadPoolExecutor(1, thread_name_prefix="mtl-edge") as pool:
        pending = None
        for item in items:
            following = pool.submit(work, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
