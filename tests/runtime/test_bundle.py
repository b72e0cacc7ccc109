"""A bundle that is not what it says it is never reaches an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import MANIFEST, SCHEMA, open_bundle
from mtl_edge.errors import BundleError, SchemaError

Change = Callable[[dict[str, Any]], object]


def rewrite(bundle: Path, change: Change) -> None:
    file = bundle / MANIFEST
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_an_intact_bundle_opens_and_names_its_tasks(shared_bundle: Path) -> None:
    manifest = open_bundle(shared_bundle).manifest
    assert [task.name for task in manifest.tasks] == ["sentiment", "topic"]
    assert manifest.tasks[1].labels == ("food", "gadgets", "money", "travel")
    assert {entry.path for entry in manifest.files} | {MANIFEST} == {
        path.name for path in shared_bundle.iterdir()
    }


@pytest.mark.parametrize(
    "name",
    ["model.int8.onnx", "encoder.int8.bin", "openvino.heads.int8.bin", "tokenizer.json"],
)
def test_one_flipped_bit_is_found(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match="sha256 differs"):
        EdgeClassifier.load(bundle)


@pytest.mark.parametrize("name", ["model.int8.onnx", "tokenizer.json"])
def test_a_truncated_or_missing_file_is_found_even_without_checksums(
    bundle: Path, name: str
) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match="bytes"):
        EdgeClassifier.load(bundle, verify="size")
    (bundle / name).unlink()
    with pytest.raises(BundleError, match="missing"):
        EdgeClassifier.load(bundle, verify="size")


def test_a_newer_schema_says_to_upgrade(bundle: Path) -> None:
    rewrite(bundle, lambda m: m.update(schema=SCHEMA + 1, unknown="field"))
    with pytest.raises(SchemaError, match=r"pip install -U"):
        EdgeClassifier.load(bundle)


def test_an_older_schema_says_to_export_again(bundle: Path) -> None:
    rewrite(bundle, lambda m: m.update(schema=SCHEMA - 1))
    with pytest.raises(SchemaError, match="export the checkpoint again"):
        EdgeClassifier.load(bundle)


def test_no_bundle_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="mtl-edge export"):
        EdgeClassifier.load(tmp_path)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../outside", "..\\outside"])
def test_no_path_leaves_the_bundle(bundle: Path, path: str) -> None:
    (bundle.parent / "outside").write_text("secret")
    rewrite(bundle, lambda m: m["files"].append({"path": path, "size": 6, "sha256": ""}))
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(bundle, verify="size")


def test_a_link_to_the_outside_is_refused(bundle: Path) -> None:
    outside = bundle.parent / "outside.json"
    (bundle / "tokenizer.json").rename(outside)
    (bundle / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("tasks"),
        lambda m: m.update(tasks=[]),
        lambda m: m.update(tasks="sentiment"),
        lambda m: m.update(graphs=[]),
        lambda m: m.update(max_tokens="128"),
        lambda m: m.update(max_tokens=0),
        lambda m: m["tasks"][0].update(labels=["one"]),
        lambda m: m["tasks"][0].update(labels=["same", "same"]),
        lambda m: m["tasks"][0].update(temperature=0),
        lambda m: m["tasks"][0].update(temperature=float("nan")),
        lambda m: m["tasks"].append(m["tasks"][0]),
        lambda m: m["graphs"][0].update(file="unlisted.onnx"),
        lambda m: m["graphs"][0].update(surprise=1),
        lambda m: m["graphs"][0].update(heads=["tokenizer.json"]),
        lambda m: m.update(files=[]),
        lambda m: m.update(schema="1"),
        lambda m: m.clear(),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(bundle: Path, change: Change) -> None:
    rewrite(bundle, change)
    with pytest.raises(BundleError, match="copy or export it again"):
        EdgeClassifier.load(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00"])
def test_a_manifest_that_is_not_a_json_object_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        EdgeClassifier.load(bundle)


def test_a_graph_with_fewer_labels_than_the_manifest_is_refused(bundle: Path) -> None:
    rewrite(bundle, lambda m: m["tasks"][0].update(labels=["a", "b", "c"]))
    with (
        EdgeClassifier.load(bundle) as classifier,
        pytest.raises(RuntimeError, match=r"expected logits \(1, 3\), got shape \(1, 2\)"),
    ):
        classifier.predict("text")
