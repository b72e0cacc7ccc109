"""`Limits`: how many texts, bytes and tokens one call may bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from mtl_edge.errors import LimitError, OptionError

__all__ = ["Limits"]

MOST_BYTES_A_CHARACTER = 4  # in UTF-8


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on input, for apps that take texts from strangers.

    Time and memory of a call grow with the bytes that are tokenized and with the tokens that are
    run: a text is cut at `tokens`, and refused beyond `text_bytes`.

    Attributes:
        text_bytes: of one text in UTF-8.
        texts: in one call; a stream may have any number.
        total_bytes: of all texts in one call; a stream may have any number.
        tokens: of one text, special ones included; longer texts are cut. None: what the graph
            takes.
        batch_tokens: tokens in a batch, padding included; a single text may have more. None: what
            is fastest with the engine.

    Raises:
        OptionError: a limit is no integer, or too small to let anything through.
    """

    text_bytes: int = 2**20
    texts: int = 10**6
    total_bytes: int = 2**30
    tokens: int | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 3 if field.name == "tokens" else 1  # a token between the two special ones
            if value is None and field.default is None:
                continue
            if not isinstance(value, int) or value < least:
                raise OptionError(
                    f"limit {field.name} is {value!r}, expected an integer, {least} or more"
                )

    def check(self, texts: Sequence[str], first: int = 0, *, stream: bool = False) -> None:
        """Refuse texts beyond the limits.

        Args:
            first: position of the first one, where they are part of a longer stream.
            stream: whether they are: then their number and their bytes in all are free.

        Raises:
            LimitError: a text or all of them are too large, or there are too many.
        """
        if len(texts) > self.texts and not stream:
            raise LimitError(
                f"{len(texts):,} or more texts in one call, at most {self.texts:,} are allowed; "
                "use predict_iter, or raise Limits.texts"
            )
        characters = sum(map(len, texts))
        # Mostly that is little enough whatever the characters, and bytes need not be counted.
        if MOST_BYTES_A_CHARACTER * characters <= min(self.text_bytes, self.total_bytes):
            return
        if found := self.too_large(texts):
            position, size = found
            raise LimitError(
                f"item {first + position} has {size:,} bytes, at most {self.text_bytes:,} are "
                "allowed; cut it, or raise Limits.text_bytes"
            )
        if stream:
            return
        total = sum(map(_bytes, texts))
        if total > self.total_bytes:
            raise LimitError(
                f"the texts have {total:,} bytes, at most {self.total_bytes:,} are allowed in one "
                "call; use predict_iter, or raise Limits.total_bytes"
            )

    def too_large(self, texts: Sequence[str | None]) -> tuple[int, int] | None:
        """Position and size of the first text of more than `text_bytes`; None if there is none."""
        for position, text in enumerate(texts):
            if text is None or MOST_BYTES_A_CHARACTER * len(text) <= self.text_bytes:
                continue
            if (size := _bytes(text)) > self.text_bytes:
                return position, size
        return None


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
