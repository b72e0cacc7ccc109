"""A cache of token ids by word, so that most words of a text cost one look-up.

The words of a language are few, and a tokenizer of BERT's kind reads each by itself: it splits a
text at spaces and punctuation before all else. With the cache, a text's ids take a quarter of what
the library's own call for batches takes on two cores (`pytest benchmarks/micro -k tokenize`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from mtl_edge.tokens.tokenizer_file import encoded, state_of, word_ids

__all__ = ["WordCache", "word_cache_for"]

# The cache is emptied when it holds so many words, and takes none that is longer: some 8 MB in all.
MOST_WORDS = 2**15
MOST_CHARACTERS = 64
# Texts of more characters are split lazily: only as far as their tokens are needed.
LONG_TEXT = 4096
MOST_SPECIAL = 100  # special tokens: each is looked for wherever punctuation stands
PUNCTUATION = r"!-/:-@\[-`{-~"  # of ASCII, as a class of characters

Pieces = Iterable[str]


class _NotCacheableError(Exception):
    """A piece that is too long to be a word, as in languages without spaces."""


class WordCache(dict[str, tuple[int, ...]]):
    """Token ids by word, exactly the tokenizer's own; see `word_cache_for`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        pieces: Callable[[str], Pieces],
        around: tuple[list[int], list[int]],
        room: int,
        lower: bool,
    ) -> None:
        """
        Args:
            pieces: splits a text into the parts that the tokenizer reads each by itself.
            around: special tokens before and after a text's own.
            room: how many tokens a text may have beside these.
            lower: whether the tokenizer lowercases.
        """
        super().__init__()
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._before, self._after = around
        self._room = room
        self._lower = lower
        self._model = tokenizer.model

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to the tokenizer's maximum."""
        before, after, room = self._before, self._after, self._room
        pieces, get = self._pieces, self.__getitem__
        found: list[list[int]] = []
        rest: list[int] = []
        for position, text in enumerate(texts):
            try:
                own = islice(chain.from_iterable(map(get, pieces(text))), room)
                found.append([*before, *own, *after])
            except _NotCacheableError:
                found.append([])
                rest.append(position)
        if rest:
            encodings = encoded(self._tokenizer, [texts[position] for position in rest])
            for position, encoding in zip(rest, encodings, strict=True):
                found[position] = encoding.ids
        return found

    def __missing__(self, piece: str) -> tuple[int, ...]:
        if len(piece) > MOST_CHARACTERS:
            raise _NotCacheableError
        ids = self._read(piece)
        if len(self) >= MOST_WORDS:
            self.clear()
        self[piece] = ids
        return ids

    def _read(self, piece: str) -> tuple[int, ...]:
        if piece.isascii() and piece.isalnum():  # what comes before the model leaves it whole
            return word_ids(self._model, piece.lower() if self._lower else piece)
        return tuple(encoded(self._tokenizer, [piece], special=False)[0].ids)


def word_cache_for(tokenizer: Tokenizer, max_tokens: int) -> WordCache | None:
    """An empty cache for a tokenizer that reads words one by one; None for any other.

    That is WordPiece behind BERT's normalizer and pre-tokenizer, whose special tokens begin with
    punctuation and are looked for in the text as it is. Spaces and ASCII punctuation end a word
    there whatever stands around them; what is between, the tokenizer itself reads, once.

    Args:
        max_tokens: at which the tokenizer cuts texts.
    """
    normalizer = state_of(tokenizer.normalizer)
    added = list(tokenizer.get_added_tokens_decoder().values())
    if (
        not isinstance(tokenizer.model, WordPiece)
        or normalizer.get("type") != "BertNormalizer"
        or state_of(tokenizer.pre_tokenizer).get("type") != "BertPreTokenizer"
        or tokenizer.encode_special_tokens
        or len(added) > MOST_SPECIAL
        or not all(map(_plain, added))
    ):
        return None
    example = encoded(tokenizer, ["a"])[0]
    own = [place for place, special in enumerate(example.special_tokens_mask) if not special]
    if not own:
        return None
    around = example.ids[: own[0]], example.ids[own[-1] + 1 :]
    room = max_tokens - sum(map(len, around))
    return WordCache(tokenizer, _splitter(added), around, room, bool(normalizer["lowercase"]))


def _plain(token: Any) -> bool:
    """Whether a special token is found wherever it stands, and nowhere within a word."""
    flags = token.normalized or token.single_word or token.lstrip or token.rstrip
    return not flags and re.match(f"[{PUNCTUATION}]", token.content) is not None


def _splitter(added: Iterable[Any]) -> Callable[[str], Pieces]:
    """A text's special tokens, words and punctuation marks."""
    special = sorted((token.content for token in added), key=len, reverse=True)
    either = [*map(re.escape, special), rf"[^ \t\n\r{PUNCTUATION}]+", f"[{PUNCTUATION}]"]
    pattern = re.compile("|".join(either))
    findall, finditer = pattern.findall, pattern.finditer

    def pieces(text: str) -> Pieces:
        if len(text) <= LONG_TEXT:
            found: list[str] = findall(text)
            return found
        return (match[0] for match in finditer(text))

    return pieces
