"""Cases: files of a bundle, changed as no export would leave them.

Each kind of case changes one file. Where it is not the manifest, the manifest is rewritten to match
(see `tests.fuzz.worker`), so that what is behind the checksums really opens the file.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from hypothesis import strategies as st

from mtl_edge.bundle import MANIFEST, read_manifest, write_manifest
from mtl_edge.bundle.schema import TOKENIZER

__all__ = ["KINDS", "Kind", "base_of", "texts"]

Draw = Callable[[st.SearchStrategy[Any]], Any]
Bases = Mapping[str, bytes]

NUMBERS = [0, 1, 2, 3, 7, 127, 128, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**64]
NUMBERS += [-number for number in NUMBERS[1:]]
WORDS = ["", ".", "..", "/etc/passwd", "\0", "\ud800", "a\nb", "input_ids", "é" * 300, "*/_ORT_*/*"]
ODD = [*NUMBERS, *WORDS, None, True, 0.5, -1.5, 1e308, float("nan"), float("inf"), [], {}, [[]]]

EDITS = ["flip", "flip", "set", "set", "word", "word", "cut", "copy", "drop", "insert"]

which = st.integers(0, 2**31)
odd = st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | st.floats()


@dataclass(frozen=True)
class Kind:
    """What is changed.

    Attributes:
        file: of the bundle.
        change: from a way to draw, and the bundle's files, to the file's new bytes.
    """

    file: str
    change: Callable[[Draw, Bases], bytes]

    def strategy(self, bases: Bases) -> st.SearchStrategy[bytes]:
        return st.composite(lambda draw: self.change(draw, bases))()


def base_of(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle with one graph for each engine and few words, quick to open."""
    folder.mkdir()
    manifest = read_manifest(bundle)
    first = {graph.engine: graph for graph in reversed(manifest.graphs)}
    for name in {name for graph in first.values() for name in graph.files}:
        (folder / name).write_bytes((bundle / name).read_bytes())
    tokenizer = json.loads((bundle / TOKENIZER).read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: i for word, i in words.items() if 99 < i < 1200}
    (folder / TOKENIZER).write_text(json.dumps(tokenizer), encoding="utf-8")
    manifest = type(manifest)(**{
        **{name: getattr(manifest, name) for name in type(manifest).__slots__},
        "graphs": tuple(first.values()),
    })  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def _bytes(draw: Draw, data: bytes) -> bytes:
    """A few edits at the level of bytes, most of which keep the size."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(which) % max(1, len(result))
        edit = draw(
            st.sampled_from(["flip", "set", "set", "word", "cut", "copy", "drop", "insert"])
        )
        span = 1 + draw(which) % 64
        if edit == "flip" and result:
            result[place] ^= 1 << draw(st.integers(0, 7))
        elif edit == "set" and result:
            result[place] = draw(st.integers(0, 255))
        elif edit == "word":
            number = draw(st.sampled_from(NUMBERS)) % 2**64
            result[place : place + 8] = number.to_bytes(8, "little")
        elif edit == "cut":
            del result[place:]
        elif edit == "copy":
            result[place:place] = result[place : place + span]
        elif edit == "drop":
            del result[place : place + span]
        else:
            result[place:place] = draw(st.binary(max_size=12))
    return bytes(result)


def _places(value: object, most: int = 4000) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < most:
        at = waiting.pop(0)
        keys: Sequence[Any] = list(at) if isinstance(at, dict) else range(len(at))  # type: ignore[arg-type]
        for key in keys:
            found.append((at, key))
            if isinstance(at[key], dict | list):  # type: ignore[index]
                waiting.append(at[key])  # type: ignore[index]
    return found


def _json(draw: Draw, data: bytes, pieces: Mapping[str, Sequence[Any]] = {}) -> bytes:
    """A few edits at the level of JSON: values of other types, fields that go, come or move."""
    value = json.loads(data)
    for _ in range(draw(st.integers(1, 3))):
        if pieces and draw(st.booleans()):
            name = draw(st.sampled_from(sorted(pieces)))
            value[name] = copy.deepcopy(draw(st.sampled_from(pieces[name])))
            continue
        places = _places(value)
        if not places:
            break
        at, key = places[draw(which) % len(places)]
        edit = draw(st.sampled_from(["odd", "odd", "drop", "other", "more"]))
        if edit == "odd":
            at[key] = copy.deepcopy(draw(odd))
        elif edit == "drop":
            del at[key]
        elif edit == "other":
            other, name = places[draw(which) % len(places)]
            at[key] = copy.deepcopy(other[name])
        elif isinstance(at, MutableSequence):
            at.append(copy.deepcopy(at[key]))
        elif isinstance(at, MutableMapping):
            at[draw(st.sampled_from(WORDS))] = at[key]
    return json.dumps(value).encode()


def _replace(content: str, pattern: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _in_sequence(name: str, part: object, times: int) -> dict[str, Any]:
    return {"type": "Sequence", name: [part] * times}


PATTERNS = ["", "a*", "(a+)+$", "(?=a)", r"\b", "(.*)*x", "[", "(?<!b)a", r"\p{L}+", "(a|aa)+$"]
NORMALIZERS: list[Any] = [
    None,
    {"type": "NFKD"},
    {"type": "ByteLevel"},
    {"type": "Nmt"},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Precompiled", "precompiled_charsmap": "CAAAAAAAAAAAAAAAYWEAYQA="},
    *(_replace(content, {"Regex": p}) for p in PATTERNS for content in ("", "aaaa")),
    *(_replace("xyzab", {"String": p}) for p in ("", "a", " ")),
    *(_in_sequence("normalizers", _replace("aa", {"String": "a"}), n) for n in (1, 9, 10, 40)),
    *(_in_sequence("normalizers", {"type": "ByteLevel"}, n) for n in (0, 9, 30)),
]
PRETOKENIZERS: list[Any] = [
    None,
    {"type": "Whitespace"},
    {"type": "UnicodeScripts"},
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Punctuation", "behavior": "MergedWithNext"},
    *({"type": "FixedLength", "length": n} for n in (0, 1, 2**63)),
    *(_split(p, b) for p in PATTERNS for b in ("Isolated", "Removed", "Contiguous")),
    _in_sequence("pretokenizers", {"type": "Whitespace"}, 50),
]
VOCABULARY = {"a": 0, "b": 1, "ab": 2, "[UNK]": 3}
BPE = {"type": "BPE", "vocab": VOCABULARY, "merges": [["a", "b"]]}
MODELS: list[Any] = [
    BPE,
    {**BPE, "byte_fallback": True, "unk_token": "none", "fuse_unk": True},
    {**BPE, "dropout": 1.0},
    {**BPE, "merges": ["a b", "ab ab"]},
    {**BPE, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"},
    {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "none"},
    {"type": "WordLevel", "vocab": {"a": 2**32 - 1}, "unk_token": "a"},
    {"type": "WordPiece", "vocab": VOCABULARY, "unk_token": "none",
     "continuing_subword_prefix": "", "max_input_chars_per_word": 0},
    {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0], ["", -1e308]]},
    {"type": "Unigram", "unk_id": 0, "vocab": [["a", 1e308]] * 3, "byte_fallback": True},
    {"type": "Unigram", "unk_id": 0, "vocab": []},
]  # fmt: skip
POSTPROCESSORS: list[Any] = [
    None,
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "BertProcessing", "sep": ["x", 2**32 - 1], "cls": ["y", 0]},
    {"type": "Sequence",
     "processors": [{"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 0]}] * 70},
    {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 3,
     "pair": [], "special_tokens": {}},
]  # fmt: skip
PIECES = {
    "normalizer": NORMALIZERS,
    "pre_tokenizer": PRETOKENIZERS,
    "model": MODELS,
    "post_processor": POSTPROCESSORS,
}

OPERATORS = ["Add", "Gather", "Reshape", "Loop", "If", "Scan", "ConstantOfShape", "Expand", "Tile"]
OPERATORS += ["Resize", "TopK", "Slice", "Pad", "OneHot", "Range", "Conv", "LSTM", "Einsum", "NoOp"]


def _onnx(draw: Draw, data: bytes) -> bytes:
    """A few edits at the level of the graph, which pass every check of the format."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(draw(st.integers(1, 3))):
        if not graph.node or not graph.initializer:
            break
        tensor = graph.initializer[draw(which) % len(graph.initializer)]
        node = graph.node[draw(which) % len(graph.node)]
        number = max(-(2**63), min(2**63 - 1, draw(st.sampled_from(NUMBERS))))
        edit = draw(st.sampled_from(["dims", "more", "type", "place", "raw", "operator", "swap",
                                     "attribute", "drop", "domain", "input"]))  # fmt: skip
        if edit == "dims" and tensor.dims:
            tensor.dims[draw(which) % len(tensor.dims)] = number
        elif edit == "more":
            tensor.dims.append(number)
        elif edit == "type":
            tensor.data_type = draw(st.integers(0, 25))
        elif edit == "place" and tensor.external_data:
            entry = tensor.external_data[draw(which) % len(tensor.external_data)]
            entry.value = draw(st.sampled_from([*map(str, NUMBERS), *WORDS[:4], "heads.int8.bin"]))
        elif edit == "raw" and tensor.raw_data:
            tensor.raw_data = _bytes(draw, tensor.raw_data)
        elif edit == "operator":
            node.op_type, node.domain = draw(st.sampled_from(OPERATORS)), ""
        elif edit == "swap" and node.input:
            other = graph.node[draw(which) % len(graph.node)]
            node.input[draw(which) % len(node.input)] = (list(other.output) or [""])[0]
        elif edit == "attribute" and node.attribute:
            attribute = node.attribute[draw(which) % len(node.attribute)]
            attribute.i = number
            if attribute.ints:
                attribute.ints[draw(which) % len(attribute.ints)] = number
        elif edit == "drop":
            graph.node.remove(node)
        elif edit == "domain":
            node.domain = draw(st.sampled_from(["", "com.microsoft", "ai.onnx.ml", "x"]))
        elif edit == "input":
            node.input.append(tensor.name)
    return model.SerializeToString()


QUOTED = re.compile(rb'"(-?\d+(?:,-?\d+)*)"')


def _xml(draw: Draw, data: bytes) -> bytes:
    """A few edits of the numbers in an OpenVINO graph: shapes, offsets, sizes, ports, versions."""
    for _ in range(draw(st.integers(1, 3))):
        found = list(QUOTED.finditer(data))
        if not found:
            break
        match = found[draw(which) % len(found)]
        number = str(draw(st.integers(0, 70) | st.sampled_from(NUMBERS))).encode()
        data = data[: match.start(1)] + number + data[match.end(1) :]
    return data


def _either(
    file: str, deep: Callable[[Draw, bytes], bytes], bytes_in: int = 4
) -> Callable[[Draw, Bases], bytes]:
    """Edits of the content, and one time in `bytes_in` of the bytes."""

    def change(draw: Draw, bases: Bases) -> bytes:
        edit = _bytes if draw(st.integers(1, bytes_in)) == 1 else deep
        return edit(draw, bases[file])

    return change


KINDS: Mapping[str, Kind] = {
    "manifest": Kind(MANIFEST, _either(MANIFEST, _json)),
    "tokenizer": Kind(TOKENIZER, _either(TOKENIZER, lambda d, b: _json(d, b, PIECES))),
    "onnx": Kind("model.int8.onnx", _either("model.int8.onnx", _onnx)),
    "xml": Kind("openvino.int8.xml", _either("openvino.int8.xml", _xml)),
    "heads": Kind("openvino.heads.int8.xml", _either("openvino.heads.int8.xml", _xml)),
    "bin": Kind("openvino.heads.int8.bin", _either("openvino.heads.int8.bin", _bytes)),
}

# Whole planes of Unicode, lone surrogates among them, and what is often in a text by accident.
ACCIDENTS = ["\0", "\r\n", "\u2028", "\ufeff", "\u202e", "e\u0301", "\U0001f468\u200d\U0001f469"]
ACCIDENTS += [
    "[CLS]",
    "[MASK]",
    "##a",
    "﷽",
    "ﷺ",
    "İ",
    "ß",
    "\ud83d",
    "\udc00",
    "1" * 200,
    "a" * 300,
]
characters = st.characters(codec=None)
short = st.text(characters, max_size=3)
texts = st.lists(
    st.text(characters, max_size=40)
    | st.lists(st.sampled_from(ACCIDENTS) | short, max_size=20).map("".join)
    | st.builds(lambda part, times: part * times, short, st.integers(0, 3000)),
    min_size=60,
    max_size=100,
)
