"""The word table in an int8 graph of ONNX Runtime's operators."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from mtl_edge.export.graphs.rewrite import MICROSOFT, Constants
from mtl_edge.export.int8.word_table import BLOCK, FloatArray, WordTable, in_4_bits

__all__ = ["word_rows"]

ROW_OF_TOKEN = "/word_row_of_token"
INT8, INT8_SCALE = "/word_rows_int8", "/word_rows_scale"
BITS4, BITS4_SCALE = "/word_rows_4bit", "/word_rows_4bit_scale"


def word_rows(
    constants: Constants, values: FloatArray, output: str, table: WordTable
) -> list[NodeProto]:
    """Nodes that give the word table's rows for `input_ids`, `[batch, tokens, width]`, as float32.

    Args:
        constants: get what the nodes read.
        values: the table in float32, `[vocabulary, width]`.
        output: name of what is given.

    Raises:
        OptionError: see `WordTable.rows` and `mtl_edge.export.int8.word_table.in_4_bits`.
    """
    ids, nodes = "input_ids", []
    if table.kept is not None:
        kept, row_of_token = table.rows(len(values))
        values, ids = values[kept], "/word_row"
        small = f"{ids}_small"
        nodes = [
            helper.make_node(
                "Gather", [constants.add(ROW_OF_TOKEN, row_of_token), "input_ids"], [small]
            ),
            helper.make_node("Cast", [small], [ids], to=TensorProto.INT32),
        ]
    # One scale a row.
    scale = np.maximum(np.abs(values).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
    rows = np.rint(values / scale).astype(np.int8)
    if table.four_bits:
        return [*nodes, *_from_4_bits(constants, rows * scale, ids, output)]
    make = helper.make_node
    return [
        *nodes,
        make("Gather", [constants.add(INT8, rows), ids], ["/words_int8"]),
        make("Gather", [constants.add(INT8_SCALE, scale), ids], ["/words_scale"]),
        make("Cast", ["/words_int8"], ["/words_unscaled"], to=TensorProto.FLOAT),
        make("Mul", ["/words_unscaled", "/words_scale"], [output]),
    ]


def _from_4_bits(
    constants: Constants, values: FloatArray, ids: str, output: str
) -> list[NodeProto]:
    """Numbers are pairs in uint8, which ONNX Runtime reads faster than int4."""
    codes, scales = in_4_bits(values)
    unsigned = (codes + 8).astype(np.uint8)  # the operator's zero point, if none is given
    packed = constants.add(BITS4, unsigned[:, ::2] | unsigned[:, 1::2] << 4)
    wide = f"{BITS4_SCALE}_float32"  # ONNX Runtime casts constants once, when it loads the graph
    return [
        helper.make_node(
            "Cast", [constants.add(BITS4_SCALE, scales)], [wide], to=TensorProto.FLOAT
        ),
        helper.make_node(
            "GatherBlockQuantized",
            [packed, ids, wide],
            [output],
            domain=MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=BLOCK,
        ),
    ]
