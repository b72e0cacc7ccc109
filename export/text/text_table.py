"""What a WordPiece tokenizer of BERT's family does with every character, as a table.

BERT's normalizer and pre-tokenizer look at one character at a time, so that asking them about each
of Unicode's says everything. Engines whose own lower-casing, accents, classes of characters or
Unicode version differ from those of the `tokenizers` library then need none of their own: they
replace characters and split at spaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer

from mtl_edge.errors import ExportError

__all__ = [
    "END",
    "FREE",
    "OTHER",
    "SPARE",
    "UNKNOWN",
    "WordPiece",
    "class_of",
    "treated",
    "word_piece",
]

# Characters that Unicode promises never to assign: stand-ins for what must not be taken for text.
SPARE = [chr(point) for point in range(0xFDD0, 0xFDF0)]
END, UNKNOWN, *FREE, OTHER = SPARE  # the last takes the place of any that are in a text

RUN = 256  # code points; shorter runs of one treatment are cheaper in a table than in a pattern
PROBE = "x"


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A tokenizer in parts.

    Attributes:
        vocabulary: ids of pieces.
        prefix: what pieces inside a word start with.
        longest: characters of a word beyond which it is unknown.
        special: ids of tokens that are recognised in the text as they are.
        before, after: ids around each text's.
        replaced: what becomes of characters; spaces separate words. Those not listed stay.
        deleted, isolated: long runs of characters, first and last, that go or are words of their
            own.
    """

    vocabulary: Mapping[str, int]
    prefix: str
    unknown: str
    longest: int
    special: Mapping[str, int]
    before: Sequence[int]
    after: Sequence[int]
    replaced: Mapping[str, str]
    deleted: Sequence[tuple[str, str]]
    isolated: Sequence[tuple[str, str]]


def treated(parts: WordPiece, isolated: str) -> list[tuple[Sequence[tuple[str, str]], str]]:
    """Runs of characters and what becomes of them, `isolated` of those that are words."""
    return [(runs, by) for runs, by in ((parts.deleted, ""), (parts.isolated, isolated)) if runs]


def class_of(runs: Sequence[tuple[str, str]]) -> str:
    """The runs' characters as a pattern."""
    return "[" + "".join(f"{first}-{last}" for first, last in runs) + "]"


def word_piece(tokenizer: Tokenizer) -> WordPiece:
    """The parts of a tokenizer.

    Raises:
        ExportError: it is of another kind.
    """
    return _word_piece(tokenizer.to_str())


@lru_cache(maxsize=1)  # a second or two, and every graph of a bundle asks for the same
def _word_piece(serialized: str) -> WordPiece:
    tokenizer = Tokenizer.from_str(serialized)
    form = json.loads(serialized)
    _require_supported(form)
    model = form["model"]
    special = {token["content"]: token["id"] for token in form["added_tokens"]}
    before, after = _around(tokenizer)
    if not before and not after:
        raise _unsupported("no tokens that it sets around a text")
    treatments = dict(_treatments(tokenizer))
    if any(treatments.get(ord(spare), spare) != spare for spare in SPARE):
        raise _unsupported("a normalizer that does not leave noncharacters as they are")
    deleted = _runs({point for point, words in treatments.items() if words == ""})
    isolated = _runs({point for point, words in treatments.items() if words == f" {chr(point)} "})
    runs = [*deleted, *isolated]
    in_runs = {point for first, last in runs for point in range(ord(first), ord(last) + 1)}
    return WordPiece(
        vocabulary=model["vocab"],
        prefix=model["continuing_subword_prefix"],
        unknown=model["unk_token"],
        longest=model["max_input_chars_per_word"],
        special=special,
        before=before,
        after=after,
        replaced={
            chr(point): words
            for point, words in treatments.items()
            if words != chr(point) and point not in in_runs
        },
        deleted=deleted,
        isolated=isolated,
    )


def _require_supported(form: Mapping[str, Any]) -> None:
    parts = [(form[part] or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
    expected = ["WordPiece", "BertNormalizer", "BertPreTokenizer"]
    if parts != expected:
        raise _unsupported(f"{', '.join(map(str, parts))}")
    for token in form["added_tokens"]:
        if any(token[flag] for flag in ("single_word", "lstrip", "rstrip", "normalized")):
            raise _unsupported(f"an added token {token['content']!r} that depends on its context")
    contents = [token["content"] for token in form["added_tokens"]]
    if overlap := [(a, b) for a in contents for b in contents if _overlap(a, b)]:
        raise _unsupported(f"overlapping added tokens {overlap[0][0]!r} and {overlap[0][1]!r}")
    texts = "".join([*contents, *form["model"]["vocab"]])
    if spare := [character for character in SPARE if character in texts]:
        raise _unsupported(f"the noncharacter U+{ord(spare[0]):04X} in its vocabulary")


def _unsupported(what: str) -> ExportError:
    return ExportError(
        f"the tokenizer has {what}, and text in the graph is supported for WordPiece with BERT's "
        "normalizer and pre-tokenizer and plain special tokens; leave out --with-tokenizer and "
        "use tokenizer.json with the `tokenizers` library"
    )


def _overlap(one: str, other: str) -> bool:
    """Whether an occurrence of `one` can share characters with an occurrence of `other`."""
    tails = any(one.endswith(other[:n]) for n in range(1, min(len(one), len(other))))
    return tails or (one != other and other in one)


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    whole = tokenizer.encode(PROBE).ids
    bare = tokenizer.encode(PROBE, add_special_tokens=False).ids
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _treatments(tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    """Every character and what becomes of it; those that stay as they are may be left out."""
    for start in range(0, 0x110000, RUN):
        if 0xD800 <= start < 0xE000:
            continue  # surrogates are no characters
        points = range(start, start + RUN)
        characters = [chr(point) for point in points]
        text = PROBE + PROBE.join(characters) + PROBE
        words = _words(tokenizer, text)
        if words == [text]:
            continue
        if words == [PROBE * (RUN + 1)]:
            yield from ((point, "") for point in points)
        elif words == [PROBE, *(word for c in characters for word in (c, PROBE))]:
            yield from ((point, f" {chr(point)} ") for point in points)
        else:
            for point in points:
                words = _words(tokenizer, PROBE + chr(point) + PROBE)
                yield point, " ".join(words)[len(PROBE) : -len(PROBE)]


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    normalizer: BertNormalizer = tokenizer.normalizer
    return [w for w, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))]


def _runs(points: set[int]) -> list[tuple[str, str]]:
    firsts = sorted(point for point in points if point - 1 not in points)
    lasts = sorted(point for point in points if point + 1 not in points)
    pairs = zip(firsts, lasts, strict=True)
    return [(chr(first), chr(last)) for first, last in pairs if last - first >= RUN]
