"""Encoder and heads as two graphs of OpenVINO's format, which the runtime joins when it loads them.

    openvino.int8.xml, openvino.int8.bin                the encoder, token ids to states
    openvino.heads.int8.xml, openvino.heads.int8.bin    the heads, states to logits

A graph of this format keeps all its weights in one file, so that new heads would rewrite the
encoder's too; as two graphs, the encoder's files stay byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from mtl_edge.export.graphs.capture import INPUTS, state_names
from mtl_edge.io.folders import sha256_of

__all__ = ["digest", "feeds", "read", "running", "states_of", "write"]

Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def read(file: Path) -> ov.Model:
    """An ONNX graph as a model of OpenVINO's."""
    return ov.Core().read_model(str(file))


def write(model: ov.Model, file: Path, half: bool = False) -> None:
    """Write `file` (.xml) and its weights beside it (.bin), float32 ones in 16 bits if `half`."""
    for place, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        # A name that OpenVINO gave counts the nodes that this process has made so far.
        if re.fullmatch(rf"{kind}(_\d+)+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}.{place}")
    ov.save_model(model, str(file), compress_to_fp16=half)


def digest(model: ov.Model) -> str:
    """Hexadecimal sha256 of the model as it would be written."""
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        file = Path(work) / "model.xml"
        write(model, file)
        parts = (sha256_of(file), sha256_of(file.with_suffix(".bin")))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def feeds(model: ov.Model, ids: Ids, mask: Ids) -> dict[str, Ids]:
    """Those of the inputs that the model reads: at depth 0 it reads no mask."""
    known = {name for port in model.inputs for name in port.get_names()}
    given = dict(zip(INPUTS, (ids, mask), strict=True))
    return {name: value for name, value in given.items() if name in known}


def running(model: ov.Model) -> Callable[[Ids, Ids], Any]:
    """The model on the CPU in float32, from `input_ids` and `attention_mask` to its outputs."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda ids, mask: compiled(feeds(model, ids, mask))


def states_of(encoder: ov.Model, depth: int) -> Callable[[Ids, Ids], Mapping[str, Array]]:
    """The encoder as a function of `input_ids` and `attention_mask` to states by name."""
    values_of, names = running(encoder), state_names(depth)

    def run(ids: Ids, mask: Ids) -> Mapping[str, Array]:
        values = values_of(ids, mask)
        return {name: values[name] for name in names}

    return run
