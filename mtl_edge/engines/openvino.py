"""OpenVINO: on the CPU, or on a GPU or NPU that it finds."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from mtl_edge.batches.planning import rounded
from mtl_edge.engines import CPU, Ids, Logits, Setup, failure
from mtl_edge.errors import EngineError, OutOfMemoryError

__all__ = ["OpenVinoEngine", "start"]


# Sums over tokens are taken so many at a time, and what is left over in another way, whose rounding
# differs. In multiples of it, a text's logits are the same to the bit however it is padded.
MULTIPLE = 16
# A graph whose shapes are open infers each node's anew whenever the input's changes, which costs a
# single short text a third of its time. So single texts have graphs of their own with fixed shapes
# up to this many tokens; each costs its packed weights once more and a third of a second at load.
FIXED_TOKENS = 64
TOKENS_PER_BATCH = 1024
# OpenVINO would fuse elementwise operators of fixed shapes into kernels of its own ("snippets"),
# which on some processors round otherwise than those of open shapes: logits alone and in a batch
# then differ by 0.03. Without, they are equal to the bit, for up to a tenth of a call, and compile
# faster.
ROUND_AS_OPEN = {"SNIPPETS_MODE": "DISABLE"}
# Where memory runs out, a call may end without an error and leave the answers of the one before.
UNWRITTEN = np.finfo(np.float32).min


class CompiledGraph:
    """A compiled model; each concurrent call borrows an infer request of its own."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._model = model
        self._idle: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        self._outputs = [port.get_any_name() for port in model.outputs]

    def run(self, feeds: Mapping[str, Ids]) -> Logits:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        for i in range(len(self._outputs)):
            request.get_output_tensor(i).data[...] = UNWRITTEN
        request.infer(feeds, share_inputs=True)
        result = {
            name: request.get_output_tensor(i).data.copy() for i, name in enumerate(self._outputs)
        }
        rows = len(next(iter(feeds.values())))
        if any(len(v) != rows or (v == UNWRITTEN).any() for v in result.values()):
            raise OutOfMemoryError("OpenVINO ended a call without an answer: memory ran out")
        self._idle.put(request)
        return result


class OpenVinoEngine:
    """A graph of open shapes for batches, and some of fixed shapes for single texts."""

    multiple = MULTIPLE
    tokens_per_batch = TOKENS_PER_BATCH

    def __init__(
        self, batches: CompiledGraph, singles: Mapping[int, CompiledGraph], max_tokens: int | None
    ) -> None:
        self._batches = batches
        self._singles = dict(singles)
        self._max_tokens = max_tokens

    @property
    def fixed_shapes(self) -> tuple[tuple[int, int], ...]:
        """`(batch, tokens)` that have a graph of their own."""
        return tuple((1, tokens) for tokens in sorted(self._singles))

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        tokens = rounded(input_ids.shape[1], MULTIPLE, self._max_tokens)
        feeds = {
            "input_ids": _padded(input_ids, tokens),
            "attention_mask": _padded(attention_mask, tokens),
        }
        single = self._singles.get(tokens) if len(input_ids) == 1 else None
        try:
            return (single or self._batches).run(feeds)
        except OutOfMemoryError:
            raise
        except Exception as error:  # OpenVINO raises plain RuntimeError for everything
            raise failure("OpenVINO", input_ids.shape, error) from error

    def close(self) -> None:
        del self._batches
        self._singles = {}


def start(files: Sequence[Path], setup: Setup) -> OpenVinoEngine:
    """Open a graph in OpenVINO.

    Args:
        files: the graph's. If there are two graphs among them, encoder and heads, they are joined.

    Raises:
        EngineError: OpenVINO has no such device, or cannot read or compile a file.
    """
    core = ov.Core()
    _require_device(setup.device, core)
    try:
        model = read(core, files)
        shapes = _fixed(setup)
        with ThreadPoolExecutor(setup.threads) as pool:  # compiling takes one thread each
            made = list(pool.map(partial(compiled, core, model, setup), [None, *shapes]))
    except Exception as error:  # OpenVINO raises plain RuntimeError for everything
        raise EngineError(f"OpenVINO cannot open {files[0]}: {error}") from error
    batches, *singles = map(CompiledGraph, made)
    return OpenVinoEngine(batches, dict(zip(shapes, singles, strict=True)), setup.max_tokens)


def _fixed(setup: Setup) -> list[int]:
    """Lengths of single texts that get a graph of their own."""
    most = FIXED_TOKENS if setup.fixed_tokens is None else setup.fixed_tokens
    lengths = list(range(MULTIPLE, most + 1, MULTIPLE))
    if setup.max_tokens is None or setup.max_tokens > most:
        return lengths
    # The longest are rounded up to what the graph takes, which may be no multiple.
    return [*(n for n in lengths if n < setup.max_tokens), setup.max_tokens]


def read(core: ov.Core, files: Sequence[Path]) -> ov.Model:
    """The graph of a bundle's files, encoder and heads joined; weights are found beside it."""
    graphs = [core.read_model(str(file)) for file in files if file.suffix != ".bin"]
    return _with_small_tables(_joined(*graphs))


def compiled(
    core: ov.Core,
    model: ov.Model,
    setup: Setup,
    tokens: int | None,
    extra_settings: Mapping[str, object] = MappingProxyType({}),
) -> ov.CompiledModel:
    """Compile a model for a device.

    Args:
        tokens: of the single texts that it will take; None: any batch of any length.
        extra_settings: of OpenVINO's, besides those that `setup` asks for.
    """
    settings = {**_settings(setup), **extra_settings}
    form = model if tokens is None else _of_shape(model, (1, tokens))
    if tokens is not None and setup.device == CPU:
        try:
            return core.compile_model(form, CPU, settings | ROUND_AS_OPEN)
        except RuntimeError as error:
            # It is no documented setting: another version may do without, at the price of rounding.
            if not any(name in str(error) for name in ROUND_AS_OPEN):
                raise
    return core.compile_model(form, setup.device, settings)


def _settings(setup: Setup) -> dict[str, object]:
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if setup.device == CPU:
        settings["INFERENCE_NUM_THREADS"] = setup.threads
        # What is not int8 stays float32: bfloat16 would change answers from machine to machine.
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if setup.precision == "bf16" else "f32"
    return settings


def _require_device(device: str, core: ov.Core) -> None:
    known = core.available_devices
    if device.partition(".")[0] not in {name.partition(".")[0] for name in known}:
        raise EngineError(
            f"OpenVINO finds no device {device!r} here; it finds {', '.join(known)}. A GPU or NPU "
            "needs its driver"
        )


def _padded(values: Ids, tokens: int) -> Ids:
    if values.shape[1] == tokens:
        return values
    padded = np.zeros((len(values), tokens), np.int64)
    padded[:, : values.shape[1]] = values
    return padded


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


def _with_small_tables(model: ov.Model) -> ov.Model:
    """The same graph, with rows of an int8 table scaled once they are looked up.

    Scaled before, as quantization leaves it, the whole table is kept in float32.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather":
            continue
        scaled = node.input_value(0).get_node()
        if scaled.get_type_name() != "Multiply":
            continue
        converted, scale = scaled.input_value(0).get_node(), scaled.input_value(1)
        if converted.get_type_name() != "Convert":
            continue
        table, rows, axis = converted.input_value(0), node.input_value(1), node.input_value(2)
        if list(scale.get_shape()) != [table.get_shape()[0], 1]:
            continue
        looked_up = ops.convert(ops.gather(table, rows, axis), scale.get_element_type())
        result = ops.multiply(looked_up, ops.gather(scale, rows, axis))
        node.output(0).replace(result.output(0))
    return model


def _of_shape(model: ov.Model, shape: tuple[int, int]) -> ov.Model:
    fixed = model.clone()
    fixed.reshape({port.get_any_name(): list(shape) for port in fixed.inputs})
    return fixed
