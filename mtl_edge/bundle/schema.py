"""The manifest's schema as dataclasses, shared by its writer and its reader."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mtl_edge.io.labels import TaskKind

__all__ = [
    "DOMAIN",
    "INPUTS",
    "MANIFEST",
    "MOST_MANIFEST_BYTES",
    "MOST_TOKENIZER_BYTES",
    "READABLE",
    "RESERVED",
    "SCHEMA",
    "SIGNATURE",
    "SUFFIXES",
    "TASK_NAME",
    "TOKENIZER",
    "BackboneInfo",
    "Exit",
    "ExitGraph",
    "FileEntry",
    "Graph",
    "Manifest",
    "Scale",
    "Task",
    "TaskKind",
]

SCHEMA = 4
READABLE = (3, SCHEMA)  # 4 only adds fields: kinds of tasks
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
TOKENIZER = "tokenizer.json"

# A manifest is kilobytes, a megabyte with tens of thousands of labels. JSON takes up to 25 times
# its size in memory, so that this bounds what a hostile one costs before it is refused.
MOST_MANIFEST_BYTES = 4 * 2**20
# The largest vocabularies in use, a quarter of a million tokens, are 35 MB.
MOST_TOKENIZER_BYTES = 128 * 2**20

TASK_NAME = re.compile(r"[\w-]{1,64}")
INPUTS = ("input_ids", "attention_mask", "text")  # of graphs; the last of those with a tokenizer
DOMAIN = "domain"  # the output that says which tasks a text is in the domain of
RESERVED = (*INPUTS, DOMAIN)  # names that no task can have

# Required ending of a graph's file, by engine. Engines tell formats by the name's ending, and only
# these formats are checked before an engine opens them.
SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How a logit becomes a score: `center + width * logit`, but not beyond `low` and `high`.

    Attributes:
        low, high: the range of the scores that the task was trained on.
        spread: root mean squared error on validation rows, in units of the score.
    """

    center: float
    width: float
    low: float
    high: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """A question asked of every text.

    Attributes:
        name: also the name of the graph's output.
        labels: in the order of the logits; of a `score` task none.
        temperature: logits are divided by it before the softmax or the sigmoid (Guo et al. 2017,
            arXiv:1706.04599).
        thresholds: per label, a probability. Of a `single` task the one from which on its answer is
            sure; empty: every answer is. Of a `multi` task the one from which on a text has the
            label.
        kind: `single`: one label a text; `multi`: any number of labels, also none; `score`: a
            number.
        scale: of a `score` task.
    """

    name: str
    labels: tuple[str, ...]
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    kind: TaskKind = "single"
    scale: Scale | None = None

    @property
    def outputs(self) -> int:
        """How many logits it has for a text."""
        return len(self.labels) or 1


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """The pretrained encoder that the graphs were made from."""

    name: str
    architecture: str
    revision: str | None
    sha256: str
    hidden_size: int
    layers: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Exit:
    """A cheaper stage, which answers a text when it is sure enough of every task that is asked.

    Attributes:
        depth: layers that it runs.
        temperatures: by task; its logits are divided by this before the softmax.
        thresholds: by task; it is sure of a task when its largest probability is at least this. A
            threshold above 1 is never reached.
        promise: what was fitted and on what, for people: `drop`, `confidence`, `method`, `rows`,
            `exit_rate`, `measured_drop` and `cost`.
        sure: by task, `Task.thresholds` for this stage's probabilities; tasks not listed keep their
            own.
        domain: `Manifest.domain.thresholds` for this stage's probabilities.
    """

    depth: int
    temperatures: dict[str, float]
    thresholds: dict[str, float]
    promise: dict[str, Any] = field(default_factory=dict)
    sure: dict[str, tuple[float, ...]] = field(default_factory=dict)
    domain: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ExitGraph:
    """A graph's cheaper stage: the files that its engine opens.

    Attributes:
        file: what the engine opens.
        companions: files that the engine opens along with it; the full graph's may be among them.
        heads: those of its files that new heads replace.
    """

    file: str
    companions: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, *self.companions)


@dataclass(frozen=True, slots=True)
class Graph:
    """One executable form of the model.

    Attributes:
        target: the name that export calls it by, as in `onnx-int8`.
        engine: what executes it, `onnxruntime` or `openvino`.
        precision: of the matrix products with weights.
        file: what the engine opens.
        companions: files that the engine opens along with it.
        heads: those of its files that new heads replace; the others are the encoder's.
        latency_ms: median of one text of 32 tokens on the machine that exported; `auto` uses it to
            choose among engines.
        exits: the same for each of the manifest's exits, in their order.
    """

    target: str
    engine: str
    precision: str
    file: str
    companions: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    latency_ms: float | None = None
    exits: tuple[ExitGraph, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The files of full depth."""
        return (self.file, *self.companions)

    @property
    def all_files(self) -> tuple[str, ...]:
        """The files of every depth, each once."""
        return tuple(dict.fromkeys((*self.files, *(f for e in self.exits for f in e.files))))


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle: its size in bytes and the sha256 of its content."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds and what was measured of it: the content of manifest.json.

    Attributes:
        reduced: what made the embedding table smaller, if anything did: `embeddings`, `vocabulary`.
        evaluation: what was measured at export, per task: see `mtl_edge.export.proof`.
        versions: of the packages that wrote the bundle.
        exits: cheaper stages, the cheapest first, each of fewer layers than the next and `depth`.
        domain: which tasks a text is in the domain of: as a `multi` task, whose labels are names of
            tasks and whose name is `DOMAIN`; none: nothing was fitted.
    """

    schema: int
    tasks: tuple[Task, ...]
    backbone: BackboneInfo
    depth: int
    max_tokens: int
    graphs: tuple[Graph, ...]
    files: tuple[FileEntry, ...] = ()
    reduced: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    exits: tuple[Exit, ...] = ()
    domain: Task | None = None
