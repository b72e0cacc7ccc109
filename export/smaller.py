"""Smaller word tables on request: rows for fewer tokens, and four bits a number.

A third of a small encoder's weights and more is its word table: of MiniLM's 23 MB in int8, 12.

    trim_vocabulary        rows for the tokens that a corpus uses; all others read the row of the
                           unknown token. Exact for texts of these tokens.
    embeddings_in_4_bits   numbers of four bits, one scale a block of channels. Not exact.

Both rewrite the quantized encoder of an engine and leave its inputs, its outputs and all but the
table as they are. Token ids keep their numbers, since tokenizer and n-gram tables go by them: a
constant maps each to its row. To have both, trim first: there is less to round then.

    ONNX      Gather of the map, Cast; GatherBlockQuantized, of ONNX Runtime 1.22 and later
    OpenVINO  Gather of the map; its CPU engine gathers from int4 as it is stored, where it expands
              an int8 table to float32 when it loads the graph, so that memory is saved, too
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import NodeProto, TensorProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel
from openvino import opset13

from mtl_edge.batches.planning import Tokens
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.rewrite import MICROSOFT, Constants, readers_of

__all__ = [
    "BLOCK",
    "Account",
    "embeddings_in_4_bits",
    "embeddings_in_4_bits_openvino",
    "share_kept",
    "trim_vocabulary",
    "trim_vocabulary_openvino",
    "used_tokens",
]

BLOCK = 32  # channels that share a scale
BLOCKS = (16, 32, 64, 128)  # ONNX Runtime takes powers of two from 16 on
IDS = "input_ids"
ROW_OF_TOKEN = "/word_row_of_token"
INT8, INT8_SCALE = "/word_rows_int8", "/word_rows_scale"  # as `mtl_edge.export.int8_onnx` has them
BITS4, BITS4_SCALE = "/word_rows_4bit", "/word_rows_4bit_scale"
ROWS_AT_ONCE = 2048  # as many as fit a cache while their scales are searched for
# Scales to try for a block, as its largest number over these: a little more than the range is often
# better, as few numbers are cut off and all others lie finer. Both signs, since of the sixteen
# levels -8 to 7 one more is negative.
DIVISORS = np.array([s * d for d in np.linspace(6.5, 9.5, 13) for s in (-1, 1)], np.float32)

FloatArray = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Account:
    """What trimming a vocabulary took away.

    Attributes:
        vocabulary: tokens that the tokenizer knows.
        kept: tokens that still have a row of their own.
        bytes_before, bytes_after: of rows, scales and map, as they are stored.
    """

    vocabulary: int
    kept: int
    bytes_before: int
    bytes_after: int

    @property
    def bytes_saved(self) -> int:
        return self.bytes_before - self.bytes_after

    def to_json(self) -> dict[str, int]:
        return {**asdict(self), "bytes_saved": self.bytes_saved}


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


def trim_vocabulary(
    model: onnx.ModelProto, kept_ids: Collection[int], unknown_id: int
) -> tuple[onnx.ModelProto, Account]:
    """A copy whose word table has rows for `kept_ids` only.

    Texts of these tokens answer to the bit as before; any other token reads the unknown's row.

    Args:
        model: as `mtl_edge.export.int8_onnx.quantize` or `embeddings_in_4_bits` gives it.
        kept_ids: special tokens included.
        unknown_id: of the unknown token, one of `kept_ids`.

    Raises:
        ExportError: the graph has no such table, or one that was trimmed before.
        OptionError: `kept_ids` has an id that the table lacks, or lacks `unknown_id`.
    """
    trimmed = onnx.ModelProto()
    trimmed.CopyFrom(model)
    constants = Constants(trimmed)
    names = [name for name in (INT8, INT8_SCALE, BITS4, BITS4_SCALE) if name in constants]
    asked = [[name, IDS] for name in names]
    readers = [node for node in trimmed.graph.node if list(node.input[:2]) in asked]
    if not readers:
        found = "a map before it, so it was trimmed" if ROW_OF_TOKEN in constants else "none"
        raise ExportError(
            f"expected a quantized encoder with a word table that {IDS} read; it has {found}: trim "
            "once, what `mtl_edge.export.int8_onnx.quantize` gives"
        )
    vocabulary = len(constants.array(names[0]))
    kept, row_of_token = _rows(vocabulary, kept_ids, unknown_id)
    before, after = 0, row_of_token.nbytes
    for name in names:
        rows = constants.array(name)
        before += rows.nbytes
        after += rows[kept].nbytes
        constants.add(name, rows[kept])
    constants.add(ROW_OF_TOKEN, row_of_token)
    for reader in readers:
        reader.input[1] = "/word_row"
    nodes = [
        helper.make_node("Gather", [ROW_OF_TOKEN, IDS], ["/word_row_small"]),
        helper.make_node("Cast", ["/word_row_small"], ["/word_row"], to=TensorProto.INT32),
        *trimmed.graph.node,
    ]
    _finish(trimmed, nodes, constants)
    return trimmed, Account(vocabulary, len(kept), before, after)


def embeddings_in_4_bits(model: onnx.ModelProto, block: int = BLOCK) -> onnx.ModelProto:
    """A copy whose word table takes four bits a number and a float16 scale a block.

    The scale is that of least squared error (see `DIVISORS`), which saves a sixth of the error of
    the largest number's scale, as much as a zero point a block does, and costs no byte.

    Args:
        model: as `mtl_edge.export.int8_onnx.quantize` or `trim_vocabulary` gives it.
        block: channels that share a scale: 16, 32, 64 or 128.

    Raises:
        ExportError: the graph has no word table in int8.
        OptionError: `block` is none of these, or does not divide the table's width.
    """
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    constants = Constants(smaller)
    if INT8 not in constants:
        raise ExportError(
            f"expected an encoder with its word table in int8, {INT8}; it has "
            f"{'one in 4 bits' if BITS4 in constants else 'none'}: give what "
            "`mtl_edge.export.int8_onnx.quantize` gives"
        )
    values = constants.array(INT8) * constants.array(INT8_SCALE)
    codes, scales = _in_4_bits(values, block)
    unsigned = (codes + 8).astype(np.uint8)  # the operator's zero point, if none is given
    constants.add(BITS4, unsigned[:, ::2] | unsigned[:, 1::2] << 4)
    constants.add(BITS4_SCALE, scales)

    readers = readers_of(smaller)
    (rows,), (scale,) = readers[INT8], readers[INT8_SCALE]
    (cast,) = readers[rows.output[0]]
    (product,) = readers[cast.output[0]]
    replaced = {node.output[0] for node in (rows, scale, cast)}
    nodes: list[NodeProto] = []
    for node in smaller.graph.node:
        if node.output[0] == product.output[0]:
            nodes += _gather(rows.input[1], product.output[0], block)
        elif node.output[0] not in replaced:
            nodes.append(node)
    _finish(smaller, nodes, constants)
    return smaller


def _gather(ids: str, output: str, block: int) -> list[NodeProto]:
    """Rows in float32. Numbers are pairs in uint8, which ONNX Runtime reads faster than int4."""
    scales = f"{BITS4_SCALE}_float32"  # ONNX Runtime casts constants once, when it loads the graph
    return [
        helper.make_node("Cast", [BITS4_SCALE], [scales], to=TensorProto.FLOAT),
        helper.make_node(
            "GatherBlockQuantized",
            [BITS4, ids, scales],
            [output],
            domain=MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=block,
        ),
    ]


def _finish(model: onnx.ModelProto, nodes: Iterable[NodeProto], constants: Constants) -> None:
    """Give the model these nodes, and of the constants those that they read."""
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants.store(model)
    OnnxModel(model).prune_graph()


def _rows(
    vocabulary: int, kept_ids: Collection[int], unknown_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.integer]]:
    """Ids that stay, in order, and the row that each token reads from now on, `[vocabulary]`."""
    kept = np.unique(np.fromiter(kept_ids, np.int64, len(kept_ids)))
    if strange := [int(i) for i in kept if not 0 <= i < vocabulary]:
        raise OptionError(
            f"expected token ids from 0 to {vocabulary - 1}; got {strange[0]}: take them from the "
            "checkpoint's own tokenizer"
        )
    if unknown_id not in kept:
        raise OptionError(
            f"expected the unknown token, {unknown_id}, among the tokens to keep, as all others "
            f"read its row; got {len(kept)} without it: add the tokenizer's special tokens"
        )
    row_of_token = np.full(vocabulary, np.searchsorted(kept, unknown_id))
    row_of_token[kept] = np.arange(len(kept))
    return kept, row_of_token.astype(np.uint16 if len(kept) <= 2**16 else np.int32)


def _in_4_bits(values: FloatArray, block: int) -> tuple[Codes, npt.NDArray[np.float16]]:
    """Codes from -8 to 7, `[rows, width]`, and scales, `[rows, width / block]`."""
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


def trim_vocabulary_openvino(
    model: ov.Model, kept_ids: Collection[int], unknown_id: int
) -> tuple[ov.Model, Account]:
    """The same of an encoder as `mtl_edge.export.int8_openvino.quantize` gives it.

    Raises:
        ExportError: it has no word table in int8 that token ids read, or it was trimmed before.
        OptionError: `kept_ids` has an id that the table lacks, or lacks `unknown_id`.
    """
    trimmed = model.clone()
    gather, rows, scales = _words(trimmed)
    if gather.input_value(1).get_node().get_type_name() != "Parameter":
        raise ExportError(
            f"expected a word table that {IDS} read; a map is between them, so it was trimmed "
            "before: trim once, what `mtl_edge.export.int8_openvino.quantize` gives"
        )
    kept, row_of_token = _rows(len(rows), kept_ids, unknown_id)
    table = opset13.multiply(
        opset13.convert(opset13.constant(rows[kept]), "f32"), opset13.constant(scales[kept])
    )
    to_rows = opset13.convert(opset13.constant(row_of_token, name=ROW_OF_TOKEN), "i32")
    row = opset13.gather(to_rows, gather.input_value(1), opset13.constant(np.int64(0)))
    gather.input(0).replace_source_output(table.output(0))
    gather.input(1).replace_source_output(row.output(0))
    trimmed.validate_nodes_and_infer_types()
    before = rows.nbytes + scales.nbytes
    after = rows[kept].nbytes + scales[kept].nbytes + row_of_token.nbytes
    return trimmed, Account(len(rows), len(kept), before, after)


def embeddings_in_4_bits_openvino(model: ov.Model, block: int = BLOCK) -> ov.Model:
    """The same of an encoder of OpenVINO's; what is to be trimmed, too, has to be trimmed before.

    Raises:
        ExportError: it has no word table in int8 that token ids read.
        OptionError: `block` is not of 16, 32, 64 and 128, or does not divide the table's width.
    """
    smaller = model.clone()
    gather, rows, old_scales = _words(smaller)
    codes, scales = _in_4_bits(rows * old_scales, block)
    count, width = codes.shape
    nibbles = codes.view(np.uint8) & 15
    packed = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    shape = [count, width // block, block]
    stored = opset13.constant(ov.Tensor(packed, shape, ov.Type.i4), shared_memory=False)
    scale = opset13.constant(scales[:, :, np.newaxis])
    blocks = opset13.multiply(opset13.convert(stored, "f32"), opset13.convert(scale, "f32"))
    shape_of_table = opset13.constant(np.array([count, width], np.int64))
    table = opset13.reshape(blocks, shape_of_table, special_zero=False)
    gather.input(0).replace_source_output(table.output(0))
    smaller.validate_nodes_and_infer_types()
    return smaller


def _words(model: ov.Model) -> tuple[ov.Node, Codes, FloatArray]:
    """The node that reads the word table, its rows `[tokens, width]` and scales `[tokens, 1]`."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather" or not _reads_ids(node.input_value(1).get_node()):
            continue
        table = node.input_value(0).get_node()
        if table.get_type_name() == "Multiply":
            codes = table.input_value(0).get_node()
            scales = table.input_value(1).get_node()
            rows = codes.input_value(0).get_node() if codes.get_input_size() else codes
            if rows.get_element_type() == ov.Type.i8 and rows.get_type_name() == "Constant":
                return node, rows.data, scales.data
    raise ExportError(
        f"expected an encoder with a word table in int8, one scale a row, that {IDS} read; it has "
        "none: give what `mtl_edge.export.int8_openvino.quantize` gives"
    )


def _reads_ids(node: ov.Node) -> bool:
    """Whether it is the token ids, or rows that were looked up by them."""
    if node.get_type_name() == "Gather":
        return _reads_ids(node.input_value(1).get_node())
    return node.get_type_name() == "Parameter" and IDS in node.output(0).get_names()
