"""ONNX Runtime on an NVIDIA GPU: buffers that stay on the device, a CUDA graph for each shape.

A small encoder has a hundred kernels of a few microseconds each, and starting them one by one takes
longer than they run. A CUDA graph starts all of them at once, but holds for one shape and for the
addresses that it was captured with. So inputs are padded to one of a few shapes, each with buffers
of its own on the device: texts are copied into them, logits out of them.

    first call of a shape   runs without a graph; its outputs become the shape's buffers
    second call             ONNX Runtime runs it once more and captures it
    all others              replay the graph

The rules are those of the CUDA execution provider's documentation ("Using CUDA Graphs" in
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html): no control flow, every
node on CUDA but for those that compute shapes, inputs and outputs bound at fixed addresses, shapes
fixed, one thread at a time; the run option `gpu_graph_id` names the graph to capture or to replay,
-1 does without. ONNX Runtime refuses to capture a graph that breaks the first two, as int8 graphs
do, some of whose operators have no CUDA kernel and run on the CPU: such a graph is opened once more
without capturing, and runs kernel by kernel.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mtl_edge.batches.planning import rounded
from mtl_edge.engines import Ids, Logits, Setup, failure
from mtl_edge.engines.onnxruntime import CPU_PROVIDER, create_session, session_options
from mtl_edge.engines.onnxruntime_wheels import CUDA_PROVIDER, require_cuda
from mtl_edge.errors import EngineError

__all__ = ["BucketEngine", "bucket_of", "start"]

MULTIPLE = 16  # tokens; attention's kernels want rows that are aligned
TOKENS_PER_BATCH = 16384
MOST_GRAPHS = 64  # shapes that are captured; each keeps its buffers on the device
MOST_SHAPES = 128  # shapes that have buffers, captured or not
GRAPH_ID, NO_GRAPH, FIRST_ID = "gpu_graph_id", -1, 1  # 0 is ONNX Runtime's own

# TF32, the default on newer cards, has 10 bits of mantissa: logits of a float32 graph would differ
# by more than export promises.
PROVIDER_OPTIONS = {"use_tf32": "0"}
CAPTURE = {"enable_cuda_graph": "1"}

Shape = tuple[int, int]


def bucket_of(rows: int, tokens: int, max_tokens: int | None) -> Shape:
    """The shape to pad to: a multiple of 16 tokens; rows 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ..."""
    power = 1 << (rows - 1).bit_length()
    three_quarters = power * 3 // 4
    wanted = three_quarters if rows <= three_quarters else power
    return wanted, rounded(tokens, MULTIPLE, max_tokens)


class Bucket:
    """One shape's buffers on the device, bound to the session's inputs and outputs."""

    def __init__(
        self, session: ort.InferenceSession, shape: Shape, device: tuple[str, int]
    ) -> None:
        self._session = session
        self._device = device
        self._names = [output.name for output in session.get_outputs()]
        self._inputs = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(shape, np.int64, *device)
            for name in ("input_ids", "attention_mask")
        }
        self._host = {name: np.zeros(shape, np.int64) for name in self._inputs}
        self._outputs: list[ort.OrtValue] = []
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, *device)
        self.graph_id = NO_GRAPH

    @property
    def ready(self) -> bool:
        """Whether the outputs have fixed addresses, which capturing takes."""
        return bool(self._outputs)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Logits of the rows that came, `[rows, labels]` by task."""
        rows = len(input_ids)
        self._copy_in(input_ids, attention_mask)
        options = ort.RunOptions()
        options.add_run_config_entry(GRAPH_ID, str(self.graph_id))
        self._session.run_with_iobinding(self._binding, options)
        if not self._outputs:
            self._outputs = self._binding.get_outputs()
            for name, value in zip(self._names, self._outputs, strict=True):
                self._binding.bind_ortvalue_output(name, value)
        made = zip(self._names, self._outputs, strict=True)
        return {name: np.array(value.numpy()[:rows]) for name, value in made}

    def _copy_in(self, input_ids: Ids, attention_mask: Ids) -> None:
        rows, tokens = input_ids.shape
        ids, mask = self._host["input_ids"], self._host["attention_mask"]
        ids.fill(0)
        mask.fill(0)
        ids[:rows, :tokens] = input_ids
        mask[:rows, :tokens] = attention_mask
        mask[rows:, 0] = 1  # a row without tokens has no mean
        for name, value in self._inputs.items():
            value.update_inplace(self._host[name])


class BucketEngine:
    """A session that runs one call at a time, as capturing takes; other threads wait their turn."""

    multiple = MULTIPLE
    tokens_per_batch = TOKENS_PER_BATCH
    fixed_shapes: tuple[Shape, ...] = ()

    def __init__(
        self,
        session: ort.InferenceSession,
        device: tuple[str, int],
        max_tokens: int | None,
        *,
        capture: bool,
    ) -> None:
        """
        Args:
            device: as ONNX Runtime's bindings name it: `("cuda", 0)`.
            max_tokens: that the graph takes in a text; none: any number.
            capture: whether the session was opened for CUDA graphs.
        """
        self._session = session
        self._device = device
        self._max_tokens = max_tokens
        self._capture = capture
        self._captured = 0
        self._buckets: OrderedDict[Shape, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        rows, tokens = input_ids.shape
        shape = bucket_of(rows, tokens, self._max_tokens)
        with self._lock:
            try:
                bucket = self._bucket(shape)
                if self._capture and bucket.ready and bucket.graph_id == NO_GRAPH:
                    return self._run_and_capture(bucket, shape, input_ids, attention_mask)
                return bucket.run(input_ids, attention_mask)
            except Exception as error:  # its exceptions share no base class
                raise failure("ONNX Runtime", shape, error) from error

    def _bucket(self, shape: Shape) -> Bucket:
        """The shape's; of those without a graph, the one used least recently is forgotten."""
        if shape not in self._buckets:
            self._buckets[shape] = Bucket(self._session, shape, self._device)
        self._buckets.move_to_end(shape)
        if len(self._buckets) > MOST_SHAPES:
            # A captured one reads and writes its buffers for as long as the session lives.
            plain = (key for key, each in self._buckets.items() if each.graph_id == NO_GRAPH)
            del self._buckets[next(plain)]
        return self._buckets[shape]

    def _run_and_capture(
        self, bucket: Bucket, shape: Shape, input_ids: Ids, attention_mask: Ids
    ) -> Logits:
        bucket.graph_id = FIRST_ID + self._captured
        try:
            logits = bucket.run(input_ids, attention_mask)
        except Exception as error:
            bucket.graph_id = NO_GRAPH
            self._capture = False
            warnings.warn(
                f"no CUDA graph of {shape}, so that further shapes run kernel by kernel, more "
                f"slowly: {error}",
                RuntimeWarning,
                stacklevel=4,
            )
            return bucket.run(input_ids, attention_mask)
        self._captured += 1
        self._capture = self._captured < MOST_GRAPHS
        return logits

    def close(self) -> None:
        with self._lock:
            self._buckets.clear()
            del self._session


def start(files: Sequence[Path], setup: Setup) -> BucketEngine:
    """Open a graph in ONNX Runtime on an NVIDIA GPU.

    Args:
        files: the graph; it names the files of its weights itself.
        setup: `device` is `CUDA`, or a certain one of several as `CUDA:1`.

    Raises:
        MissingPackageError: what is installed of ONNX Runtime has no CUDA.
        EngineError: its packages are in each other's way, the device cannot be started, or the
            graph cannot be opened there.
    """
    _, colon, number = setup.device.partition(":")
    if bool(colon) != number.isdecimal():
        raise EngineError(f"there is no device {setup.device!r}; expected CUDA, or as CUDA:1")
    libraries = _load_libraries()  # before providers are listed: some builds load theirs with it
    require_cuda(setup.device, ort.get_available_providers())
    options = session_options(setup.threads, setup.spin)
    plain = {**PROVIDER_OPTIONS, "device_id": number or "0"}
    session, capture = _opened(files[0], options, plain)
    if session.get_providers()[0] != CUDA_PROVIDER:  # it goes on without, and only logs that
        raise EngineError(
            f"ONNX Runtime cannot start device {setup.device!r} and would run on the CPU: the "
            "driver, CUDA or cuDNN is missing or of another version than it was built for; `pip "
            f"install 'onnxruntime-gpu[cuda,cudnn]'` brings the latter two. {libraries}".strip()
        )
    if setup.precision == "int8":
        warnings.warn(
            "part of an int8 graph has no CUDA kernels and runs on the CPU; a bundle with fp16 "
            "(`mtl-edge export --targets onnx-fp16`) runs whole on the GPU",
            RuntimeWarning,
            stacklevel=2,
        )
    return BucketEngine(session, ("cuda", int(number or 0)), setup.max_tokens, capture=capture)


def _opened(
    graph: Path, options: ort.SessionOptions, plain: dict[str, str]
) -> tuple[ort.InferenceSession, bool]:
    """A session, and whether it can capture graphs; ONNX Runtime has no error of its own for that.

    Raises:
        EngineError: it cannot be opened either way.
    """
    fallback = (CPU_PROVIDER, dict[str, str]())
    try:
        return create_session(graph, options, [(CUDA_PROVIDER, plain | CAPTURE), fallback]), True
    except Exception:  # its exceptions share no base class
        try:
            return create_session(graph, options, [(CUDA_PROVIDER, plain), fallback]), False
        except Exception as error:
            raise EngineError(f"ONNX Runtime cannot open {graph}: {error}") from error


def _load_libraries() -> str:
    """Load CUDA and cuDNN where pip has put them; what ONNX Runtime says of it, mostly nothing."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    return " ".join(said.getvalue().split())
