"""Shapes rounded up to a few, each captured in a CUDA graph.

A small encoder has a hundred kernels of a few microseconds each, and starting them one by one from
Python takes longer than they run. A CUDA graph starts all at once, but holds for one shape. So
inputs are padded to the next of a few shapes; a shape's first call runs step by step, which also
readies libraries and memory, its second is captured, and all others replay that.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from mtl_edge.engines import Logits
from mtl_edge.engines.torch_inputs import Ids, Limits, failure, finite
from mtl_edge.engines.torch_program import Program

__all__ = ["BucketEngine", "Cuda", "Device", "bucket_of"]

MULTIPLE = 16  # tokens; attention's kernels want their masks' rows aligned to 8
MOST_GRAPHS = 128  # shapes that are captured; each takes some memory on the device
MOST_SHAPES = 256  # shapes that have buffers

Shape = tuple[int, int]
Made = dict[str, Tensor]


class Device(Protocol):
    """Where a program runs."""

    device: torch.device
    pinned: bool

    def active(self) -> AbstractContextManager[None]:
        """Within it, work goes to this device's stream."""
        ...

    def capture(self, work: Callable[[], Made]) -> tuple[Callable[[], object], Made]:
        """What repeats `work`, and where its results then are."""
        ...

    def wait(self) -> None:
        """Until all work is done."""
        ...


class Cuda:
    """A GPU: a stream of its own, and memory that all graphs share, as they run one at a time."""

    pinned = True

    def __init__(self, device: torch.device) -> None:
        torch.cuda.synchronize(device)  # weights were moved in another stream
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def active(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream):
            yield

    def capture(self, work: Callable[[], Made]) -> tuple[Callable[[], object], Made]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the GPU meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            made = work()
        return graph.replay, made

    def wait(self) -> None:
        self._stream.synchronize()


class _Bucket:
    """One shape: its buffers on both sides, its plan, and its graph once it is captured."""

    def __init__(self, program: Program, device: Device, shape: Shape) -> None:
        self._program = program
        self._device = device
        self._plan = program.plan()
        self._host = torch.zeros(
            (2, *shape), dtype=torch.int64, device="cpu", pin_memory=device.pinned
        )
        self._inputs = torch.zeros_like(self._host, device=device.device)
        self._results: Made = {}
        self._replay: Callable[[], object] | None = None
        self._made: Made = {}
        self.calls = 0

    @property
    def captured(self) -> bool:
        return self._replay is not None

    def _work(self) -> Made:
        return self._program.run(self._plan, self._inputs[0], self._inputs[1])

    def capture(self) -> None:
        self._replay, self._made = self._device.capture(self._work)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Logits of the rows that came. Waits for the device once."""
        rows, tokens = input_ids.shape
        host = self._host.numpy()
        host.fill(0)
        host[0, :rows, :tokens] = input_ids
        host[1, :rows, :tokens] = attention_mask
        host[1, rows:, 0] = 1  # a text without tokens has no mean
        self._inputs.copy_(self._host, non_blocking=True)
        self.calls += 1
        if self._replay is None:
            made = self._work()
        else:
            self._replay()
            made = self._made
        for name, value in made.items():
            if name not in self._results:
                self._results[name] = torch.empty(
                    value.shape, dtype=torch.float32, device="cpu", pin_memory=self._device.pinned
                )
            self._results[name].copy_(value, non_blocking=True)
        self._device.wait()
        return {name: value[:rows].numpy().copy() for name, value in self._results.items()}


class BucketEngine:
    """A program on a device that runs one call at a time; others wait their turn."""

    multiple = MULTIPLE
    tokens_per_batch = 16384
    fixed_shapes: tuple[Shape, ...] = ()

    def __init__(self, program: Program, limits: Limits, device: Device) -> None:
        self._program = program
        self._limits = limits
        self._device = device
        self._buckets: OrderedDict[Shape, _Bucket] = OrderedDict()
        self._graphs = 0
        self._capturing = True
        self._lock = threading.Lock()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self._limits.check(input_ids, attention_mask)
        rows, tokens = input_ids.shape
        shape = bucket_of(rows, tokens, self._limits.max_tokens)
        kind = self._device.device.type
        try:
            with (
                self._lock,
                torch.inference_mode(),
                torch.autocast(kind, enabled=False),
                self._device.active(),
            ):
                bucket = self._bucket(shape)
                if self._capturing and bucket.calls and not bucket.captured:
                    self._capture(bucket, shape)
                logits = bucket.run(input_ids, attention_mask)
        except RuntimeError as error:
            raise failure(error, shape) from error
        return finite(logits)

    def _bucket(self, shape: Shape) -> _Bucket:
        """The shape's; of those not captured, the one used least recently is forgotten."""
        if shape not in self._buckets:
            self._buckets[shape] = _Bucket(self._program, self._device, shape)
        self._buckets.move_to_end(shape)
        if len(self._buckets) > MOST_SHAPES:
            oldest = next(key for key, bucket in self._buckets.items() if not bucket.captured)
            del self._buckets[oldest]
        return self._buckets[shape]

    def _capture(self, bucket: _Bucket, shape: Shape) -> None:
        try:
            bucket.capture()
        except RuntimeError as error:
            self._capturing = False
            warnings.warn(
                f"no CUDA graph of {shape}, so that shapes run step by step from now on, more "
                f"slowly: {error}",
                RuntimeWarning,
                stacklevel=4,
            )
            return
        self._graphs += 1
        self._capturing = self._graphs < MOST_GRAPHS

    def close(self) -> None:
        with self._lock:
            self._buckets.clear()
            del self._program


def bucket_of(rows: int, tokens: int, max_tokens: int | None) -> Shape:
    """The shape to pad to: a multiple of 16 tokens; rows 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ..."""
    wanted = -(-tokens // MULTIPLE) * MULTIPLE
    if max_tokens is not None:
        wanted = max(tokens, min(wanted, max_tokens))
    power = 1 << (rows - 1).bit_length()
    return (power * 3 // 4 if rows <= power * 3 // 4 else power), wanted
