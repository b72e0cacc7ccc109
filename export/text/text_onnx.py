"""A tokenizer as nodes of an ONNX graph, in operators of ONNX and onnxruntime-extensions.

The extensions' own operator for whole tokenizers of this family, `BertTokenizer`, takes one text at
a time and gives other ids for accents, control characters and special tokens in a text. Used here
are those that replace, split and look up pieces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtl_edge.export.graphs.capture import INPUTS
from mtl_edge.export.text.text_table import (
    END,
    FREE,
    OTHER,
    SPARE,
    UNKNOWN,
    WordPiece,
    class_of,
    treated,
)

__all__ = ["EXTENSIONS", "Nodes", "tokenized"]

EXTENSIONS = "ai.onnx.contrib"  # the domain of onnxruntime-extensions
PREFIX = "text/"

# Ids of what is no token.
NO_TOKEN, END_OF_TEXT = -1, -2


class Nodes:
    """Nodes and constants of a graph while it is written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(
        self,
        operator: str,
        *inputs: str,
        outputs: Sequence[str] = (),
        domain: str = "",
        **settings: Any,
    ) -> str:
        """Add a node; gives the name of its first output, or of its only one."""
        name = f"{PREFIX}{len(self.nodes)}/{operator}"
        names = list(outputs) or [name]
        node = helper.make_node(operator, inputs, names, name, domain=domain, **settings)
        self.nodes.append(node)
        return names[0]

    def contributed(
        self, operator: str, *inputs: str, count: int = 1, **settings: Any
    ) -> list[str]:
        """Add a node of onnxruntime-extensions; gives the names of its outputs."""
        start = f"{PREFIX}{len(self.nodes)}/{operator}/"
        names = [f"{start}{n}" for n in range(count)]
        self.add(operator, *inputs, outputs=names, domain=EXTENSIONS, **settings)
        return names

    def constant(self, value: Any, kind: type = np.int64) -> str:
        name = f"{PREFIX}constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def strings(self, values: Sequence[str]) -> str:
        return self.constant(values, object)

    def replaced(self, text: str, pattern: str, by: str) -> str:
        """`text` with what matches a pattern of RE2 replaced."""
        constants = (self.strings([pattern]), self.strings([by]))
        return self.contributed("StringRegexReplace", text, *constants, global_replace=1)[0]

    def looked_up(self, keys: str, table: dict[str, int], default: int) -> str:
        """int64 values of strings."""
        return self.add(
            "LabelEncoder",
            keys,
            domain="ai.onnx.ml",
            keys_strings=list(table),
            values_int64s=list(table.values()),
            default_int64=default,
        )


def tokenized(nodes: Nodes, texts: str, parts: WordPiece, max_tokens: int) -> None:
    """Add what computes `input_ids` and `attention_mask`, int64 `[batch, tokens]`, of texts."""
    stand_ins = dict(zip(parts.special, FREE, strict=False))
    text = _stood_in(nodes, texts, stand_ins)
    words = _words(nodes, text, parts)
    pieces, begins, ends = _pieces(nodes, words, parts, stand_ins)
    known = {**parts.vocabulary, END: END_OF_TEXT}
    known |= {stand_in: parts.special[token] for token, stand_in in stand_ins.items()}
    ids = nodes.looked_up(pieces, known, NO_TOKEN)
    ids, rows = _tokens(nodes, ids, begins, ends, parts.vocabulary[parts.unknown])
    _batch(nodes, texts, ids, rows, parts, max_tokens)


def _stood_in(nodes: Nodes, text: str, stand_ins: dict[str, str]) -> str:
    """Texts with words of one stand-in for special tokens."""
    text = nodes.replaced(text, class_of([(SPARE[0], SPARE[-1])]), OTHER)
    for token, stand_in in stand_ins.items():
        text = nodes.replaced(text, _quoted(token), f" {stand_in} ")
    return text


def _quoted(text: str) -> str:
    return "".join(c if c.isalnum() or ord(c) > 127 else f"\\x{{{ord(c):x}}}" for c in text)


def _words(nodes: Nodes, text: str, parts: WordPiece) -> str:
    """The words of all texts, END after those of each."""
    for runs, by in treated(parts, " \\0 "):
        text = nodes.replaced(text, class_of(runs), by)
    text = nodes.add("Concat", text, nodes.strings([""]), axis=0)
    separator, axis = nodes.strings([f" {END} "]), nodes.constant([0])
    text = nodes.contributed("StringJoin", text, separator, axis)[0]
    text = nodes.add("Reshape", text, nodes.constant([1]))
    plain = "".join(chr(c) for c in range(128) if chr(c).isalnum() and chr(c) not in parts.replaced)
    change = nodes.strings([f"([^{plain} ])"])
    runs_or_characters = nodes.contributed(
        "StringRegexSplitWithOffsets", text, change, change, count=4
    )[0]
    values = sorted(set(parts.replaced.values()))
    places = {value: place for place, value in enumerate(values)}
    table = {character: places[value] for character, value in parts.replaced.items()}
    place = nodes.looked_up(runs_or_characters, table, NO_TOKEN)
    stays = nodes.add("Equal", place, nodes.constant(NO_TOKEN))
    some = nodes.add("Max", place, nodes.constant(0))
    changed = nodes.add("Gather", nodes.strings(values), some)
    changed = nodes.add("Where", stays, runs_or_characters, changed)
    text = nodes.contributed("StringJoin", changed, nodes.strings([""]), axis)[0]
    text = nodes.add("Reshape", text, nodes.constant([1]))
    space, none = nodes.strings(["( +)"]), nodes.strings([""])
    return nodes.contributed("StringRegexSplitWithOffsets", text, space, none, count=4)[0]


def _pieces(
    nodes: Nodes, words: str, parts: WordPiece, stand_ins: dict[str, str]
) -> tuple[str, str, str]:
    """Pieces of words, and for each word where its first is and where its last ends."""
    # What a word is looked up by only: which id it has is found out later.
    vocabulary = dict.fromkeys([*parts.vocabulary, *stand_ins.values(), END], 0)
    pieces, _, begins, ends = nodes.contributed(
        "WordpieceTokenizer",
        words,
        nodes.constant([]),
        count=4,
        vocab=json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")),
        suffix_indicator=parts.prefix,
        unknown_token=UNKNOWN,
        max_input_chars_per_word=parts.longest,
    )
    return pieces, begins, ends


def _tokens(nodes: Nodes, ids: str, begins: str, ends: str, unknown: int) -> tuple[str, str]:
    """Ids of tokens, and the position of the text that each belongs to.

    Of a word with an unknown piece, the pieces before are given too; only the unknown one counts.
    """
    zero, one, no_token = nodes.constant(0), nodes.constant(1), nodes.constant(NO_TOKEN)
    lasts = nodes.add("Sub", ends, one)
    is_unknown = nodes.add("Equal", ids, no_token)
    word_unknown = nodes.add("Gather", is_unknown, lasts)
    firsts = nodes.add("ScatterElements", _like(nodes, ids, 0), begins, _like(nodes, begins, 1))
    word = nodes.add("Sub", nodes.add("CumSum", firsts, zero), one)
    before_unknown = nodes.add(
        "And", nodes.add("Gather", word_unknown, word), nodes.add("Not", is_unknown)
    )
    ends_text = nodes.add("Equal", ids, nodes.constant(END_OF_TEXT))
    row = nodes.add("CumSum", nodes.add("Cast", ends_text, to=TensorProto.INT64), zero)
    kept = nodes.add("Not", nodes.add("Or", before_unknown, ends_text))
    ids = nodes.add("Where", is_unknown, nodes.constant(unknown), ids)
    return nodes.add("Compress", ids, kept, axis=0), nodes.add("Compress", row, kept, axis=0)


def _like(nodes: Nodes, values: str, filled: int) -> str:
    value = numpy_helper.from_array(np.array([filled], np.int64))
    return nodes.add("ConstantOfShape", nodes.add("Shape", values), value=value)


def _batch(
    nodes: Nodes, texts: str, ids: str, rows: str, parts: WordPiece, max_tokens: int
) -> None:
    """Cut every text's tokens to size, and put them in a row of their own between special ones."""
    zero, one = nodes.constant(0), nodes.constant(1)
    room = nodes.constant(max_tokens - len(parts.before) - len(parts.after))
    none = _like(nodes, texts, 0)
    counts = nodes.add("ScatterElements", none, rows, _like(nodes, rows, 1), reduction="add")
    starts = nodes.add("CumSum", counts, zero, exclusive=1)
    every = nodes.add("Range", zero, nodes.add("Size", ids), one)
    column = nodes.add("Sub", every, nodes.add("Gather", starts, rows))
    fits = nodes.add("Less", column, room)
    ids, rows, column = (nodes.add("Compress", v, fits, axis=0) for v in (ids, rows, column))
    counts = nodes.add("Min", counts, room)
    most = nodes.add("ReduceMax", counts, keepdims=0)
    width = nodes.add("Add", most, nodes.constant(len(parts.before) + len(parts.after)))
    shape = nodes.add(
        "Concat",
        nodes.add("Shape", texts),
        nodes.add("Reshape", width, nodes.constant([1])),
        axis=0,
    )
    value = numpy_helper.from_array(np.zeros(1, np.int64))
    padded = nodes.add("ConstantOfShape", shape, value=value)
    column = nodes.add("Add", column, nodes.constant(len(parts.before)))
    last = nodes.constant([1])
    places = nodes.add(
        "Concat", nodes.add("Unsqueeze", rows, last), nodes.add("Unsqueeze", column, last), axis=1
    )
    table = nodes.add("ScatterND", padded, places, ids)
    columns = nodes.add("Range", zero, width, one)
    ends = nodes.add("Add", nodes.add("Unsqueeze", counts, last), nodes.constant(len(parts.before)))
    special = [(nodes.constant(n), token) for n, token in enumerate(parts.before)]
    special += [
        (nodes.add("Add", ends, nodes.constant(n)), token) for n, token in enumerate(parts.after)
    ]
    for place, token in special:
        here = nodes.add("Equal", columns, place)
        table = nodes.add("Where", here, nodes.constant(token), table)
    nodes.add("Identity", table, outputs=INPUTS[:1])
    full = nodes.add("Less", columns, nodes.add("Add", ends, nodes.constant(len(parts.after))))
    nodes.add("Cast", full, outputs=INPUTS[1:], to=TensorProto.INT64)
