"""Streams: so many items at a time, the next ones prepared while the last are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["ahead", "windows"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one of what is left."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
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
