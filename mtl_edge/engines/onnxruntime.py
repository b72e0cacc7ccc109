"""ONNX Runtime: on the CPU, or wherever it has a provider for; CUDA: see `onnxruntime_cuda`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mtl_edge.engines import CPU, Engine, Ids, Logits, Setup, Spin, failure, is_cuda
from mtl_edge.errors import EngineError

__all__ = ["CPU_PROVIDER", "OnnxRuntimeEngine", "create_session", "session_options", "start"]

PROVIDER = "ExecutionProvider"
OLDEST = (1, 27)  # as in pyproject.toml, for packages in the place of onnxruntime
CPU_PROVIDER = f"{CPU}{PROVIDER}"
# Where a CPU adds pairs of int8 products in 16 bits, which overflows: multiply by unsigned weights
# instead. It takes half as long again, on CPUs too that need no such thing.
EXACT = {"session.x64quantprecision": "1"}
# A graph of one node, `MatMulInteger` of uint8 `a` and int8 `b` to int32 `c`.
PRODUCT = (
    b'\x08\x07:>\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x02'
    b"Z\t\n\x01b\x12\x04\n\x02\x08\x03b\t\n\x01c\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\r"
)
# Worker threads that wait busily between the operators of a call save a third of its time at batch
# 1; between calls they would take the cores from the app around.
SPIN: dict[Spin, dict[str, str]] = {
    "call": {"session.force_spinning_stop": "1"},
    "never": {"session.intra_op.allow_spinning": "0"},
    "always": {},
}
# What a batch goes through stays in the cache of a core or two.
TOKENS_PER_BATCH = 768

Providers = list[tuple[str, dict[str, str]]]


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


def session_options(
    threads: int | None = None, spin: Spin = "call", *, exact: bool = True
) -> ort.SessionOptions:
    """What every session is made with: quiet, and with exact int8 sums on every CPU.

    Args:
        threads: None: as many as ONNX Runtime takes.
        spin: see `mtl_edge.engines.Setup`.
        exact: false: sums as they are in an app's session that does not ask for exact ones.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and an app's stderr is its own
    for key, value in (SPIN[spin] | (EXACT if exact and _overflows() else {})).items():
        options.add_session_config_entry(key, value)
    return options


@cache
def _overflows() -> bool:
    """Whether int8 sums overflow on this CPU, as they do on x86 without VNNI: asked of a product.

    Which kernels ONNX Runtime takes for a CPU it does not say.
    """
    a, b = np.full((2, 8), 255, np.uint8), np.full((8, 16), 127, np.int8)
    options = session_options(1, exact=False)
    try:
        session = ort.InferenceSession(PRODUCT, options, providers=[CPU_PROVIDER])
        (sums,) = session.run(None, {"a": a, "b": b})
    except Exception:  # a build that was reduced to a few operators: rather slow than wrong
        return True
    return bool((sums != a.astype(np.int32) @ b.astype(np.int32)).any())


def _require_version(version: str) -> None:
    """
    Raises:
        EngineError: this ONNX Runtime opens weights from outside of a graph's folder.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        raise EngineError(
            f"ONNX Runtime {version} is installed, expected {'.'.join(map(str, OLDEST))} or newer, "
            "which refuses graphs whose weights lie outside of their folder: upgrade onnxruntime, "
            "or the package that stands in its place"
        )


def start(files: Sequence[Path], setup: Setup) -> Engine:
    """Open a graph in ONNX Runtime.

    Args:
        files: the graph; it names the files of its weights itself.

    Raises:
        EngineError: ONNX Runtime has no such device, or cannot read or run the file.
    """
    _require_version(ort.__version__)
    if is_cuda(setup.device):
        from mtl_edge.engines import onnxruntime_cuda

        return onnxruntime_cuda.start(files, setup)
    options = session_options(setup.threads, setup.spin)
    providers = _providers(setup.device)
    try:
        session = create_session(files[0], options, providers)
    except Exception as error:  # its exceptions share no base class
        raise EngineError(f"ONNX Runtime cannot open {files[0]}: {error}") from error
    if session.get_providers()[0] != providers[0][0]:  # it goes on without, and only logs that
        raise EngineError(
            f"ONNX Runtime has device {setup.device!r}, but cannot start it; is its driver there?"
        )
    return OnnxRuntimeEngine(session)


def create_session(
    graph: Path, options: ort.SessionOptions, providers: Providers
) -> ort.InferenceSession:
    """A session of a graph, which raises what goes wrong.

    Args:
        graph: its file; it names the files of its weights itself.
        providers: by name, each with its options.
    """
    # With its fallback it would print an error and go on with the CPU.
    return ort.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)


def _providers(device: str) -> Providers:
    """The device's provider, and the CPU's for what that cannot run, each with its options."""
    name, colon, number = device.partition(":")
    wanted, known = f"{name}{PROVIDER}", ort.get_available_providers()
    if wanted not in known or bool(colon) != number.isdecimal():
        names = ", ".join(name.removesuffix(PROVIDER) for name in known)
        raise EngineError(
            f"this build of ONNX Runtime has no device {device!r}; it has {names}, and a certain "
            "one of several as Dml:1. Others come with packages of their own"
        )
    options = {"device_id": number} if number else {}
    return list({wanted: (wanted, options), CPU_PROVIDER: (CPU_PROVIDER, {})}.values())
