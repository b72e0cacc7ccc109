"""The word table in an int8 encoder of OpenVINO's, as NNCF leaves it."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13

from mtl_edge.errors import ExportError
from mtl_edge.export.int8.word_table import BLOCK, Codes, FloatArray, WordTable, in_4_bits

__all__ = ["with_word_table"]

IDS = "input_ids"
ROW_OF_TOKEN = "/word_row_of_token"


def with_word_table(model: ov.Model, table: WordTable) -> ov.Model:
    """A copy whose word table is stored so; all else stays as it is.

    Args:
        model: as `mtl_edge.export.int8.int8_openvino.quantize` gives it.

    Raises:
        ExportError: it has no word table in int8 that token ids read.
        OptionError: see `WordTable.rows` and `mtl_edge.export.int8.word_table.in_4_bits`.
    """
    stored = model.clone()
    gather, codes, scales = _word_table(stored)
    if table.kept is not None:
        kept, row_of_token = table.rows(len(codes))
        codes, scales = codes[kept], scales[kept]
        to_rows = opset13.convert(opset13.constant(row_of_token, name=ROW_OF_TOKEN), "i32")
        row = opset13.gather(to_rows, gather.input_value(1), opset13.constant(np.int64(0)))
        gather.input(1).replace_source_output(row.output(0))
    if table.four_bits:
        rows = _from_4_bits(codes * scales)
    else:
        whole = opset13.convert(opset13.constant(codes), "f32")
        rows = opset13.multiply(whole, opset13.constant(scales))
    gather.input(0).replace_source_output(rows.output(0))
    stored.validate_nodes_and_infer_types()
    return stored


def _from_4_bits(values: FloatArray) -> ov.Node:
    codes, scales = in_4_bits(values)
    count, width = codes.shape
    nibbles = codes.view(np.uint8) & 15
    packed = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    shape = [count, width // BLOCK, BLOCK]
    stored = opset13.constant(ov.Tensor(packed, shape, ov.Type.i4), shared_memory=False)
    scale = opset13.constant(scales[:, :, np.newaxis])
    blocks = opset13.multiply(opset13.convert(stored, "f32"), opset13.convert(scale, "f32"))
    shape_of_table = opset13.constant(np.array([count, width], np.int64))
    return opset13.reshape(blocks, shape_of_table, special_zero=False)


def _word_table(model: ov.Model) -> tuple[ov.Node, Codes, FloatArray]:
    """The node that reads the word table, its rows `[tokens, width]` and scales `[tokens, 1]`."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather" or not _is_ids(node.input_value(1)):
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
        "none: give what `mtl_edge.export.int8.int8_openvino.quantize` gives"
    )


def _is_ids(value: ov.Output) -> bool:
    return value.get_node().get_type_name() == "Parameter" and IDS in value.get_names()
