"""Text in the graph: a bundle's graph with its tokenizer in front, for apps without one.

    model.int8.text.onnx      `text` (strings `[batch]`) to every task's logits; the weights stay in
                              the files of model.int8.onnx beside it
    openvino.tokenizer.xml    `text` (strings `[batch]`) to `input_ids` and `attention_mask`, which
                              the encoder's graph takes

The first needs the library of onnxruntime-extensions registered in the session's options, the
second that of openvino-tokenizers added to OpenVINO's core.

Token ids are those of `mtl_edge.tokens.encoder.TextEncoder` by construction: what a tokenizer does
with each character is asked of it (`mtl_edge.export.text.text_table`), and the graphs only replace
characters, split at spaces and look up pieces. A batch is padded to its longest text. What cannot
be removed:

| difference | example | ONNX | OpenVINO |
|---|---|---|---|
| U+0000 | `"good\\0bye"` | ends the text: as `"good"` | none: taken out, as `TextEncoder` does |

An empty batch is refused by both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from mtl_edge.bundle import TOKENIZER
from mtl_edge.errors import MissingPackageError
from mtl_edge.export.graphs import openvino_graph
from mtl_edge.export.text.text_onnx import EXTENSIONS, Nodes, tokenized
from mtl_edge.export.text.text_openvino import tokenizer_model
from mtl_edge.export.text.text_table import word_piece

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
    nodes = Nodes()
    tokenized(nodes, TEXT, word_piece(tokenizer), max_tokens)
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
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    model = tokenizer_model(tokenizer, word_piece(tokenizer), max_tokens, TEXT)
    openvino_graph.write(model, folder / out)
