"""Text in the graph: a bundle's graph with its tokenizer in front, for apps without one.

    model.int8.text.onnx      `text` (strings `[batch]`) to every task's logits; the weights stay in
                              the files of model.int8.onnx beside it
    openvino.tokenizer.xml    `text` (strings `[batch]`) to `input_ids` and `attention_mask`, which
                              the encoder's graph takes

The first needs the library of onnxruntime-extensions registered in the session's options, the
second that of openvino-tokenizers added to OpenVINO's core.

Token ids are those of `mtl_edge.tokens.encoder.TextEncoder` by construction: what a tokenizer does
with each character is asked of it (`mtl_edge.export.text_table`), and the graphs only replace
characters, split at spaces and look up pieces. A batch is padded to its longest text. What cannot
be removed:

| difference | example | ONNX | OpenVINO |
|---|---|---|---|
| U+0000 | `"good\\0bye"` | ends the text: as `"good"` | none: taken out, as `TextEncoder` does |

An empty batch is refused by both.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mtl_edge.bundle import TOKENIZER
from mtl_edge.errors import MissingPackageError
from mtl_edge.export import openvino_graph
from mtl_edge.export.capture import INPUTS
from mtl_edge.export.charsmap import charsmap
from mtl_edge.export.text_table import SPARE, WordPiece, word_piece

__all__ = [
    "OPENVINO",
    "TEXT",
    "name_of",
    "require_packages",
    "with_tokenizer_onnx",
    "with_tokenizer_openvino",
]

TEXT = "text"
OPENVINO = "openvino.tokenizer.xml"
PACKAGES = {"onnxruntime": "onnxruntime-extensions", "openvino": "openvino-tokenizers"}

EXTENSIONS = "ai.onnx.contrib"  # the domain of onnxruntime-extensions
PREFIX = "text/"

# Stand-ins: see SPARE. The last takes the place of any that are in a text.
END, UNKNOWN, *FREE, OTHER = SPARE
MOST_BYTES = 1 << 20  # of a word

# Ids of what is no token.
NO_TOKEN, END_OF_TEXT = -1, -2


def name_of(graph: str) -> str:
    """The file that takes strings instead of the tokens that `graph` takes."""
    return f"{Path(graph).stem}.text.onnx"


def require_packages(engines: Collection[str]) -> None:
    """
    Raises:
        MissingPackageError: what one of the engines' graphs needs is not installed.
    """
    for engine, package in PACKAGES.items():
        if engine in engines and importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingPackageError(
                f"text in the graph needs {package}, which is not installed; "
                "`pip install 'mtl-edge[text]'`"
            )


def with_tokenizer_onnx(folder: Path, graph: str, out: str, max_tokens: int) -> None:
    """Write the ONNX graph `out` that is `graph` with the tokenizer of its folder in front.

    Args:
        folder: of the graph, its weights and tokenizer.json.

    Raises:
        ExportError: the tokenizer is of a kind that is not supported.
        MissingPackageError: onnxruntime-extensions is not installed.
    """
    require_packages(["onnxruntime"])
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    model = onnx.load(str(folder / graph), load_external_data=False)
    nodes = _Nodes()
    _tokenized(nodes, word_piece(tokenizer), max_tokens)
    former = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes.nodes, *former])
    model.graph.initializer.extend(nodes.constants)
    model.graph.input.append(helper.make_tensor_value_info(TEXT, TensorProto.STRING, ["batch"]))
    known = {opset.domain for opset in model.opset_import}
    needed = {EXTENSIONS: 1, "ai.onnx.ml": 2}
    model.opset_import.extend(
        helper.make_opsetid(domain, version)
        for domain, version in needed.items()
        if domain not in known
    )
    onnx.save(model, str(folder / out))


def with_tokenizer_openvino(folder: Path, out: str, max_tokens: int) -> None:
    """Write the tokenizer of `folder` as OpenVINO's graph `out` (.xml, and .bin beside it).

    Raises:
        ExportError: the tokenizer is of a kind that is not supported.
        MissingPackageError: openvino-tokenizers is not installed.
    """
    require_packages(["openvino"])
    import openvino_tokenizers

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    parts = word_piece(tokenizer)
    padding = next((token for token, n in parts.special.items() if n == 0), parts.unknown)
    wrap: Any = PreTrainedTokenizerFast  # it has no types
    wrapped = wrap(tokenizer_object=_in_table_form(tokenizer, parts), pad_token=padding)
    model = openvino_tokenizers.convert_tokenizer(wrapped, truncation=True, max_length=max_tokens)
    for n, node in enumerate(model.get_ordered_ops()):
        # Its own name counts the nodes that this process has made so far.
        node.set_friendly_name(f"{node.get_type_name()}_{n}")
        if node.get_type_name() == "WordpieceTokenizer":
            # It counts bytes, not characters; words that are too long do not come so far.
            node.set_attribute("max_bytes_per_word", MOST_BYTES)
    model.inputs[0].set_names({TEXT})
    openvino_graph.write(model, folder / out)


def _in_table_form(tokenizer: Tokenizer, parts: WordPiece) -> Tokenizer:
    """The tokenizer with replacements of characters for its normalizer: made to be converted."""
    form = json.loads(tokenizer.to_str())
    # Keys of a map have no zero byte.
    table = {key: words for key, words in parts.replaced.items() if key != "\0"}
    patterns = [("\\x00", parts.replaced.get("\0", "\0"))]
    patterns += [(_class_of(runs), by) for runs, by in _treated(parts, " $0 ")]
    replacements = [_replace(pattern, by) for pattern, by in patterns if by != "\0"]
    replacements += [
        {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(charsmap(table)).decode(),
        },
        _replace(f"[^ ]{{{parts.longest + 1},}}", UNKNOWN),
    ]
    form["normalizer"] = {"type": "Sequence", "normalizers": replacements}
    form["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": " +"},
        "behavior": "Removed",
        "invert": False,
    }
    form["truncation"] = None
    return Tokenizer.from_str(json.dumps(form))


def _replace(pattern: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": by}


def _treated(parts: WordPiece, isolated: str) -> list[tuple[Sequence[tuple[str, str]], str]]:
    """Runs of characters and what becomes of them, `isolated` of those that are words."""
    return [(runs, by) for runs, by in ((parts.deleted, ""), (parts.isolated, isolated)) if runs]


def _class_of(runs: Sequence[tuple[str, str]]) -> str:
    """The runs' characters as a pattern."""
    return "[" + "".join(f"{first}-{last}" for first, last in runs) + "]"


class _Nodes:
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


def _tokenized(nodes: _Nodes, parts: WordPiece, max_tokens: int) -> None:
    """Add what computes `input_ids` and `attention_mask`, int64 `[batch, tokens]`, of texts."""
    stand_ins = dict(zip(parts.special, FREE, strict=False))
    text = _stood_in(nodes, TEXT, stand_ins)
    words = _words(nodes, text, parts)
    pieces, begins, ends = _pieces(nodes, words, parts, stand_ins)
    known = {**parts.vocabulary, END: END_OF_TEXT}
    known |= {stand_in: parts.special[token] for token, stand_in in stand_ins.items()}
    ids = nodes.looked_up(pieces, known, NO_TOKEN)
    ids, rows = _tokens(nodes, ids, begins, ends, parts.vocabulary[parts.unknown])
    _batch(nodes, ids, rows, parts, max_tokens)


def _stood_in(nodes: _Nodes, text: str, stand_ins: dict[str, str]) -> str:
    """Texts with words of one stand-in for special tokens."""
    text = nodes.replaced(text, _class_of([(SPARE[0], SPARE[-1])]), OTHER)
    for token, stand_in in stand_ins.items():
        text = nodes.replaced(text, _quoted(token), f" {stand_in} ")
    return text


def _quoted(text: str) -> str:
    return "".join(c if c.isalnum() or ord(c) > 127 else f"\\x{{{ord(c):x}}}" for c in text)


def _words(nodes: _Nodes, text: str, parts: WordPiece) -> str:
    """The words of all texts, END after those of each."""
    for runs, by in _treated(parts, " \\0 "):
        text = nodes.replaced(text, _class_of(runs), by)
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
    nodes: _Nodes, words: str, parts: WordPiece, stand_ins: dict[str, str]
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


def _tokens(nodes: _Nodes, ids: str, begins: str, ends: str, unknown: int) -> tuple[str, str]:
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


def _like(nodes: _Nodes, values: str, filled: int) -> str:
    value = numpy_helper.from_array(np.array([filled], np.int64))
    return nodes.add("ConstantOfShape", nodes.add("Shape", values), value=value)


def _batch(nodes: _Nodes, ids: str, rows: str, parts: WordPiece, max_tokens: int) -> None:
    """Cut every text's tokens to size, and put them in a row of their own between special ones."""
    zero, one = nodes.constant(0), nodes.constant(1)
    room = nodes.constant(max_tokens - len(parts.before) - len(parts.after))
    none = _like(nodes, TEXT, 0)
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
        "Concat", nodes.add("Shape", TEXT), nodes.add("Reshape", width, nodes.constant([1])), axis=0
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
