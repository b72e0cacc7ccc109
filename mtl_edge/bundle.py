"""What a bundle is: the one description that its writer and its reader share.

A bundle is a folder:

    manifest.json    this module's `Manifest`
    tokenizer.json   the tokenizer, in the format of the `tokenizers` library
    README.md        a model card
    *.onnx, *.xml, *.bin   one graph per target: encoder and all heads, their weights apart

Every ONNX graph has the inputs `input_ids` and `attention_mask` (int64 `[batch, tokens]`) and one
output per task, named after it (float32 logits `[batch, labels]`). OpenVINO's are two: the encoder,
from these inputs to `state.0`, `state.1`, ..., and the heads, from states and inputs to logits.
Nothing in a bundle is unpickled or executed, every file is listed with its size and sha256, and no
path leaves the folder.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from mtl_edge.errors import BundleError, SchemaError
from mtl_edge.files import sha256_of

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "TOKENIZER",
    "Backbone",
    "Bundle",
    "FileEntry",
    "Graph",
    "Manifest",
    "Task",
    "open_bundle",
    "read_manifest",
    "write_manifest",
]

SCHEMA = 2
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"

Verify = Literal["full", "size"]


@dataclass(frozen=True, slots=True)
class Task:
    """A question asked of every text.

    Attributes:
        name: also the name of the graph's output.
        labels: in the order of the logits.
        temperature: logits are divided by it before the softmax (Guo et al. 2017,
            arXiv:1706.04599).
        thresholds: per label, the probability from which on its answer is sure; none: all are.
    """

    name: str
    labels: tuple[str, ...]
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Backbone:
    """The pretrained encoder that the graphs were made from."""

    name: str
    architecture: str
    revision: str | None
    sha256: str
    hidden_size: int
    layers: int
    vocabulary: int


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
    """

    target: str
    engine: str
    precision: str
    file: str
    companions: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    latency_ms: float | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, *self.companions)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle: its size in bytes and the sha256 of its content."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a bundle.

    Attributes:
        reduced: what the word tables were made smaller by, if anything: `embeddings`, `vocabulary`.
        evaluation: what was measured at export, per task: see `mtl_edge.export.proof`.
        versions: of the packages that wrote the bundle.
    """

    schema: int
    tasks: tuple[Task, ...]
    backbone: Backbone
    depth: int
    max_tokens: int
    graphs: tuple[Graph, ...]
    files: tuple[FileEntry, ...] = ()
    reduced: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of one of the files that were verified."""
        return self.path / name

    def files_of(self, graph: Graph) -> list[Path]:
        """Paths of a graph's files, the one that the engine opens first."""
        return [self.file(name) for name in graph.files]

    def size_of(self, graph: Graph) -> int:
        """Bytes that an app ships for this graph: its files and the tokenizer."""
        wanted = {*graph.files, TOKENIZER, MANIFEST}
        listed = sum(entry.size for entry in self.manifest.files if entry.path in wanted)
        return listed + (self.path / MANIFEST).stat().st_size


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete `manifest` with every file in `folder` and write it there."""
    entries = tuple(
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    )
    whole = dataclasses.replace(manifest, files=entries)
    text = json.dumps(dataclasses.asdict(whole), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_bundle(path: str | Path, *, verify: Verify = "full") -> Bundle:
    """Read a bundle's manifest and check its files before anything opens them.

    Args:
        path: the bundle's folder.
        verify: `full` compares every file's size and sha256, `size` its size alone.

    Raises:
        BundleError: no bundle, a manifest that does not parse, a path that leaves the folder, or a
            file that is missing or altered.
        SchemaError: the manifest's schema is not the one that this release reads.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    root = folder.resolve()
    for entry in manifest.files:
        _check_file(root, entry, verify)
    return Bundle(root, manifest)


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest, checked by itself; its files are not looked at.

    Raises:
        BundleError, SchemaError: see `open_bundle`.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"no bundle at {folder}: expected a folder with {MANIFEST} in it; "
            "`mtl-edge export` writes one"
        )
    return _parse_manifest(file)


def _parse_manifest(file: Path) -> Manifest:
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _altered(f"{file} is not JSON ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise _altered(f"{file} has no schema version")
    if data["schema"] > SCHEMA:
        raise SchemaError(
            f"{file} has schema {data['schema']}, and this release reads {SCHEMA}; "
            "upgrade with `pip install -U mtl-edge`"
        )
    if data["schema"] < SCHEMA:
        raise SchemaError(
            f"{file} has schema {data['schema']}, and this release reads {SCHEMA}; export the "
            "checkpoint again"
        )
    try:
        manifest = _manifest_from(data)
    except (KeyError, TypeError, ValueError) as error:
        raise _altered(f"{file} does not follow the schema ({error!r})") from None
    _check_manifest(manifest, file)
    return manifest


def _manifest_from(data: dict[str, Any]) -> Manifest:
    return Manifest(
        schema=data["schema"],
        tasks=tuple(
            Task(
                _as(str, task["name"]),
                tuple(_as(str, label) for label in _as(list, task["labels"])),
                float(task["temperature"]),
                tuple(float(value) for value in _as(list, task.get("thresholds", []))),
            )
            for task in _as(list, data["tasks"])
        ),
        backbone=Backbone(**_as(dict, data["backbone"])),
        depth=_as(int, data["depth"]),
        max_tokens=_as(int, data["max_tokens"]),
        graphs=tuple(
            Graph(
                **{
                    **graph,
                    "companions": tuple(_as(list, graph["companions"])),
                    "heads": tuple(_as(list, graph["heads"])),
                }
            )
            for graph in _as(list, data["graphs"])
        ),
        files=tuple(
            FileEntry(_as(str, f["path"]), _as(int, f["size"]), _as(str, f["sha256"]))
            for f in _as(list, data["files"])
        ),
        reduced=_as(dict, data["reduced"]),
        evaluation=_as(dict, data["evaluation"]),
        versions=_as(dict, data["versions"]),
    )


_T = TypeVar("_T")


def _as(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


def _check_manifest(manifest: Manifest, file: Path) -> None:
    listed = {entry.path for entry in manifest.files}
    wanted = {TOKENIZER, *(name for graph in manifest.graphs for name in graph.files)}
    if missing := sorted(wanted - listed):
        raise _altered(f"{file} names {missing[0]!r} but lists no checksum for it")
    for graph in manifest.graphs:
        if strange := sorted(set(graph.heads) - set(graph.files)):
            raise _altered(f"{file}: {strange[0]!r} is no file of graph {graph.target!r}")
    if not manifest.graphs:
        raise _altered(f"{file} lists no graph")
    if not manifest.tasks or len({task.name for task in manifest.tasks}) != len(manifest.tasks):
        raise _altered(f"{file} needs one or more tasks with distinct names")
    for task in manifest.tasks:
        if len(task.labels) < 2 or len(set(task.labels)) != len(task.labels):
            raise _altered(f"{file}: task {task.name!r} needs two or more distinct labels")
        if not 0 < task.temperature < float("inf"):
            raise _altered(f"{file}: task {task.name!r} has temperature {task.temperature}")
        if len(task.thresholds) not in (0, len(task.labels)):
            raise _altered(f"{file}: task {task.name!r} needs a threshold for each label, or none")
    if manifest.max_tokens < 3:
        raise _altered(f"{file} has max_tokens {manifest.max_tokens}, expected 3 or more")


def _check_file(root: Path, entry: FileEntry, verify: Verify) -> None:
    pure = PurePosixPath(entry.path)
    inside = not pure.is_absolute() and ".." not in pure.parts and "\\" not in entry.path
    path = root / pure
    if not inside or "\0" in entry.path or not path.resolve().is_relative_to(root):
        raise _altered(f"{entry.path!r} leads out of the bundle {root}")
    if not path.is_file():
        raise _altered(f"{path} is missing")
    size = path.stat().st_size
    if size != entry.size:
        raise _altered(f"{path} has {size:,} bytes, and the manifest says {entry.size:,}")
    if verify == "full" and sha256_of(path) != entry.sha256:
        raise _altered(f"{path} is not the file that the manifest describes (sha256 differs)")


def _altered(what: str) -> BundleError:
    return BundleError(f"{what}; the bundle is incomplete or altered: copy or export it again")
