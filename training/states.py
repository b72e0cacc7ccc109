"""Encoder states, computed once and kept on disk.

A frozen encoder gives the same states for the same tokens, whatever is learnt from them, so they
are kept in a cache that all runs share:

    CACHE/SPACE/ID.npy        values: float16 or float32 [tokens, layers + 1, width]
    CACHE/SPACE/ID.index.npy  texts in it: 16 bytes of key, first row, number of rows

SPACE is a digest of everything besides the tokens that decides the states: weights, configuration,
precision, attention; or the quantized graph. A text's key is a digest of its token ids, and so of
text, tokenizer and maximum tokens. A shard is written under another name, then renamed, its index
last: a killed run loses the shard it was at and a later one goes on from there; two runs at once
never write to the same file, at worst both compute the same shard. States are read through a memory
map, so a corpus may be larger than memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_edge.batches.planning import Tokens, pad, plan
from mtl_edge.choosing.machine import cache_folder
from mtl_edge.errors import BackboneError, OptionError
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.model import states_of
from mtl_edge.training.progress import Progress

__all__ = [
    "Encoder",
    "Kind",
    "StateCache",
    "States",
    "Values",
    "default_cache",
    "device",
    "digest",
]

Values = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Kind = type[np.float16] | type[np.float32]

SHARD_BYTES = 64 * 10**6
KEY_BYTES = 16
SPACE = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")
INDEX = np.dtype([("key", f"V{KEY_BYTES}"), ("start", np.int64), ("length", np.int32)])
PARTIAL = ".partial"
DAY = 24 * 60 * 60


def default_cache() -> Path:
    """`$MTL_EDGE_CACHE`, or the user's cache folder."""
    given = os.environ.get("MTL_EDGE_CACHE")
    # Without a home folder: a place that no folder can be made in, so that one has to be named.
    return Path(given) if given else (cache_folder() or Path(os.devnull)) / "states"


class _TooLargeError(Exception):
    """A state that float16 does not hold."""


class Encoder(Protocol):
    """What computes states.

    Attributes:
        space: digest of everything besides the tokens that decides them.
        states: of a token: the embeddings' and one per layer.
        width: of a state.
        kind: that its numbers shall have.
    """

    space: str
    states: int
    width: int
    kind: Kind

    def encode(self, texts: Sequence[Tokens]) -> Values:
        """States `[batch, tokens, states, width]`, infinite where their kind is too small.

        Those of padding may be anything.
        """
        ...


class TorchEncoder:
    """A backbone in torch."""

    kind: Kind = np.float16

    def __init__(self, backbone: Backbone) -> None:
        self._encoder = backbone.encoder
        self._precision = _precision()
        self.states = backbone.depth + 1
        self.width = backbone.width
        options = backbone.encoder.config.to_dict()
        for name in ("transformers_version", "_name_or_path"):  # of no consequence for the states
            options.pop(name, None)
        options_text = json.dumps(options, sort_keys=True, default=str)
        self.space = digest(backbone.info.sha256, options_text, str(self._precision))

    @torch.inference_mode()
    def encode(self, texts: Sequence[Tokens]) -> Values:
        input_ids, mask = (torch.from_numpy(array).to(device()) for array in pad(texts))
        encoder = self._encoder.to(device())  # type: ignore[arg-type]
        precise = self._precision == torch.float32
        with torch.autocast(device().type, self._precision, enabled=not precise):
            states = states_of(encoder, input_ids, mask)
        to = torch.float16 if self.kind is np.float16 else torch.float32
        result: Values = torch.stack([s.to(to) for s in states], 2).cpu().numpy()
        return result


def digest(*parts: str) -> str:
    """A name for a space; `finite`, as earlier releases kept infinities under other names."""
    text = "\0".join(("finite", *parts))
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


class States:
    """Every layer's states of every token of many texts.

    Text `i` has `lengths[i]` rows from `starts[i]` of the array `shards[owners[i]]`, which is
    float16 `[tokens, layers + 1, width]`; ten bits of fraction keep what heads can tell apart.
    Where a state is beyond 65,504, the most that float16 holds, it is float32. `ids[i]` are its
    tokens.

    Attributes:
        alone: float32 `[vocabulary, width]`, what heads without layers read in the place of the
            embeddings' states: see `mtl_edge.training.static`; none: those states themselves.
    """

    def __init__(
        self,
        shards: Sequence[Values],
        owners: Sequence[int],
        starts: Sequence[int],
        ids: Sequence[Tokens],
    ) -> None:
        self.alone: Tensor | None = None
        self._shards = shards
        self._owners = np.asarray(owners, np.int32)
        self._starts = np.asarray(starts, np.int64)
        self._ids = [np.asarray(tokens, np.int32) for tokens in ids]
        self.lengths = np.array([len(tokens) for tokens in self._ids], np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, position: int) -> Values:
        """One text's states, `[tokens, layers + 1, width]`."""
        start = self._starts[position]
        shard = self._shards[self._owners[position]]
        values: Values = shard[start : start + self.lengths[position]]
        return values

    def batch(
        self,
        positions: Sequence[int],
        states: int | None = None,
        place: torch.device | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """What a head takes: states of the first `states` layers, embeddings included, and tokens.

        Args:
            place: where the tensors shall be; default: the CPU.

        Returns:
            One float32 `[batch, tokens, width]` a layer; the mask, float32 `[batch, tokens]`; the
            tokens' ids, int64 of the same shape.
        """
        arrays = pad([self._ids[position] for position in positions])
        ids, mask = (torch.from_numpy(array).to(place) for array in arrays)
        mask = mask.float()
        if states == 1 and self.alone is not None:
            return self.read_by(1, (), ids), mask, ids
        texts = [self.of(position)[:, :states] for position in positions]
        kind = np.result_type(*{text.dtype for text in texts})
        padded = np.zeros((*ids.shape, *texts[0].shape[1:]), kind)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        layers = torch.from_numpy(padded).to(place).permute(2, 0, 1, 3).float().unbind(0)
        return layers, mask, ids

    def read_by(self, states: int, layers: tuple[Tensor, ...], ids: Tensor) -> tuple[Tensor, ...]:
        """What a head of so many states reads of a batch that has as many or more."""
        if states == 1 and self.alone is not None:
            return (nn.functional.embedding(ids, self.alone.to(ids.device)),)
        return layers[:states]

    def means(self, positions: Sequence[int], depth: int) -> npt.NDArray[np.float32]:
        """The mean over tokens of a model's last layer, `[positions, width]`: what most would pool.

        Args:
            depth: how many layers the model has.
        """
        if depth == 0 and self.alone is not None:
            table = self.alone.cpu().numpy()
            return np.stack([table[self._ids[p]].mean(0) for p in positions])
        return np.stack([self.of(p)[:, depth].mean(0, dtype=np.float32) for p in positions])


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
            without_layers: whether heads of depth 0 will read of them, too.
        """
        states = self.of(TorchEncoder(backbone), ids, backbone.shown)
        if without_layers and backbone.depth:
            states.alone = backbone.truncated(0).vectors
        return states

    def of(
        self,
        encoder: Encoder,
        ids: Sequence[Tokens],
        shown: Callable[[Tokens], str] = lambda tokens: f"of the token ids {[*tokens][:20]}",
    ) -> States:
        """States of texts given as token ids; those that are not there yet are computed.

        Args:
            shown: what to call a text of these tokens in an error.

        Raises:
            BackboneError: a state is no number.
            OptionError: what has to be added is over the limit, or over the free space.
        """
        folder = self._root / encoder.space
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # it is another user's
            os.utime(folder)  # the time of last use, by which spaces are evicted
        _clean(folder)
        keys = [_key(tokens) for tokens in ids]
        known = _Index(folder)
        for encoder.kind in dict.fromkeys((known.kind, np.float32)):
            missing = {k: t for k, t in zip(keys, ids, strict=True) if k not in known}
            if not missing:
                break
            with contextlib.suppress(_TooLargeError):
                self._add(folder, missing, encoder, shown)
            known = _Index(folder)
        return known.select(keys, ids)

    def _add(
        self,
        folder: Path,
        missing: dict[bytes, Tokens],
        encoder: Encoder,
        shown: Callable[[Tokens], str],
    ) -> None:
        width = np.dtype(encoder.kind).itemsize * encoder.states * encoder.width
        tokens = sum(map(len, missing.values()))
        self._make_room(folder, tokens * width)
        with Progress("encoding", total=tokens, unit="tokens") as progress:
            for keys in _shards(missing, SHARD_BYTES // width):
                texts = [missing[key] for key in keys]
                _write(folder, keys, texts, encoder, shown, progress)

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


class _Index:
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


def _clean(folder: Path) -> None:
    """Remove what runs killed more than a day ago left half written."""
    for file in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):  # another run may be cleaning too
            if time.time() - file.stat().st_mtime > DAY:
                file.unlink()


def _key(tokens: Tokens) -> bytes:
    ids = np.asarray(tokens, np.int32).tobytes()
    return hashlib.blake2b(ids, digest_size=KEY_BYTES).digest()


def _shards(missing: dict[bytes, Tokens], tokens: int) -> Iterator[list[bytes]]:
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


def _write(
    folder: Path,
    keys: Sequence[bytes],
    texts: Sequence[Tokens],
    encoder: Encoder,
    shown: Callable[[Tokens], str],
    progress: Progress,
) -> None:
    """Compute one shard and put it in place.

    Raises:
        BackboneError, _TooLargeError: a state is no number, or none of the encoder's kind.
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
                        raise _TooLargeError
                    raise BackboneError(
                        "the encoder's states are no numbers (NaN or infinite) for the text "
                        f"{shown(texts[position])}; take another backbone, or the text away"
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


def device() -> torch.device:
    """Where training runs: on a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _precision() -> torch.dtype:
    """bfloat16 where the hardware multiplies it; emulation would be slower than float32."""
    if device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.npy*"):
        with contextlib.suppress(FileNotFoundError):  # another run may have evicted it meanwhile
            total += file.stat().st_size
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
