"""ONNX's operators as torch's: one table.

Each entry makes, from a node's attributes, a function of its inputs. Inputs that are shapes, axes,
starts and the like come as lists of numbers on the host; those left out come as None. No function
waits for the device, and all but those on shapes can be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_edge.engines.onnx_lowering import ATTEND, GELU, LINEAR, MASK_BIAS
from mtl_edge.errors import EngineError

__all__ = ["OPERATORS", "Function", "Operator"]

Attributes = Mapping[str, Any]
Function = Callable[..., Any]
TypeOf = Callable[[int], torch.dtype]
Ints = list[int]


@dataclass(frozen=True, slots=True)
class Operator:
    """How to run an operator.

    Attributes:
        make: from attributes, and a function from ONNX's types to torch's, to what runs.
        host: places of inputs that come as lists of numbers.
    """

    make: Callable[[Attributes, TypeOf], Function]
    host: tuple[int, ...] = ()


def _plain(function: Function, *host: int) -> Operator:
    """An operator without attributes."""
    return Operator(lambda attributes, type_of: function, host)


def _with(make: Callable[[Attributes], Function], *host: int) -> Operator:
    return Operator(lambda attributes, type_of: make(attributes), host)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.linear(x, weight.t(), bias)


def _mask_bias(attributes: Attributes) -> Function:
    masked = float(attributes["value"])

    def bias(mask: Tensor, like: Tensor) -> Tensor:
        batch, tokens = like.shape[:2]
        if mask.dim() == 1:  # numbers of tokens
            mask = torch.arange(tokens, device=mask.device) < mask.unsqueeze(1)
        there = mask.to(like.dtype).view(batch, 1, 1, tokens)
        return (1 - there) * masked

    return bias


def _attend(attributes: Attributes) -> Function:
    heads, scale = int(attributes["num_heads"]), float(attributes["scale"]) or None

    def attend(qkv: Tensor, bias: Tensor | None) -> Tensor:
        batch, tokens = qkv.shape[:2]
        query, key, value = qkv.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(query, key, value, bias, scale=scale)
        return out.transpose(1, 2).reshape(batch, tokens, -1)

    return attend


def _layer_norm(attributes: Attributes) -> Function:
    axis, epsilon = int(attributes.get("axis", -1)), float(attributes.get("epsilon", 1e-5))

    def norm(x: Tensor, gamma: Tensor, beta: Tensor | None = None) -> Tensor:
        return functional.layer_norm(x, x.shape[axis:], gamma, beta, epsilon)

    return norm


def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def _gemm(attributes: Attributes) -> Function:
    alpha, beta = float(attributes.get("alpha", 1)), float(attributes.get("beta", 1))
    left_t, right_t = attributes.get("transA"), attributes.get("transB")

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if left_t else a, b.t() if right_t else b
        return alpha * (a @ b) if c is None else torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return gemm


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo(attributes: Attributes) -> Function:
    return torch.fmod if attributes.get("fmod") else torch.remainder


def _softmax(attributes: Attributes) -> Function:
    axis = int(attributes.get("axis", -1))
    return lambda x: torch.softmax(x, axis)


def _cast(attributes: Attributes, type_of: TypeOf) -> Function:
    wanted = type_of(int(attributes["to"]))
    return lambda x: x.to(wanted)


def _constant(attributes: Attributes) -> Function:
    (value,) = attributes.values()
    array = np.asarray(value, np.float32 if isinstance(value, float) else None)
    return lambda: torch.tensor(array, device="cpu")


def _constant_of_shape(attributes: Attributes) -> Function:
    array = np.asarray(attributes.get("value", np.zeros(1, np.float32)))
    value = torch.tensor(array, device="cpu")
    return lambda shape: value.expand(shape) if shape else value.reshape(())


def _shape(attributes: Attributes) -> Function:
    part = slice(attributes.get("start", 0), attributes.get("end"))
    return lambda x: torch.tensor(x.shape[part], dtype=torch.int64, device="cpu")


def _reshape(attributes: Attributes) -> Function:
    keep = not attributes.get("allowzero")

    def reshape(x: Tensor, shape: Ints) -> Tensor:
        sizes = [x.shape[i] if n == 0 and keep else n for i, n in enumerate(shape)]
        return x.reshape(sizes)

    return reshape


def _flatten(attributes: Attributes) -> Function:
    axis = int(attributes.get("axis", 1))
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(attributes: Attributes) -> Function:
    order = attributes.get("perm")
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


def _squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes)


def _unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Ints) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))  # type: ignore[no-untyped-call]


def _slice(
    x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Tensor:
    for i, axis in enumerate(axes or range(len(starts))):
        part = slice(starts[i], ends[i], steps[i] if steps else None)
        places = range(*part.indices(x.shape[axis]))
        if places.step > 0:
            before = (slice(None),) * (axis % x.dim())
            x = x[(*before, slice(places.start, places.stop, places.step))]
        else:
            order = torch.arange(len(places), device=x.device) * places.step + places.start
            x = x.index_select(axis, order)
    return x


def _split(attributes: Attributes) -> Function:
    axis, count = int(attributes.get("axis", 0)), attributes.get("num_outputs")

    def split(x: Tensor, sizes: Ints | None = None) -> tuple[Tensor, ...]:
        size = -(-x.shape[axis] // count) if sizes is None and count else sizes
        if size is None:
            raise EngineError("Split: expected sizes or a number of parts, got neither")
        return torch.split(x, size, axis)

    return split


def _pad(attributes: Attributes) -> Function:
    if (mode := attributes.get("mode", "constant")) != "constant":
        raise EngineError(f"torch runs no Pad in the mode {mode}")

    def pad(
        x: Tensor, pads: Ints, value: list[float] | None = None, axes: Ints | None = None
    ) -> Tensor:
        before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
        places = {axis % x.dim(): i for i, axis in enumerate(axes or range(x.dim()))}
        sizes: list[int] = []
        for axis in reversed(range(x.dim())):
            i = places.get(axis)
            sizes += [0, 0] if i is None else [before[i], after[i]]
        return functional.pad(x, sizes, value=value[0] if value else 0)

    return pad


def _concat(attributes: Attributes) -> Function:
    axis = int(attributes["axis"])
    return lambda *parts: torch.cat(parts, axis)


def _gather(attributes: Attributes) -> Function:
    before = (slice(None),) * int(attributes.get("axis", 0))
    return lambda x, indices: x[(*before, indices)]


def _gather_elements(attributes: Attributes) -> Function:
    axis = int(attributes.get("axis", 0))
    return lambda x, indices: x.gather(axis, indices.to(torch.int64))


def _range(start: list[Any], stop: list[Any], step: list[Any]) -> Tensor:
    return torch.tensor(np.arange(start[0], stop[0], step[0]), device="cpu")


def _cumulate(attributes: Attributes) -> Function:
    if attributes.get("exclusive") or attributes.get("reverse"):
        raise EngineError("torch runs no CumSum that is exclusive or reverse")
    return lambda x, axis: torch.cumsum(x, axis[0], dtype=x.dtype)


def _reduced(reduce: Callable[[Tensor, Ints, bool], Tensor]) -> Operator:
    def make(attributes: Attributes) -> Function:
        keep, fixed = bool(attributes.get("keepdims", 1)), attributes.get("axes")
        as_it_is = bool(attributes.get("noop_with_empty_axes"))

        def run(x: Tensor, axes: Ints | None = None) -> Tensor:
            axes = axes or fixed
            if not axes and as_it_is:
                return x
            return reduce(x, axes or list(range(x.dim())), keep)

        return run

    return _with(make, 1)


def _many(combine: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = combine(first, other)
        return first

    return _plain(run)


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


OPERATORS: Mapping[str, Operator] = {
    LINEAR: _plain(_linear),
    MASK_BIAS: _with(_mask_bias),
    ATTEND: _with(_attend),
    GELU: _plain(functional.gelu),
    "com.microsoft.FastGelu": _plain(_fast_gelu),
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "Cast": Operator(_cast),
    "Ceil": _plain(torch.ceil),
    "Clip": _plain(_clip),
    "Concat": _with(_concat),
    "Constant": _with(_constant),
    "ConstantOfShape": _with(_constant_of_shape, 0),
    "Cos": _plain(torch.cos),
    "CumSum": _with(_cumulate, 1),
    "Div": _plain(_divide),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _plain(_expand, 1),
    "Flatten": _with(_flatten),
    "Floor": _plain(torch.floor),
    "Gather": _with(_gather),
    "GatherElements": _with(_gather_elements),
    "Gemm": _with(_gemm),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Identity": _plain(lambda x: x),
    "LayerNormalization": _with(_layer_norm),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "MatMul": _plain(torch.matmul),
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Mod": _with(_modulo),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pad": _with(_pad, 1, 2, 3),
    "Pow": _plain(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "Range": _plain(_range, 0, 1, 2),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduced(lambda x, axes, keep: torch.amax(x, axes, keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: torch.mean(x, axes, keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: torch.amin(x, axes, keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype)),
    "Relu": _plain(torch.relu),
    "Reshape": _with(_reshape, 1),
    "Shape": _with(_shape),
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Slice": _plain(_slice, 1, 2, 3, 4),
    "Softmax": _with(_softmax),
    "Split": _with(_split, 1),
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _plain(_squeeze, 1),
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Tile": _plain(lambda x, repeats: x.repeat(repeats), 1),
    "Transpose": _with(_transpose),
    "Unsqueeze": _plain(_unsqueeze, 1),
    "Where": _plain(torch.where),
}
