"""Files of a space: shards of states, each with an index of its texts."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mtl_edge.batches.planning import Tokens, plan
from mtl_edge.errors import BackboneError
from mtl_edge.training.progress import Progress
from mtl_edge.training.states.encoder import DIGEST_BYTES, Encoder, Kind, Values
from mtl_edge.training.states.texts import States

__all__ = [
    "SHARD_BYTES",
    "ShardIndex",
    "StateTooLargeError",
    "grouped",
    "key_of",
    "remove_partial",
    "write_shard",
]

SHARD_BYTES = 64 * 10**6
INDEX = np.dtype([("key", f"V{DIGEST_BYTES}"), ("start", np.int64), ("length", np.int32)])
PARTIAL = ".partial"
DAY = 24 * 60 * 60


class StateTooLargeError(Exception):
    """A state that float16 does not hold."""


class ShardIndex:
    """Where each text of a space is.

    Attributes:
        kind: of the numbers in it; float32 once any shard took that.
    """

    kind: Kind = np.float16

    def __init__(self, folder: Path) -> None:
        self._shards: list[Values] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        for file in sorted(folder.glob("*.index.npy")):
            self._add(file)

    def _add(self, file: Path) -> None:
        """Add a shard, or delete one that was damaged: it will be computed again."""
        values = file.with_name(file.name.replace(".index.npy", ".npy"))
        try:
            index = np.load(file, allow_pickle=False)
            shard = np.load(values, mmap_mode="r", allow_pickle=False)
            if shard.dtype not in (np.float16, np.float32):
                raise ValueError(f"its numbers are {shard.dtype}")
            if index.dtype != INDEX or len(shard) != index["length"].sum():
                raise ValueError("index and values do not belong together")
        except (OSError, ValueError, EOFError) as error:
            print(f"note: {values} is damaged ({error}); computed again", file=sys.stderr)
            file.unlink(missing_ok=True)
            values.unlink(missing_ok=True)
            return
        for key, start, _ in index.tolist():
            self._places[key] = (len(self._shards), start)
        if shard.dtype == np.float32:
            self.kind = np.float32
        self._shards.append(shard)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def select(self, keys: Sequence[bytes], ids: Sequence[Tokens]) -> States:
        owners, starts = zip(*(self._places[key] for key in keys), strict=True)
        return States(self._shards, owners, starts, ids)


def remove_partial(folder: Path) -> None:
    """Remove what runs killed more than a day ago left half written."""
    for file in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):  # another run may be cleaning too
            if time.time() - file.stat().st_mtime > DAY:
                file.unlink()


def key_of(tokens: Tokens) -> bytes:
    ids = np.asarray(tokens, np.int32).tobytes()
    return hashlib.blake2b(ids, digest_size=DIGEST_BYTES).digest()


def grouped(missing: dict[bytes, Tokens], tokens: int) -> Iterator[list[bytes]]:
    """Keys in groups of about so many tokens, those of like length together, longest first."""
    shard: list[bytes] = []
    size = 0
    for key in sorted(missing, key=lambda k: len(missing[k]), reverse=True):
        if shard and size + len(missing[key]) > tokens:
            yield shard
            shard, size = [], 0
        shard.append(key)
        size += len(missing[key])
    yield shard


def write_shard(
    folder: Path,
    keys: Sequence[bytes],
    texts: Sequence[Tokens],
    encoder: Encoder,
    excerpt: Callable[[Tokens], str],
    progress: Progress,
) -> None:
    """Compute one shard and put it in place.

    Raises:
        BackboneError, StateTooLargeError: a state is no number, or none of the encoder's kind.
    """
    lengths = [len(tokens) for tokens in texts]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    index = np.array(list(zip(keys, starts, lengths, strict=False)), INDEX)
    name = secrets.token_hex(8)
    files = [folder / f"{name}.npy", folder / f"{name}.index.npy"]
    partial = [file.with_name(file.name + PARTIAL) for file in files]
    shape = (int(starts[-1]), encoder.states, encoder.width)
    try:
        values = np.lib.format.open_memmap(partial[0], "w+", encoder.kind, shape)
        for batch in plan(lengths):
            found = encoder.encode([texts[p] for p in batch])
            for position, states in zip(batch, found, strict=True):
                start, own = starts[position], states[: lengths[position]]
                if not np.isfinite(own).all():
                    if encoder.kind is np.float16:
                        raise StateTooLargeError
                    raise BackboneError(
                        "the encoder's states are no numbers (NaN or infinite) for the text "
                        f"{excerpt(texts[position])}; take another backbone, or the text away"
                    )
                values[start : start + lengths[position]] = own
            progress.update(sum(lengths[position] for position in batch))
        values.flush()
        del values
        with partial[1].open("wb") as file:
            np.save(file, index)
        for source, target in zip(partial, files, strict=True):
            source.rename(target)
    finally:
        for file_ in partial:
            file_.unlink(missing_ok=True)
