"""One ONNX graph of encoder and heads, their weights in a file each.

    model.int8.onnx     what is computed: some 200 kB, no weights
    encoder.int8.bin    the encoder's weights
    heads.int8.bin      the heads' weights

A cheaper stage reads what it has in common with the whole encoder, the word table first of all,
from the encoder's file, and brings the rest:

    model.int8.exit0.onnx, encoder.int8.exit0.bin, heads.int8.exit0.bin

New heads rewrite the first and the last; the encoder's file, nine tenths of the bundle, stays byte
for byte. ONNX Runtime maps the files into memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, compose, external_data_helper, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.export.graphs.capture import INPUTS, state_names

__all__ = ["join", "places_of", "replace_heads", "states_of", "write"]

PREFIX = "heads/"
INLINE = 1024  # bytes; smaller constants, shapes among them, stay in the graph
ALIGNMENT = 64  # bytes; a cache line, and as much as any vector instruction asks for

Array = npt.NDArray[np.float32]
# Where bytes of this sha256 lie: file, offset, length.
Places = Mapping[bytes, tuple[str, int, int]]


def join(encoder: onnx.ModelProto, heads: onnx.ModelProto) -> onnx.ModelProto:
    """One graph from token ids to every task's logits.

    Args:
        encoder: gives states, and perhaps logits of former heads, which go.
        heads: as `mtl_edge.export.graphs.capture.capture_heads` writes them.
    """
    joined = onnx.ModelProto()
    joined.CopyFrom(encoder)
    _without_heads(joined)
    added = compose.add_prefix(heads, PREFIX, rename_inputs=False, rename_outputs=False).graph
    joined.graph.node.extend(added.node)
    joined.graph.initializer.extend(added.initializer)
    inputs = {value.name: value for value in (*added.input, *joined.graph.input)}
    del joined.graph.input[:]  # both, read or not: what a caller gives does not change with heads
    joined.graph.input.extend(inputs[name] for name in INPUTS)
    del joined.graph.output[:]
    joined.graph.output.extend(added.output)
    known = {opset.domain for opset in joined.opset_import}
    joined.opset_import.extend(o for o in heads.opset_import if o.domain not in known)
    # Later heads may read states that these do not, so what makes them stays.
    states = [name for name in _made(joined) if re.fullmatch(r"state\.\d+", name)]
    joined.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in states
    )
    whole = OnnxModel(joined)
    whole.prune_graph()
    whole.topological_sort()
    del joined.graph.output[len(added.output) :]
    return joined


def _made(model: onnx.ModelProto) -> Iterator[str]:
    """Names of all that nodes give."""
    return (name for node in model.graph.node for name in node.output)


def _without_heads(model: onnx.ModelProto) -> None:
    graph = model.graph
    for values, kept in (
        (graph.node, [n for n in graph.node if not n.name.startswith(PREFIX)]),
        (graph.initializer, [c for c in graph.initializer if not c.name.startswith(PREFIX)]),
    ):
        del values[:]
        values.extend(kept)


def write(
    model: onnx.ModelProto,
    folder: Path,
    graph: str,
    encoder: str | None,
    heads: str,
    shared: Places = MappingProxyType({}),
) -> None:
    """Write a joined graph and its weights.

    Args:
        graph: file of the graph.
        encoder: file for the encoder's weights; none: they are in a file already.
        heads: file for the heads' weights.
        shared: where weights lie already; if that is all of the encoder's, its file is not written.

    Raises:
        onnx.checker.ValidationError: it is not a valid ONNX graph.
    """
    of_heads = [c for c in model.graph.initializer if c.name.startswith(PREFIX)]
    _move(of_heads, folder / heads)
    if encoder is not None:
        rest = [c for c in model.graph.initializer if not c.name.startswith(PREFIX)]
        _move(rest, folder / encoder, shared)
    onnx.save(model, str(folder / graph))
    onnx.checker.check_model(str(folder / graph))


def _move(
    constants: Sequence[TensorProto], file: Path, shared: Places = MappingProxyType({})
) -> None:
    """Put the larger constants' bytes into `file`, and references to it in their place.

    Args:
        shared: where bytes lie already: these are referred to, and not written again.
    """
    with file.open("wb") as out:
        for constant in constants:
            data = onnx.numpy_helper.to_array(constant).tobytes()
            if len(data) < INLINE:
                continue
            place = shared.get(sha256(data).digest())
            if place is None:
                out.write(b"\0" * (-out.tell() % ALIGNMENT))
                place = file.name, out.tell(), len(data)
                out.write(data)
            location, offset, length = place
            constant.raw_data = data  # what is moved has to be there, says the helper
            external_data_helper.set_external_data(constant, location, offset, length)
            constant.ClearField("raw_data")
            for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                constant.ClearField(field)
    if not file.stat().st_size:  # all of it lies elsewhere
        file.unlink()


def places_of(folder: Path, graph: str) -> Places:
    """Where a written graph's weights lie, by their sha256."""
    places = {}
    for constant in onnx.load(str(folder / graph), load_external_data=False).graph.initializer:
        if constant.data_location != TensorProto.EXTERNAL:
            continue
        entry = {pair.key: pair.value for pair in constant.external_data}
        offset, length = int(entry["offset"]), int(entry["length"])
        with (folder / entry["location"]).open("rb") as file:
            file.seek(offset)
            places[sha256(file.read(length)).digest()] = entry["location"], offset, length
    return places


def replace_heads(former: Path, heads: Path, folder: Path, files: Sequence[str]) -> None:
    """Write the graph in the folder `former` with new heads; its encoder's weights stay.

    Args:
        heads: an ONNX graph of the new heads.
        folder: gets the graph, the first of `files`, and the heads' weights, the last.
    """
    graph, _, weights = files
    known = onnx.load(str(former / graph), load_external_data=False)
    write(join(known, onnx.load(str(heads))), folder, graph, None, weights)


def states_of(
    encoder: onnx.ModelProto, depth: int
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Mapping[str, Array]]:
    """The encoder as a function of `input_ids` and `attention_mask` to states by name."""
    session = ort.InferenceSession(
        encoder.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    names = state_names(depth)
    known = {value.name for value in session.get_inputs()}  # depth 0 reads no mask

    def run(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Mapping[str, Array]:
        feeds = dict(zip(INPUTS, (ids, mask), strict=True))
        values = session.run(names, {n: value for n, value in feeds.items() if n in known})
        return dict(zip(names, values, strict=True))

    return run
