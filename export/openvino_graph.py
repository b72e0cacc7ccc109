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

import numpy as np
import numpy.typing as npt
import openvino as ov

from mtl_edge.export.capture import INPUTS, state_names
from mtl_edge.files import sha256_of

__all__ = ["digest", "read", "states_of", "write"]

Array = npt.NDArray[np.float32]


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


def states_of(
    encoder: ov.Model, depth: int
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Mapping[str, Array]]:
    """The encoder as a function of `input_ids` and `attention_mask` to states by name."""
    compiled = ov.Core().compile_model(encoder, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = state_names(depth)
    known = {name for port in compiled.inputs for name in port.get_names()}

    def run(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Mapping[str, Array]:
        feeds = dict(zip(INPUTS, (ids, mask), strict=True))
        values = compiled({name: value for name, value in feeds.items() if name in known})
        return {name: values[name] for name in names}

    return run
