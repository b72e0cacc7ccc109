"""A bundle on disk: opened only once all of it is what its manifest says.

A bundle is a folder:

    manifest.json    `mtl_edge.bundle.schema.Manifest`
    manifest.json.sig  the manifest's signature, if it was signed: see `mtl_edge.bundle.signing`
    tokenizer.json   the tokenizer, in the format of the `tokenizers` library
    README.md        a model card
    *.onnx, *.xml, *.bin   one graph per target: encoder and all heads, their weights apart; and one
                     for each cheaper stage, if there are any

Every ONNX graph has the inputs `input_ids` and `attention_mask` (int64 `[batch, tokens]`) and one
output per task, named after it (float32 logits `[batch, labels]`, of a score `[batch, 1]`), and,
where the manifest has a domain, one of that name `[batch, its labels]`. OpenVINO's are two: the
encoder, from these inputs to `state.0`, `state.1`, ..., and the heads, from states and inputs to
logits.

What is promised, whoever made the bundle: nothing in it is unpickled or executed; no file outside
the folder is read, by us or by an engine that we start, whatever the manifest, a link or a graph
names, but the blobs of the same repository where it lies in the Hub's cache, which is a folder of
links to them; every file that the manifest lists is a regular one, of the size and, with
`verify="full"`, of the sha256 listed; each such check comes before an engine opens the file. A
graph whose weights would come from another folder, through a link or from beyond a file's end is
refused by ONNX Runtime itself from 1.27 on, and none older is started. What is not promised:
that a graph is cheap to run, and that nobody writes into the folder between the check and the
engine's own opening of the file. Let only those write there whom you trust with the answers.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mtl_edge.bundle.manifest import parse_manifest
from mtl_edge.bundle.safe_files import read_at_most, require_portable, require_unaltered
from mtl_edge.bundle.schema import (
    DOMAIN,
    MANIFEST,
    MOST_MANIFEST_BYTES,
    SCHEMA,
    SIGNATURE,
    TOKENIZER,
    BackboneInfo,
    Exit,
    ExitGraph,
    FileEntry,
    Graph,
    Manifest,
    Scale,
    Task,
    TaskKind,
)
from mtl_edge.errors import BundleError, OptionError
from mtl_edge.io.folders import sha256_of

__all__ = [
    "DOMAIN",
    "MANIFEST",
    "SCHEMA",
    "TOKENIZER",
    "BackboneInfo",
    "Bundle",
    "Exit",
    "ExitGraph",
    "FileEntry",
    "Graph",
    "Manifest",
    "Scale",
    "Task",
    "TaskKind",
    "Verify",
    "manifest_bytes",
    "open_bundle",
    "read_manifest",
    "write_manifest",
]

Verify = Literal["full", "size"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of one of the files that were verified."""
        return self.path / name

    def files_of(self, graph: Graph | ExitGraph) -> list[Path]:
        """Paths of a graph's files, the one that the engine opens first."""
        return [self.file(name) for name in graph.files]

    def size_of(self, graph: Graph) -> int:
        """Bytes that an app ships for this graph: its files and the tokenizer."""
        wanted = {*graph.all_files, TOKENIZER, MANIFEST}
        listed = sum(entry.size for entry in self.manifest.files if entry.path in wanted)
        return listed + (self.path / MANIFEST).stat().st_size


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete `manifest` with every file in `folder` and write it there.

    A signature of the manifest before would be worth nothing, and goes.

    Raises:
        BundleError: no reader would take this manifest.
    """
    entries = tuple(
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, SIGNATURE)
    )
    whole = dataclasses.replace(manifest, files=entries)
    text = json.dumps(dataclasses.asdict(whole), indent=2, ensure_ascii=False)
    data = f"{text}\n".encode("utf-8", "surrogatepass")
    parse_manifest(data, folder / MANIFEST)
    (folder / SIGNATURE).unlink(missing_ok=True)
    (folder / MANIFEST).write_bytes(data)


def open_bundle(
    path: str | Path, *, verify: Verify = "full", public_key: str | Path | None = None
) -> Bundle:
    """Read a bundle's manifest and check its files before anything opens them.

    Args:
        path: the bundle's folder.
        verify: `full` compares every file's size and sha256, `size` its size alone.
        public_key: file of the key that the bundle must be signed with: see
            `mtl_edge.bundle.signing`.

    Raises:
        BundleError: no bundle, a manifest that does not parse, a path that leaves the folder, a
            file that is missing or altered, a graph that was compiled for one device, or a
            signature that is missing or not by this key.
        SchemaError: the manifest's schema is not the one that this release reads.
        OptionError: `public_key` is not a key, or is given with `verify="size"`; or `verify` is
            neither.
        MissingPackageError: `public_key` is given and the package for signatures is missing.
    """
    if verify not in get_args(Verify):
        raise OptionError(f"verify is {verify!r}, expected {' or '.join(get_args(Verify))}")
    folder = Path(path)
    data = manifest_bytes(folder)
    if public_key is not None:
        if verify != "full":
            raise OptionError(
                "a signature vouches for what is in the files, which verify='size' does not look "
                "at; use verify='full'"
            )
        from mtl_edge.bundle.signing import require_signed  # its package is an extra

        # These bytes are parsed below: were the file read again, it could be another.
        require_signed(folder, data, Path(public_key))
    manifest = parse_manifest(data, folder / MANIFEST)
    root = folder.resolve()
    for entry in manifest.files:
        require_unaltered(root, entry.path, entry.size, entry.sha256 if verify == "full" else None)
    exits = [stage for graph in manifest.graphs for stage in graph.exits]
    graphs: list[Graph | ExitGraph] = [*manifest.graphs, *exits]
    for graph in graphs:
        if graph.file.endswith(".onnx"):
            require_portable(root, graph.file)
    return Bundle(root, manifest)


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest, checked by itself; its files are not looked at.

    Raises:
        BundleError, SchemaError: see `open_bundle`.
    """
    return parse_manifest(manifest_bytes(folder), folder / MANIFEST)


def manifest_bytes(folder: Path) -> bytes:
    """The bytes of a bundle's manifest, not yet looked at.

    Raises:
        BundleError: no bundle, or a manifest larger than any is.
    """
    if not (folder / MANIFEST).exists():
        raise BundleError(
            f"no bundle at {folder}: expected a folder with {MANIFEST} in it; "
            "`mtl-edge export` writes one"
        )
    return read_at_most(folder.resolve(), MANIFEST, MOST_MANIFEST_BYTES)
