"""OpenVINO: on the CPU, or on a GPU or NPU that it finds."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from mtl_edge.engines import CPU, Logits, Setup
from mtl_edge.errors import EngineError

__all__ = ["OpenVinoEngine", "start"]


# Sums over tokens are taken so many at a time, and what is left over in another way, whose rounding
# differs. In multiples of it, a text's logits are the same to the bit however it is padded.
MULTIPLE = 16


class OpenVinoEngine:
    """One compiled model; each concurrent call borrows an infer request of its own."""

    def __init__(self, model: ov.CompiledModel, max_tokens: int | None) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._idle: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        self.outputs = [port.get_any_name() for port in model.outputs]

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> Logits:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        feeds = {
            "input_ids": self._padded(input_ids),
            "attention_mask": self._padded(attention_mask),
        }
        try:
            request.infer(feeds, share_inputs=True)
        except Exception as error:  # OpenVINO raises plain RuntimeError for everything
            raise EngineError(f"OpenVINO failed on {input_ids.shape}: {error}") from error
        result = {
            name: request.get_output_tensor(i).data.copy() for i, name in enumerate(self.outputs)
        }
        self._idle.put(request)
        return result

    def _padded(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        tokens = values.shape[1]
        wanted = -(-tokens // MULTIPLE) * MULTIPLE
        if self._max_tokens is not None:
            wanted = max(tokens, min(wanted, self._max_tokens))
        if wanted == tokens:
            return values
        padded = np.zeros((len(values), wanted), np.int64)
        padded[:, :tokens] = values
        return padded

    def close(self) -> None:
        self._idle = queue.LifoQueue()
        del self._model


def start(files: Sequence[Path], setup: Setup) -> OpenVinoEngine:
    """
    Args:
        files: the graph's. If there are two graphs among them, encoder and heads, they are joined.

    Raises:
        EngineError: OpenVINO has no such device, or cannot read or compile a file.
    """
    core = ov.Core()
    _require(setup.device, core)
    try:
        graphs = [core.read_model(str(file)) for file in files if file.suffix != ".bin"]
        model = core.compile_model(_joined(*graphs), setup.device, _settings(setup))
    except Exception as error:  # OpenVINO raises plain RuntimeError for everything
        raise EngineError(f"OpenVINO cannot open {files[0]}: {error}") from error
    return OpenVinoEngine(model, setup.max_tokens)


def _settings(setup: Setup) -> dict[str, object]:
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if setup.device == CPU:
        settings["INFERENCE_NUM_THREADS"] = setup.threads
        # What is not int8 stays float32: bfloat16 would change answers from machine to machine.
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if setup.precision == "bf16" else "f32"
    return settings


def _require(device: str, core: ov.Core) -> None:
    known = core.available_devices
    if device.partition(".")[0] not in {name.partition(".")[0] for name in known}:
        raise EngineError(
            f"OpenVINO finds no device {device!r} here; it finds {', '.join(known)}. A GPU or NPU "
            "needs its driver"
        )


def _joined(encoder: ov.Model, heads: ov.Model | None = None) -> ov.Model:
    """One graph: what the heads take by name is the encoder's output or input of that name."""
    if heads is None:
        return encoder
    values = {name: port.get_node().input_value(0)
              for port in encoder.outputs for name in port.get_names()}  # fmt: skip
    values |= {name: port for port in encoder.inputs for name in port.get_names()}
    inputs = encoder.get_parameters()
    for parameter in heads.get_parameters():
        name = parameter.output(0).get_any_name()
        if name in values:
            parameter.output(0).replace(values[name])
        else:  # an input that this encoder does not read
            inputs.append(parameter)
    return ov.Model(heads.get_results(), inputs)
