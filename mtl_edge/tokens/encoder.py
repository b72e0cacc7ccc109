"""Texts to token ids, the same way in training, export and runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from mtl_edge.bundle.safe_files import altered
from mtl_edge.io.in_memory import valid_texts
from mtl_edge.tokens.tokenizer_file import encoded, read_tokenizer, unknown_of
from mtl_edge.tokens.word_cache import word_cache_for

__all__ = ["TextEncoder"]


class TextEncoder:
    """Texts to token ids: a `tokenizers` tokenizer, truncating at `max_tokens`, without padding."""

    def __init__(
        self, tokenizer: Tokenizer, max_tokens: int, vocabulary: int | None = None
    ) -> None:
        """
        Args:
            vocabulary: number of tokens that the graph has embeddings of; others become the
                tokenizer's unknown token. None: not checked.

        Raises:
            BundleError: a special token around each text is beyond the vocabulary.
        """
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)  # on the right, whatever its file says
        around = encoded(tokenizer, [""])[0].ids
        if vocabulary is not None and max(around, default=0) >= vocabulary:
            raise altered(f"the tokenizer has more tokens than the {vocabulary} of the graph")
        self._tokenizer = tokenizer
        self._ids_of_empty = None if around else [unknown_of(tokenizer) or 0]
        self._cache = word_cache_for(tokenizer, max_tokens)
        self.max_tokens = max_tokens
        self._vocabulary = vocabulary

    @classmethod
    def from_file(cls, path: Path, max_tokens: int, vocabulary: int | None = None) -> TextEncoder:
        """
        Raises:
            BundleError: the file is not a tokenizer that the `tokenizers` library can read, or one
                that could make gigabytes of a short text.
        """
        return cls(read_tokenizer(path, max_tokens), max_tokens, vocabulary)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, at least one and at most `max_tokens`.

        Raises:
            BundleError: a token of the text is unknown to the graph, and there is none to stand for
                it.
            TextError: an item is not a string.
        """
        return self.ids(valid_texts(texts))

    def ids(self, texts: list[str]) -> list[list[int]]:
        """The same for texts that `valid_texts` returned."""
        if self._cache is not None:
            result = self._cache.ids(texts)
        else:
            result = [e.ids for e in encoded(self._tokenizer, texts)]
        # Not every engine refuses an id or a length that its tables do not have.
        if any(len(ids) > self.max_tokens for ids in result):
            raise altered(f"the tokenizer makes more than {self.max_tokens} tokens of a text")
        if self._ids_of_empty is not None:
            result = [ids or self._ids_of_empty for ids in result]
        if self._vocabulary is not None and any(
            ids and max(ids) >= self._vocabulary for ids in result
        ):
            result = [self._known(ids, self._vocabulary) for ids in result]
        return result

    def _known(self, ids: list[int], vocabulary: int) -> list[int]:
        """The same with the unknown token in place of ids beyond the graph's vocabulary."""
        unknown = unknown_of(self._tokenizer)
        if unknown is None or unknown >= vocabulary:
            raise altered(
                f"the tokenizer has more tokens than the {vocabulary} of the graph, and no unknown "
                "token to stand for them"
            )
        return [token if token < vocabulary else unknown for token in ids]

    def to_json(self) -> str:
        """The tokenizer with its truncation, as `save` writes it."""
        text: str = self._tokenizer.to_str(pretty=True)
        return text

    def save(self, path: Path) -> None:
        """Write the tokenizer with its truncation."""
        path.write_text(self.to_json(), encoding="utf-8")

    def ids_and_truncated(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each text, and how many texts are longer than `max_tokens`."""
        encodings = encoded(self._tokenizer, valid_texts(texts))
        ids = [e.ids or self._ids_of_empty or [] for e in encodings]
        return ids, sum(bool(e.overflowing) for e in encodings)
