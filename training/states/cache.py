"""The cache of states on disk: found, computed where missing, and kept within a limit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mtl_edge.batches.planning import Tokens
from mtl_edge.choosing.machine import cache_folder
from mtl_edge.errors import OptionError
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.progress import Progress
from mtl_edge.training.states.encoder import DIGEST_BYTES, Encoder, TorchEncoder
from mtl_edge.training.states.shards import (
    SHARD_BYTES,
    ShardIndex,
    StateTooLargeError,
    grouped,
    key_of,
    remove_partial,
    write_shard,
)
from mtl_edge.training.states.texts import States

__all__ = ["CACHE_LIMIT", "StateCache", "default_cache"]

CACHE_LIMIT = 20 * 10**9  # bytes
SPACE = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


def default_cache() -> Path:
    """`$MTL_EDGE_CACHE`, or the user's cache folder."""
    given = os.environ.get("MTL_EDGE_CACHE")
    # Without a home folder: a place that no folder can be made in, so that one has to be named.
    return Path(given) if given else (cache_folder() or Path(os.devnull)) / "states"


class StateCache:
    """States on disk, shared by all runs of a user.

    Args:
        root: holds the spaces of all backbones.
        limit: bytes that all of it may take; spaces not used for longest go first.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit

    def states(
        self, backbone: Backbone, ids: Sequence[Tokens], *, without_layers: bool = False
    ) -> States:
        """States that torch computes: see `of`.

        Args:
            without_layers: whether heads of depth 0 will read them, too.
        """
        states = self.of(TorchEncoder(backbone), ids, backbone.excerpt)
        if without_layers and backbone.depth:
            states.token_vectors = backbone.truncated(0).vectors
        return states

    def of(
        self,
        encoder: Encoder,
        ids: Sequence[Tokens],
        excerpt: Callable[[Tokens], str] = lambda tokens: f"of the token ids {[*tokens][:20]}",
    ) -> States:
        """States of texts given as token ids; those that are not there yet are computed.

        Args:
            excerpt: what to call a text of these tokens in an error.

        Raises:
            BackboneError: a state is no number.
            OptionError: what has to be added is over the limit, or over the free space.
        """
        folder = self._root / encoder.space
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # it is another user's
            os.utime(folder)  # the time of last use, by which spaces are evicted
        remove_partial(folder)
        keys = [key_of(tokens) for tokens in ids]
        known = ShardIndex(folder)
        for encoder.kind in dict.fromkeys((known.kind, np.float32)):
            missing = {k: t for k, t in zip(keys, ids, strict=True) if k not in known}
            if not missing:
                break
            with contextlib.suppress(StateTooLargeError):
                self._add(folder, missing, encoder, excerpt)
            known = ShardIndex(folder)
        return known.select(keys, ids)

    def _add(
        self,
        folder: Path,
        missing: dict[bytes, Tokens],
        encoder: Encoder,
        excerpt: Callable[[Tokens], str],
    ) -> None:
        width = np.dtype(encoder.kind).itemsize * encoder.states * encoder.width
        tokens = sum(map(len, missing.values()))
        self._make_room(folder, tokens * width)
        with Progress("encoding", total=tokens, unit="tokens") as progress:
            for keys in grouped(missing, SHARD_BYTES // width):
                texts = [missing[key] for key in keys]
                write_shard(folder, keys, texts, encoder, excerpt, progress)

    def _make_room(self, folder: Path, needed: int) -> None:
        """Evict other spaces until `needed` bytes more are within the limit and on the disk."""
        own = _size(folder)
        if own + needed > self._limit:
            raise OptionError(
                f"the states of these texts take {_gb(own + needed)}, and the cache {self._root} "
                f"may take {_gb(self._limit)}; raise --cache-limit, lower --max-tokens, or give "
                "fewer rows"
            )
        # Only spaces: the folder may be one that holds other things too, as $MTL_EDGE_CACHE does.
        others = [s for s in self._root.iterdir() if SPACE.fullmatch(s.name) and s != folder]
        for space in sorted(others, key=lambda s: s.stat().st_mtime):
            if _size(self._root) + needed <= self._limit:
                break
            print(f"note: cached states in {space} make room", file=sys.stderr)
            shutil.rmtree(space, ignore_errors=True)
        free = shutil.disk_usage(self._root).free
        if needed > free:
            raise OptionError(
                f"the states of these texts take {_gb(needed)}, and {self._root} has {_gb(free)} "
                "free; make room there or set MTL_EDGE_CACHE to a folder on another disk"
            )


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.npy*"):
        with contextlib.suppress(FileNotFoundError):  # another run may have evicted it meanwhile
            total += file.stat().st_size
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
