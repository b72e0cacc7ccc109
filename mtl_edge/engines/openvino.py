"""OpenVINO on the CPU."""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from mtl_edge.engines import Logits
from mtl_edge.errors import EngineError

__all__ = ["OpenVinoEngine", "start"]


class OpenVinoEngine:
    """One compiled model; each concurrent call borrows an infer request of its own."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._model = model
        self._idle: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        self.outputs = [port.get_any_name() for port in model.outputs]

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> Logits:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        try:
            request.infer(feeds, share_inputs=True)
        except Exception as error:  # OpenVINO raises plain RuntimeError for everything
            raise EngineError(f"OpenVINO failed on {input_ids.shape}: {error}") from error
        result = {
            name: request.get_output_tensor(i).data.copy() for i, name in enumerate(self.outputs)
        }
        self._idle.put(request)
        return result

    def close(self) -> None:
        self._idle = queue.LifoQueue()
        del self._model


def start(file: Path, threads: int) -> OpenVinoEngine:
    """
    Raises:
        EngineError: OpenVINO cannot read or compile the file.
    """
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # What is not int8 stays float32: bfloat16 would change answers from machine to machine.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        model = ov.Core().compile_model(str(file), "CPU", settings)
    except Exception as error:  # OpenVINO raises plain RuntimeError for everything
        raise EngineError(f"OpenVINO cannot open {file}: {error}") from error
    return OpenVinoEngine(model)
