"""A tokenizer from its file, whoever wrote it.

The `tokenizers` library is not made for files of strangers: for some it panics, and some that it
takes make gigabytes of a short text, or hours. What such files have in common is refused here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Encoding, Tokenizer
from tokenizers.models import Model, Unigram

from mtl_edge.bundle.safe_files import altered
from mtl_edge.bundle.schema import MOST_TOKENIZER_BYTES
from mtl_edge.errors import one_line

__all__ = ["encoded", "read_tokenizer", "state_of", "unknown_of", "word_ids"]

Result = TypeVar("Result")

# How many times longer normalization may make a text, counted as below: XLM-RoBERTa's comes to 132.
# Of each byte of that, the library makes up to 150 of its own.
MOST_GROWTH = 160
# What NFKC makes at most of a character, and of how many bytes: those of U+FDFA.
MOST_COMPOSED, COMPOSED_GROWTH = 33, 11.0
# Characters that may be set before or after a text or a word.
MOST_AFFIX = 100
# Names of the unknown token in tokenizers whose model has none, as byte-level ones.
UNKNOWN = ("[UNK]", "<unk>")
# WordPiece tries each part of a word: the time grows with the square of this. BERT's is 100.
MOST_WORD = 1000


def read_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """A tokenizer from a file of which no text can take memory or time without bounds.

    Raises:
        BundleError: the file is not a tokenizer that the `tokenizers` library can read, or one that
            could make gigabytes of a short text.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise altered(f"{path} is not a tokenizer ({error.strerror})") from None
    if size > MOST_TOKENIZER_BYTES:
        raise altered(f"{path} is larger than {MOST_TOKENIZER_BYTES:,} bytes, as no tokenizer is")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        _require_bounded(tokenizer, max_tokens)
    except BaseException as error:
        if not _is_library_error(error):
            raise
        raise altered(f"{path} is not a tokenizer ({one_line(error)})") from None
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
    """Each text's tokens.

    Args:
        special: whether the special tokens that the tokenizer sets around a text are among them.

    Raises:
        BundleError: the tokenizer panics: its file is altered in a way that shows only now.
    """
    return _typed_errors(lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=special))


def word_ids(model: Model, word: str) -> tuple[int, ...]:
    """Ids of a normalized word by the tokenizer's model alone, in a fifth of the whole's time.

    Raises:
        BundleError: see `encoded`.
    """
    return _typed_errors(lambda: tuple(token.id for token in model.tokenize(word)))


def _typed_errors(call: Callable[[], Result]) -> Result:
    """What `call` returns; the library's errors, panics included, become a BundleError."""
    try:
        return call()
    except BaseException as error:
        if not _is_library_error(error):
            raise
        raise altered(f"the tokenizer fails on a text ({one_line(error)})") from None


def state_of(part: Any) -> dict[str, Any]:
    """A part of a tokenizer as its file describes it."""
    return {} if part is None else json.loads(part.__getstate__())


def unknown_of(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token, if the tokenizer has one."""
    model = tokenizer.model
    if isinstance(model, Unigram):
        unknown: int | None = state_of(model).get("unk_id")
        return unknown
    names = (getattr(model, "unk_token", None), *UNKNOWN)
    known = (tokenizer.token_to_id(name) for name in names if name)
    return next((token for token in known if token is not None), None)


def _is_library_error(error: BaseException) -> bool:
    """Whether it is the library's: plain Exception, or a panic, which derives from no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _require_bounded(tokenizer: Tokenizer, max_tokens: int) -> None:
    growth = _growth(state_of(tokenizer.normalizer)) * _growth(state_of(tokenizer.pre_tokenizer))
    if growth > MOST_GROWTH:
        raise ValueError(f"it could make a text more than {MOST_GROWTH} times longer")
    model = tokenizer.model
    if getattr(model, "max_input_chars_per_word", 0) > MOST_WORD:
        raise ValueError(f"max_input_chars_per_word is more than {MOST_WORD}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(getattr(model, name, None) or "") > MOST_AFFIX:
            raise ValueError(f"{name} is longer than {MOST_AFFIX} characters")
    if _repeats(state_of(tokenizer.post_processor)):
        raise ValueError("its template repeats the text, which takes the cube of a long one's room")
    if tokenizer.num_special_tokens_to_add(False) >= max_tokens:
        raise ValueError(f"it adds as many special tokens as a text may have in all, {max_tokens}")


def _repeats(part: dict[str, Any]) -> bool:
    """Whether a post-processor's template for one text has it more than once."""
    if part.get("type") == "Sequence":
        return any(map(_repeats, part["processors"]))
    return sum("Sequence" in piece for piece in part.get("single", [])) > 1


def _growth(part: dict[str, Any]) -> float:
    """How many times longer a normalizer or pre-tokenizer may make a text, in bytes, at most."""
    kind = part.get("type")
    if kind == "Sequence":
        product = 1.0
        for inner in part.get("normalizers") or part.get("pretokenizers") or []:
            product *= _growth(inner)
        return product
    if kind == "Replace":
        content, pattern = part["content"], part["pattern"]
        if text := pattern.get("String"):
            return max(1.0, len(content.encode()) / len(text.encode()))
        # A regular expression may find nothing, before every byte.
        return 1.0 + len(content.encode())
    if kind == "Prepend" and len(part["prepend"]) > MOST_AFFIX:
        raise ValueError(f"it sets more than {MOST_AFFIX} characters before a text")
    if kind == "Precompiled":
        # A trie's size, the trie, and what characters become, each with a zero at its end.
        table = base64.b64decode(part["precompiled_charsmap"])
        start = 4 + int.from_bytes(table[:4], "little")
        if max(map(len, table[start:].split(b"\0"))) > MOST_COMPOSED:
            raise ValueError(f"it makes more than {MOST_COMPOSED} bytes of a character")
        return COMPOSED_GROWTH
    return {"ByteLevel": 2.0, "Metaspace": 3.0}.get(str(kind), 1.0)
