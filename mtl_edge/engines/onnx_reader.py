"""An ONNX graph as plain data: nodes, and constants in numpy. Reads with the package `onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_edge.errors import EngineError, MissingPackageError

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUTS", "Array", "Node", "OnnxGraph", "read"]

Array = npt.NDArray[Any]

INPUTS = ("input_ids", "attention_mask")
OPSETS = range(13, 21)  # axes are inputs from 13 on; later ones than 20 change operators again


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        op: with its domain, if that is not ONNX's own: `com.microsoft.Gelu`.
        inputs: names of values; an optional one that is left out is empty.
        attributes: numbers, lists, strings, and arrays where ONNX has tensors.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """Nodes in the order in which they run, and what they start from.

    Attributes:
        outputs: names, one per task.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read(files: Sequence[Path]) -> OnnxGraph:
    """
    Args:
        files: the graph, then those that it may take weights from; it may read no other.

    Raises:
        EngineError: it is not a graph of `input_ids` and `attention_mask`, or is cut short.
        MissingPackageError: the package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "to read a graph for torch the package onnx is needed; install it with "
            "`pip install 'mtl-edge[torch]'`"
        ) from error
    file = files[0]
    try:
        model = onnx.load(str(file), load_external_data=False)
        _check(model, file, {path.name for path in files[1:]})
        _load_weights(model, {path.name: path.resolve() for path in files[1:]})
        constants = {c.name: _array(c) for c in model.graph.initializer}
        nodes = tuple(map(_node, model.graph.node))
    except EngineError:
        raise
    except Exception as error:  # of protobuf, of onnx and of the system
        raise EngineError(
            f"cannot read {file} as an ONNX graph: {error}; torch runs a bundle's .onnx graphs: "
            "export it again with --targets onnx-fp16"
        ) from error
    outputs = tuple(value.name for value in model.graph.output)
    return OnnxGraph(nodes, constants, INPUTS, outputs)


def _check(model: onnx.ModelProto, file: Path, companions: set[str]) -> None:
    inputs = sorted(value.name for value in model.graph.input)
    if inputs != sorted(INPUTS):
        came = ", ".join(inputs) or "nothing"
        raise EngineError(f"expected a graph of {' and '.join(INPUTS)}; {file} takes {came}")
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if any(version not in OPSETS for version in versions):
        raise EngineError(
            f"expected a graph of ONNX's opset {OPSETS[0]} to {OPSETS[-1]}; {file} is of "
            f"{versions[0]}: export the bundle again"
        )
    for constant in model.graph.initializer:
        for entry in constant.external_data:
            if entry.key == "location" and entry.value not in companions:
                raise EngineError(
                    f"{file} takes weights from {entry.value!r}, which is none of its files in "
                    "the bundle: copy or export the bundle again"
                )


def _load_weights(model: onnx.ModelProto, files: Mapping[str, Path]) -> None:
    """Take weights from `files`, by name: behind a link, which onnx itself does not follow."""
    from onnx import TensorProto, external_data_helper

    for constant in model.graph.initializer:
        if not external_data_helper.uses_external_data(constant):
            continue
        (place,) = (entry for entry in constant.external_data if entry.key == "location")
        real = files[place.value]
        place.value = real.name
        external_data_helper.load_external_data_for_tensor(constant, str(real.parent))
        constant.data_location = TensorProto.DEFAULT
        del constant.external_data[:]


def _node(proto: onnx.NodeProto) -> Node:
    from onnx import helper

    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in proto.attribute}
    return Node(
        domain + proto.op_type, tuple(proto.input), tuple(proto.output), attributes, proto.name
    )


def _plain(value: Any) -> Any:
    from onnx import TensorProto

    if isinstance(value, TensorProto):
        return _array(value)
    return value.decode() if isinstance(value, bytes) else value


# Torch has few operators for these, so they are widened.
WIDER: Mapping[str, type[np.generic]] = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


def _array(tensor: onnx.TensorProto) -> Array:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    return array.astype(WIDER.get(array.dtype.name, array.dtype), copy=False)
