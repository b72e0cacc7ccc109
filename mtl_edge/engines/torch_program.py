"""A graph as a flat list of torch functions, made once; what depends on shapes alone, once a shape.

Values are of three kinds. Constants are computed when the graph is loaded. Those that depend on the
shape of the inputs alone (sizes, positions, masks of positions) are computed on the host the first
time that a shape comes, and kept in its `Plan`. All others are data: a plan that is complete runs
their steps only, which neither wait for the device nor move anything to it, so that they can be
captured in a CUDA graph.

Numbers: floats of the encoder are of one type, whatever the graph says, and those of the heads are
float32, as they are where export makes an fp16 graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from mtl_edge.engines.onnx_reader import INPUTS, Node, OnnxGraph
from mtl_edge.engines.torch_operators import OPERATORS, Function
from mtl_edge.errors import EngineError

__all__ = ["Plan", "Program", "compile_graph"]

HEADS = "heads/"  # what export prefixes the names of the heads' nodes with
LARGE = 4096  # numbers; steps that read a larger constant run on the device, with each call
# By the numbers that ONNX gives types.
TYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.int32, 5: torch.int16,
    6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64,
    12: torch.int64, 16: torch.bfloat16,
}  # fmt: skip


class Kind(IntEnum):
    """What a value depends on, each on more than the one before."""

    CONSTANT = 0
    SHAPE = 1
    DATA = 2


@dataclass(frozen=True, slots=True)
class Step:
    """A function of some values, by their places, that makes others.

    Attributes:
        release: places of values that no later step reads.
    """

    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: Kind
    release: tuple[int, ...] = ()


@dataclass(slots=True)
class Plan:
    """Constants and what is known of one shape.

    Attributes:
        values: one a place; none where there are data.
    """

    values: list[Any]
    complete: bool = False


class Program:
    """Steps, and what they start from; without state, so that several threads may run it.

    Attributes:
        vocabulary: token ids have to be below it; none: any.
        outputs: place of each task's logits.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        constants: Sequence[Any],
        outputs: Mapping[str, int],
        vocabulary: int | None,
    ) -> None:
        self._steps = steps
        self._data = [step for step in steps if step.kind is Kind.DATA]
        self._constants = constants
        self.outputs = outputs
        self.vocabulary = vocabulary

    def plan(self) -> Plan:
        """For a shape that is new; the first run with it completes it."""
        return Plan(list(self._constants))

    def run(self, plan: Plan, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Float32 logits `[batch, labels]` per task, for int64 inputs `[batch, tokens]`.

        Args:
            plan: the same for inputs of the same shape only.
        """
        values = list(plan.values)
        values[:2] = input_ids, attention_mask
        for step in self._data if plan.complete else self._steps:
            made = step.function(*[values[place] for place in step.inputs])
            parts = made if isinstance(made, tuple) else (made,)
            for place, value in zip(step.outputs, parts, strict=True):
                values[place] = value
                if step.kind is Kind.SHAPE:
                    plan.values[place] = value
            for place in step.release:
                values[place] = None
        plan.complete = True
        return {name: values[place].float() for name, place in self.outputs.items()}


def compile_graph(graph: OnnxGraph, device: torch.device, encoder: torch.dtype) -> Program:
    """
    Args:
        graph: as `mtl_edge.engines.onnx_lowering.lower` gives it.
        encoder: the type of its floats.

    Raises:
        EngineError: an operator is unknown, or a shape depends on more than the inputs' shapes.
    """
    if unknown := sorted({node.op for node in graph.nodes} - OPERATORS.keys()):
        raise EngineError(
            f"torch does not know the graph's operators {', '.join(unknown)}; run the graph with "
            "engine onnxruntime"
        )
    compiler = _Compiler(device, encoder)
    for name in graph.inputs:
        compiler.made(name, Kind.DATA)
    for name, array in graph.constants.items():
        compiler.made(name, Kind.CONSTANT, torch.tensor(array, device="cpu"))
    for node in graph.nodes:
        compiler.add(node)
    outputs = {name: compiler.place(name) for name in graph.outputs}
    steps = _with_releases(compiler.steps, set(outputs.values()))
    read = {place for step in steps for place in step.inputs} | set(outputs.values())
    constants = [value if place in read else None for place, value in enumerate(compiler.values)]
    return Program(steps, constants, outputs, compiler.vocabulary)


@dataclass(slots=True)
class _Compiler:
    """Steps so far, and the values they read and make.

    Attributes:
        values: one a place: constants; none where a step makes it.
        kinds: one a place.
        places: of a value by its name and form: as it was made, or as a reader needs it.
        float32: places of data whose floats are float32.
        ids: names of the token ids.
    """

    device: torch.device
    encoder: torch.dtype
    steps: list[Step] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    places: dict[tuple[str, object], int] = field(default_factory=dict)
    float32: set[int] = field(default_factory=set)
    ids: set[str] = field(default_factory=lambda: {"input_ids"})
    vocabulary: int | None = None

    def made(
        self, name: str, kind: Kind, value: Any = None, form: object = None, float32: bool = True
    ) -> int:
        """A place for a value."""
        place = self.places[name, form] = len(self.values)
        self.values.append(value)
        self.kinds.append(kind)
        if float32:
            self.float32.add(place)
        return place

    def place(self, name: str) -> int:
        """Of a value as it was made."""
        if not name and (name, None) not in self.places:
            self.made("", Kind.CONSTANT)
        if (name, None) not in self.places:
            raise EngineError(
                f"the graph reads {name!r}, which nothing in it makes: export it again"
            )
        return self.places[name, None]

    def add(self, node: Node) -> None:
        """A node's step, and before it those that bring its inputs into form."""
        operator = OPERATORS[node.op]
        kind = self._kind(node)
        head = node.name.startswith(HEADS)
        float32 = head or self.encoder is torch.float32
        floats = torch.float32 if head else self.encoder

        def type_of(number: int) -> torch.dtype:
            if number not in TYPES:
                raise EngineError(
                    f"torch has no type for ONNX's {number}, which {node.name} casts to"
                )
            wanted = TYPES[number]
            return floats if kind is Kind.DATA and wanted.is_floating_point else wanted

        self._watch_ids(node)
        function = operator.make(node.attributes, type_of)
        inputs = tuple(
            self._numbers(node, name)
            if place in operator.host
            else self._as_data(name, floats)
            if kind is Kind.DATA
            else self.place(name)
            for place, name in enumerate(node.inputs)
        )
        if kind is Kind.CONSTANT:
            value = function(*[self.values[place] for place in inputs])
            values = value if isinstance(value, tuple) else (value,)
            for name, part in zip(node.outputs, values, strict=True):
                self.made(name, kind, part)
            return
        outputs = tuple(self.made(name, kind, float32=float32) for name in node.outputs)
        self.steps.append(Step(function, inputs, outputs, kind))

    def _kind(self, node: Node) -> Kind:
        kinds = [self.kinds[self.place(name)] for name in node.inputs]
        kind = max(kinds, default=Kind.CONSTANT)
        if node.op == "Shape":
            return min(kind, Kind.SHAPE)
        values = (self.values[self.place(name)] for name in node.inputs)
        if kind is Kind.SHAPE and any(
            isinstance(value, Tensor) and value.numel() > LARGE for value in values
        ):
            return Kind.DATA
        return kind

    def _watch_ids(self, node: Node) -> None:
        """Note the rows of each table that token ids are looked up in.

        An id beyond it would end the process's use of a GPU.
        """
        if node.op in ("Cast", "Identity") and node.inputs[0] in self.ids:
            self.ids.update(node.outputs)
        if node.op == "Gather" and node.inputs[1] in self.ids:
            table = self.values[self.place(node.inputs[0])]
            if table is not None and not node.attributes.get("axis"):
                self.vocabulary = min(len(table), self.vocabulary or len(table))

    def _numbers(self, node: Node, name: str) -> int:
        """Place of a value as a list of numbers."""
        place = self.place(name)
        kind = self.kinds[place]
        if not name:
            return place
        if kind is Kind.DATA:
            raise EngineError(
                f"torch needs shapes that depend on the inputs' shapes alone; {node.op} "
                f"{node.name!r} reads {name!r}, which depends on texts: use engine onnxruntime"
            )
        return self._in_form(name, "numbers", kind, lambda x: x.flatten().tolist())

    def _as_data(self, name: str, floats: torch.dtype) -> int:
        """Place of a value on the device, its floats of this type."""
        place = self.place(name)
        kind = self.kinds[place]
        right = (place in self.float32) == (floats is torch.float32)
        if not name or name in INPUTS or (kind is Kind.DATA and right):
            return place
        device = self.device
        return self._in_form(name, floats, kind, lambda x: _to(x, device, floats))

    def _in_form(self, name: str, form: object, kind: Kind, function: Function) -> int:
        """Place of a value in another form, made once."""
        if (name, form) in self.places:
            return self.places[name, form]
        place = self.place(name)
        if kind is Kind.CONSTANT:
            return self.made(name, kind, function(self.values[place]), form)
        made = self.made(name, kind, None, form)
        self.steps.append(Step(function, (place,), (made,), kind))
        return made


def _to(x: Tensor, device: torch.device, floats: torch.dtype) -> Tensor:
    """On the device; floats of this type, and within its range: masks may be the least float32."""
    if not x.is_floating_point() or x.dtype == floats:
        return x.to(device)
    if torch.finfo(floats).max < torch.finfo(x.dtype).max:
        x = x.clamp(torch.finfo(floats).min, torch.finfo(floats).max)
    return x.to(device, floats)


def _with_releases(steps: Sequence[Step], outputs: set[int]) -> list[Step]:
    """The steps, told what they are the last to read, so that memory is used again."""
    made = {place for step in steps if step.kind is Kind.DATA for place in step.outputs}
    released: list[Step] = []
    later = set(outputs)
    for step in reversed(steps):
        last = tuple(made.intersection({*step.inputs, *step.outputs}) - later)
        later.update(step.inputs)
        released.append(replace(step, release=last))
    return released[::-1]
