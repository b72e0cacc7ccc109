"""How an encoder's word table is stored: rows for fewer tokens, and four bits a number.

A third of a small encoder's weights and more is its word table: of MiniLM's 23 MB in int8, 12.

    rows for fewer tokens    those that a corpus uses; all others read the row of the unknown token.
                             Exact for texts of these tokens.
    four bits a number       one scale a block of channels. Not exact.

Token ids keep their numbers, since tokenizer and n-gram tables go by them: a constant maps each to
its row. Both are made of the table in int8 when the encoder is quantized, so that its scales, and
so the answers to texts of the kept tokens, are those of the whole table to the bit.

    ONNX      Gather of the map, Cast; GatherBlockQuantized, of ONNX Runtime 1.22 and later
    OpenVINO  Gather of the map; its CPU engine gathers from int4 as it is stored, where it expands
              an int8 table to float32 when it loads the graph, so that memory is saved, too
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.batches.planning import Tokens
from mtl_edge.errors import OptionError

__all__ = ["BLOCK", "PLAIN", "WordTable", "in_4_bits", "share_kept", "used_tokens"]

BLOCK = 32  # channels that share a scale
BLOCKS = (16, 32, 64, 128)  # ONNX Runtime takes powers of two from 16 on
ROWS_AT_ONCE = 2048  # as many as fit a cache while their scales are searched for
# Scales to try for a block, as its largest number over these: a little more than the range is often
# better, as few numbers are cut off and all others lie finer. Both signs, since of the sixteen
# levels -8 to 7 one more is negative.
DIVISORS = np.array([s * d for d in np.linspace(6.5, 9.5, 13) for s in (-1, 1)], np.float32)

FloatArray = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class WordTable:
    """
    Attributes:
        kept: tokens that keep a row, special ones among them; none: all.
        unknown: the token whose row all others read, one of `kept`.
        four_bits: whether a number takes four bits, or else eight.
    """

    kept: frozenset[int] | None = None
    unknown: int = 0
    four_bits: bool = False

    @property
    def plain(self) -> bool:
        """Whether all rows stay, in int8."""
        return self.kept is None and not self.four_bits

    def rows(self, vocabulary: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.integer]]:
        """Tokens that keep a row, in order, and the row that each token reads, `[vocabulary]`.

        Raises:
            OptionError: `kept` has an id that the vocabulary lacks, or lacks the unknown token.
        """
        kept = np.array(sorted(range(vocabulary) if self.kept is None else self.kept), np.int64)
        if strange := [int(i) for i in kept if not 0 <= i < vocabulary]:
            raise OptionError(
                f"expected token ids from 0 to {vocabulary - 1}; got {strange[0]}: take them from "
                "the checkpoint's own tokenizer"
            )
        if self.unknown not in kept:
            raise OptionError(
                f"expected the unknown token, {self.unknown}, among the tokens to keep, as all "
                f"others read its row; got {len(kept)} without it: add the tokenizer's special "
                "tokens"
            )
        row_of_token = np.full(vocabulary, np.searchsorted(kept, self.unknown))
        row_of_token[kept] = np.arange(len(kept))
        return kept, row_of_token.astype(np.uint16 if len(kept) <= 2**16 else np.int32)


PLAIN = WordTable()


def used_tokens(texts_ids: Iterable[Tokens], always: Iterable[int] = ()) -> frozenset[int]:
    """Ids that occur in a corpus.

    Args:
        texts_ids: each text's token ids.
        always: ids that belong to it anyway: special tokens, the unknown and padding among them.
    """
    used = {int(token) for token in always}
    for tokens in texts_ids:
        used.update(map(int, tokens))
    return frozenset(used)


def share_kept(texts_ids: Iterable[Tokens], kept_ids: Collection[int]) -> float:
    """Share of a corpus' tokens that keep their rows: 1 for the one that `kept_ids` came from.

    Repeated tokens count as often as they occur; a corpus without any has lost nothing.
    """
    kept, total, known = set(kept_ids), 0, 0
    for tokens in texts_ids:
        total += len(tokens)
        known += sum(int(token) in kept for token in tokens)
    return known / total if total else 1.0


def in_4_bits(values: FloatArray, block: int = BLOCK) -> tuple[Codes, npt.NDArray[np.float16]]:
    """Codes from -8 to 7, `[rows, width]`, and scales, `[rows, width / block]`.

    The scale is that of least squared error (see `DIVISORS`): of MiniLM's table a tenth less than
    with the largest number's scale, which is what NNCF's `compress_weights` and ONNX Runtime's
    `MatMulNBitsQuantizer` take; it costs no byte.

    Raises:
        OptionError: `block` is not 16, 32, 64 or 128, or does not divide the width.
    """
    rows, width = values.shape
    if block not in BLOCKS or width % block:
        fits = [size for size in BLOCKS if width % size == 0]
        raise OptionError(
            f"expected a block of channels that divides the table's width, {width}; got {block}: "
            + (f"choose of {', '.join(map(str, fits))}" if fits else "leave this table in int8")
        )
    codes = np.empty((rows, width // block, block), np.int8)
    scales = np.empty((rows, width // block, 1), np.float16)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        codes[part], scales[part] = _best(values[part].reshape(-1, width // block, block))
    return codes.reshape(rows, width), scales[..., 0]


def _best(blocks: FloatArray) -> tuple[Codes, npt.NDArray[np.float16]]:
    """Codes and scales of least squared error, of blocks `[..., block]`."""
    places = np.abs(blocks).argmax(-1, keepdims=True)
    largest = np.take_along_axis(blocks, places, -1)
    best = np.zeros(largest.shape, np.float16)
    least = np.full(largest.shape, np.inf, np.float32)
    for divisor in DIVISORS:
        scale = (largest / divisor).astype(np.float16)
        error = np.square(_codes(blocks, scale) * scale.astype(np.float32) - blocks)
        total = error.sum(-1, keepdims=True)
        best = np.where(total < least, scale, best)
        least = np.minimum(total, least)
    return _codes(blocks, best).astype(np.int8), best


def _codes(blocks: FloatArray, scale: npt.NDArray[np.float16]) -> FloatArray:
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)  # a block of zeros
    codes: FloatArray = np.clip(np.rint(blocks / divisor), -8, 7)
    return codes
