"""Which texts share a batch: those of like length, as many as a token budget allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "Tokens", "in_batches", "joined", "pad", "plan", "rounded"]

Ids = npt.NDArray[np.int64]
Logits = Mapping[str, npt.NDArray[np.float32]]
Batch = list[int]
# A text's ids; where many are kept, an array takes a tenth of a list's memory.
Tokens = Sequence[int] | npt.NDArray[np.int32]

TOKENS_PER_BATCH = 4096


def rounded(tokens: int, multiple: int, most: int | None = None) -> int:
    """The next multiple, but not beyond `most` unless `tokens` is."""
    up = -(-tokens // multiple) * multiple
    return up if most is None else max(tokens, min(up, most))


def plan(
    lengths: Sequence[int], tokens_per_batch: int = TOKENS_PER_BATCH, multiple: int = 1
) -> Iterator[Batch]:
    """Group positions `0..n-1` into batches of like length, longest first.

    A batch's padded size, its count times its longest length, stays within `tokens_per_batch`
    unless a single text is longer than that. Longest first: the largest allocation comes first,
    and later batches fit into it.

    Args:
        multiple: what lengths are rounded up to. Where that is more than one, shapes are dear to
            change: a batch that is half full ends where the length does, so that most batches in a
            row have one shape.
    """
    padded = [rounded(length, multiple) for length in lengths]
    order = sorted(range(len(lengths)), key=padded.__getitem__, reverse=True)
    start = 0
    while start < len(order):
        longest = padded[order[start]]
        count = max(1, tokens_per_batch // max(1, longest))
        batch = order[start : start + count]
        if multiple > 1:
            alike = sum(padded[position] == longest for position in batch)
            if 2 * alike >= count:
                batch = batch[:alike]
        yield batch
        start += len(batch)


def pad(ids: Sequence[Tokens], multiple: int = 1, most: int | None = None) -> tuple[Ids, Ids]:
    """`input_ids` and `attention_mask`, both int64 `[batch, tokens]`, padded at the end.

    The padding id is 0, whatever the vocabulary: masked positions never reach a result.

    Args:
        multiple: that the number of tokens is rounded up to, though not beyond `most`.
    """
    lengths = [len(tokens) for tokens in ids]
    longest = rounded(max(lengths), multiple, most)
    if len(ids) == 1 and lengths[0] == longest:  # half the time, where it counts most
        return np.array(ids, np.int64), np.ones((1, longest), np.int64)
    input_ids = np.zeros((len(ids), longest), np.int64)
    real = np.arange(input_ids.shape[1]) < np.array(lengths)[:, np.newaxis]
    if isinstance(ids[0], np.ndarray):
        input_ids[real] = np.concatenate(ids)
    else:
        input_ids[real] = np.fromiter(chain.from_iterable(ids), np.int64, sum(lengths))
    return input_ids, real.astype(np.int64)


def in_batches(
    run: Callable[[Ids, Ids], Logits],
    ids: Sequence[Tokens],
    tokens_per_batch: int = TOKENS_PER_BATCH,
    multiple: int = 1,
) -> dict[str, npt.NDArray[np.float32]]:
    """Results `[n, ...]` by name of one or more texts, computed in batches of like length.

    Args:
        run: from `input_ids` and `attention_mask`, both `[batch, tokens]`, to `[batch, ...]` by
            name.
        ids: each text's token ids; results come in their order.
        tokens_per_batch, multiple: see `plan`.
    """
    if len(ids) == 1:
        return dict(run(*pad(ids)))
    order: list[int] = []
    parts: list[Logits] = []
    for batch in plan([len(tokens) for tokens in ids], tokens_per_batch, multiple):
        order += batch
        parts.append(run(*pad([ids[position] for position in batch])))
    back = np.argsort(order)
    return {name: values[back] for name, values in joined(parts).items()}


def joined(parts: Sequence[Logits]) -> dict[str, npt.NDArray[np.float32]]:
    """Results of one or more batches, one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
