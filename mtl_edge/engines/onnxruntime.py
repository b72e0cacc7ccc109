"""ONNX Runtime: on the CPU, or wherever it has a provider for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mtl_edge.engines import CPU, Ids, Logits, Setup, Spin, failure
from mtl_edge.errors import EngineError

__all__ = ["OnnxRuntimeEngine", "start"]

PROVIDER = "ExecutionProvider"
# Worker threads that wait busily between the operators of a call save a third of its time at batch
# 1; between calls they would take the cores from the app around.
SPIN: Mapping[Spin, Mapping[str, str]] = {
    "call": {"session.force_spinning_stop": "1"},
    "never": {"session.intra_op.allow_spinning": "0"},
    "always": {},
}
# What a batch goes through stays in the cache of a core or two.
TOKENS_PER_BATCH = 768
FROM_MEMORY = "add_external_initializers_from_files_in_memory"


class OnnxRuntimeEngine:
    """One inference session; safe to run from several threads."""

    multiple = 1
    tokens_per_batch = TOKENS_PER_BATCH
    fixed_shapes: tuple[tuple[int, int], ...] = ()

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        try:
            values = self._session.run(self.outputs, feeds)
        except Exception as error:  # its exceptions share no base class
            raise failure("ONNX Runtime", input_ids.shape, error) from error
        return dict(zip(self.outputs, values, strict=True))

    def close(self) -> None:
        del self._session


def start(files: Sequence[Path], setup: Setup) -> OnnxRuntimeEngine:
    """
    Args:
        files: the graph; it names the files of its weights itself.

    Raises:
        EngineError: ONNX Runtime has no such device, or cannot read or run the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = setup.threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and an app's stderr is its own
    for key, value in SPIN[setup.spin].items():
        options.add_session_config_entry(key, value)
    providers = _providers(setup.device)
    try:
        session = _session(files, options, providers)
    except Exception as error:  # its exceptions share no base class
        raise EngineError(f"ONNX Runtime cannot open {files[0]}: {error}") from error
    if session.get_providers()[0] != providers[0][0]:  # it goes on without, and only logs that
        raise EngineError(
            f"ONNX Runtime has device {setup.device!r}, but cannot start it; is its driver there?"
        )
    return OnnxRuntimeEngine(session)


def _session(
    files: Sequence[Path], options: ort.SessionOptions, providers: list[tuple[str, dict[str, str]]]
) -> ort.InferenceSession:
    graph = str(files[0])
    try:
        return ort.InferenceSession(graph, options, providers=providers)
    except Exception:
        linked = [file for file in files[1:] if file.is_symlink()]
        if not linked or not hasattr(options, FROM_MEMORY):
            raise
    # Some releases, as 1.24.1, refuse the links of the Hub's cache; those can be given the bytes.
    names = [os.path.relpath(file, files[0].parent) for file in linked]
    weights = [np.memmap(file, mode="r") for file in linked]
    getattr(options, FROM_MEMORY)(names, weights, [each.size for each in weights])
    return ort.InferenceSession(graph, options, providers=providers)


def _providers(device: str) -> list[tuple[str, dict[str, str]]]:
    """The device's provider, and the CPU's for what that cannot run, each with its options."""
    name, colon, number = device.partition(":")
    wanted, known = f"{name}{PROVIDER}", ort.get_available_providers()
    if wanted not in known or bool(colon) != number.isdecimal():
        names = ", ".join(name.removesuffix(PROVIDER) for name in known)
        raise EngineError(
            f"this build of ONNX Runtime has no device {device!r}; it has {names}, and a certain "
            "one of several as CUDA:1. Others come with packages of their own, as onnxruntime-gpu"
        )
    options = {"device_id": number} if number else {}
    return list({wanted: (wanted, options), f"{CPU}{PROVIDER}": (f"{CPU}{PROVIDER}", {})}.values())
