"""A bundle that is not what it says it is never reaches an engine."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import MANIFEST, SCHEMA, open_bundle, read_manifest, write_manifest
from mtl_edge.bundle.schema import MOST_MANIFEST_BYTES, READABLE
from mtl_edge.errors import BundleError, EngineError, SchemaError

Change = Callable[[dict[str, Any]], object]


def rewrite(bundle: Path, change: Change) -> None:
    file = bundle / MANIFEST
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def of_openvino(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(g for g in manifest["graphs"] if g["engine"] == "openvino")


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


def test_a_bundle_of_the_release_before_opens(bundle: Path) -> None:
    def without_kinds(manifest: dict[str, Any]) -> None:
        manifest.update(schema=READABLE[0])
        for task in manifest["tasks"]:
            del task["kind"], task["scale"]

    rewrite(bundle, without_kinds)
    assert [task.kind for task in open_bundle(bundle).manifest.tasks] == ["single", "single"]


def test_an_older_schema_says_to_export_again(bundle: Path) -> None:
    rewrite(bundle, lambda m: m.update(schema=READABLE[0] - 1))
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
        lambda m: m.update(surprise=1),
        lambda m: m.update(schema=True),
        lambda m: m.update(depth=7 * 10**30),
        lambda m: m.update(depth=-1),
        lambda m: m.update(depth=1.0),
        lambda m: m.update(max_tokens=2**40),
        lambda m: m.update(versions={"torch": 2}),
        lambda m: m.update(evaluation={"a": float("inf")}),
        lambda m: m.update(evaluation={"a": "\ud800"}),
        lambda m: m.update(evaluation=nested(200)),
        lambda m: m["backbone"].update(name=None),
        lambda m: m["backbone"].update(layers="6"),
        lambda m: m["backbone"].update(hidden_size=-64),
        lambda m: m["backbone"].pop("sha256"),
        lambda m: m["tasks"][0].update(name="input_ids"),
        lambda m: m["tasks"][0].update(name="state.0"),
        lambda m: m["tasks"][0].update(name="a\nb"),
        lambda m: m["tasks"][0].update(labels=["a\x1b[2J", "b"]),
        lambda m: m["tasks"][0].update(labels=["\udfff", "b"]),
        lambda m: m["tasks"][0].update(labels=[1, 2]),
        lambda m: m["tasks"][0].update(temperature=float("inf")),
        lambda m: m["tasks"][0].update(temperature=True),
        lambda m: m["tasks"][0].update(temperature=10**400),
        lambda m: m["tasks"][0].update(thresholds=[0.5, float("nan")]),
        lambda m: m["tasks"][0].update(thresholds=[0.5]),
        lambda m: m["tasks"][0].update(thresholds=[0.5, -1]),
        lambda m: m["graphs"][0].update(target=["onnx-int8"]),
        lambda m: m["graphs"][0].update(engine=None),
        lambda m: m["graphs"][0].update(companions="encoder.int8.bin"),
        lambda m: m["graphs"][0].update(companions=[["encoder.int8.bin"]]),
        lambda m: m["graphs"][0].update(latency_ms="fast"),
        lambda m: m["graphs"][0].update(latency_ms=-1),
        lambda m: m["graphs"][0].update(file="tokenizer.json"),
        lambda m: m["graphs"].append(m["graphs"][0]),
        lambda m: of_openvino(m).update(companions=["openvino.heads.int8.xml"]),
        lambda m: of_openvino(m)["companions"].append("model.int8.onnx"),
        lambda m: m["files"][0].update(size=-1),
        lambda m: m["files"][0].update(size=2**70),
        lambda m: m["files"][0].update(size=True),
        lambda m: m["files"][0].update(sha256="0" * 63),
        lambda m: m["files"].append(m["files"][0]),
        lambda m: m["files"].append({**m["files"][0], "path": m["files"][0]["path"].swapcase()}),
        lambda m: m["files"].append({**m["files"][0], "path": MANIFEST}),
        lambda m: m["files"].append({**m["files"][0], "path": "a//b"}),
        lambda m: m["files"].append({**m["files"][0], "path": "nul.txt"}),
        lambda m: m["files"].append({**m["files"][0], "path": "a\x00b"}),
        lambda m: m["files"].append({**m["files"][0], "path": "x" * 5000}),
        lambda m: m["files"].append({**m["files"][0], "path": ""}),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(bundle: Path, change: Change) -> None:
    rewrite(bundle, change)
    with pytest.raises(BundleError, match="copy or export it again"):
        EdgeClassifier.load(bundle)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\x00", '{"schema": 2, "schema": 2}', "9" * 9999]
)
def test_a_manifest_that_is_not_a_json_object_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        EdgeClassifier.load(bundle)


def test_a_graph_with_fewer_labels_than_the_manifest_is_refused(bundle: Path) -> None:
    rewrite(bundle, lambda m: m["tasks"][0].update(labels=["a", "b", "c"]))
    with (
        pytest.raises(RuntimeError, match=r"expected logits \(1, 3\), got shape \(1, 2\)"),
        EdgeClassifier.load(bundle) as classifier,
    ):
        classifier.predict("text")


def test_a_manifest_of_gigabytes_is_refused_without_being_read(bundle: Path) -> None:
    os.truncate(bundle / MANIFEST, 8 * 2**30)  # of which none is on disk
    with pytest.raises(BundleError, match=f"larger than {MOST_MANIFEST_BYTES:,} bytes"):
        EdgeClassifier.load(bundle)


def test_a_manifest_that_none_could_read_is_not_written(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    before = (bundle / MANIFEST).read_bytes()
    manifest.evaluation["lost"] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        write_manifest(bundle, manifest)
    assert (bundle / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("name", [MANIFEST, "tokenizer.json", "encoder.int8.bin"])
def test_what_is_not_a_regular_file_is_refused_and_not_waited_for(bundle: Path, name: str) -> None:
    """Nobody writes into the pipe: opening it the usual way would wait forever."""
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match="not a regular file"):
        EdgeClassifier.load(bundle)
    (bundle / name).unlink()
    (bundle / name).symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(bundle)
    (bundle / name).unlink()
    (bundle / name).symlink_to(name)
    with pytest.raises(BundleError, match=r"cannot be found|no bundle"):
        EdgeClassifier.load(bundle)
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        EdgeClassifier.load(bundle)


def test_a_socket_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / "tokenizer.json").unlink()
    monkeypatch.chdir(bundle)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("tokenizer.json")
        with pytest.raises(BundleError, match="not a regular file"):
            open_bundle(bundle, verify="size")


def test_a_link_within_the_bundle_is_its_file(bundle: Path) -> None:
    (bundle / "README.md").rename(bundle / "card")
    (bundle / "README.md").symlink_to("card")
    open_bundle(bundle)


PLACES = ("initializer", "sparse", "attribute", "subgraph", "function")
OUTSIDE = [
    {"location": "../outside"},
    {"location": "sub/../../outside"},
    {"location": "link"},
    {"location": "folder/outside"},
    {"location": ""},
    {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096", "length": "4"},
    {"offset": "0"},
    {"location": "heads.int8.bin", "offset": "99999999999"},
    {"location": "heads.int8.bin", "length": "99999999999"},
    {"location": "heads.int8.bin", "offset": "-4"},
    {"location": "heads.int8.bin", "length": "-4"},
    {"location": "heads.int8.bin", "offset": "0x10"},
    {"location": "heads.int8.bin", "offset": str(2**63 - 2), "length": "4"},
    {"location": "heads.int8.bin", "length": "9" * 30},
]


def with_weights(bundle: Path, place: str, entries: Mapping[str, str]) -> None:
    """Let a graph that only adds weights to its input say where those are."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.TensorProto(name="w", dims=[4], data_type=kind, data_location="EXTERNAL")
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, kind, [4]) for name in ("x", "y")]
    parts: dict[str, list[Any]] = {}
    functions = []
    if place == "initializer":
        parts["initializer"] = [weights]
    elif place == "sparse":
        indices = helper.make_tensor("indices", onnx.TensorProto.INT64, [4], range(4))
        sparse = onnx.SparseTensorProto(values=weights, indices=indices, dims=[4])
        parts["sparse_initializer"] = [sparse]
    elif place == "attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
    elif place == "subgraph":
        inner = helper.make_graph(nodes, "inner", [], ends[1:], initializer=[weights])
        true = helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
        nodes = [
            helper.make_node("Constant", [], ["c"], value=true),
            helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        ]
    else:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
        opset = [helper.make_opsetid("", 17)]
        functions.append(helper.make_function("own", "F", ["x"], ["y"], nodes, opset))
        nodes = [helper.make_node("F", ["x"], ["y"], domain="own")]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], **parts)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    (bundle / "model.int8.onnx").write_bytes(model.SerializeToString())
    write_manifest(bundle, read_manifest(bundle))


@pytest.mark.parametrize("place", PLACES)
def test_a_graph_whose_weights_would_come_from_elsewhere_is_refused(
    bundle: Path, place: str
) -> None:
    outside = bundle.parent / "outside"
    outside.write_bytes(bytes(16))
    (bundle / "sub").mkdir()
    load = partial(EdgeClassifier.load, bundle, target="onnx-int8")
    for entries in [*OUTSIDE, {"location": str(outside)}, {"location": "/dev/zero"}]:
        with_weights(bundle, place, entries)
        for name, target in (("link", outside), ("folder", bundle.parent)):
            (bundle / name).unlink(missing_ok=True)
            (bundle / name).symlink_to(target)
        with pytest.raises(EngineError, match="cannot open"):
            load()
        for name in ("link", "folder"):
            (bundle / name).unlink()
    with_weights(bundle, place, {"location": "./heads.int8.bin", "offset": "0", "length": "16"})
    with pytest.raises(EngineError, match="failed on"):  # it opens, and has other inputs
        load()


def test_a_graph_compiled_for_a_device_is_refused(bundle: Path) -> None:
    file = bundle / "model.int8.onnx"
    model = onnx.load(file, load_external_data=False)
    model.graph.node.add(op_type="EPContext", domain="com.microsoft")
    file.write_bytes(model.SerializeToString())
    write_manifest(bundle, read_manifest(bundle))
    with pytest.raises(BundleError, match="compiled for one device"):
        open_bundle(bundle)


def damaged_tokenizer(bundle: Path, change: Change) -> None:
    file = bundle / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    write_manifest(bundle, read_manifest(bundle))


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
MANY = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 300


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 40}),
        lambda t: t.update(normalizer={"type": "Prepend", "prepend": "x" * 10**6}),
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        lambda t: t["model"].update(max_input_chars_per_word=10**9),
        lambda t: t["post_processor"].update(single=[*MANY]),
        lambda t: t["post_processor"].update(single=[TEXT] * 3),
        lambda t: t.update(model={}),
    ],
)
def test_a_tokenizer_that_panics_or_swells_is_refused(bundle: Path, change: Change) -> None:
    damaged_tokenizer(bundle, change)
    with pytest.raises(BundleError, match="is not a tokenizer"):
        EdgeClassifier.load(bundle)


CATASTROPHE = {
    "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False
}  # fmt: skip


@pytest.mark.parametrize(
    "part", [CATASTROPHE, {"type": "FixedLength", "length": 0}], ids=lambda part: part["type"]
)
def test_a_tokenizer_that_panics_at_a_text_is_refused(bundle: Path, part: dict[str, Any]) -> None:
    damaged_tokenizer(bundle, lambda t: t.update(pre_tokenizer=part))
    with (
        pytest.raises(BundleError, match="the tokenizer fails on a text"),
        EdgeClassifier.load(bundle) as classifier,
    ):
        classifier.predict("a" * 40 + "!")


def test_an_id_that_the_graph_does_not_know_never_reaches_it(bundle: Path) -> None:
    special = {"id": "[CLS]", "ids": [30522], "tokens": ["[CLS]"]}
    damaged_tokenizer(
        bundle, lambda t: t["post_processor"]["special_tokens"].update({"[CLS]": special})
    )
    with (
        pytest.raises(BundleError, match="more tokens than the 30522 of the graph"),
        EdgeClassifier.load(bundle, engine="openvino") as classifier,
    ):
        classifier.predict("text")


URL = {
    "id": 30522, "content": "[URL]", "single_word": False, "lstrip": False, "rstrip": False,
    "normalized": False, "special": True,
}  # fmt: skip


@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_a_token_that_the_graph_does_not_know_reads_as_unknown(bundle: Path, target: str) -> None:
    texts = ["look at [URL] now", "look at [UNK] now", "nothing of the kind"]
    with EdgeClassifier.load(bundle, target=target) as classifier:
        expected = classifier.logits([texts[1], texts[1], texts[2]])
    damaged_tokenizer(bundle, lambda t: t["added_tokens"].append(URL))
    with EdgeClassifier.load(bundle, target=target) as classifier:
        found = classifier.logits(texts)
        alone = classifier.logits(texts[0])
    for task, logits in expected.items():
        np.testing.assert_array_equal(found[task], logits)
        np.testing.assert_allclose(alone[task][0], logits[0], atol=1e-5)


def test_where_nothing_stands_for_the_unknown_such_a_token_is_refused(bundle: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "z": 30522}, "merges": []}
    damaged_tokenizer(bundle, lambda t: t.update(model=model, post_processor=None, added_tokens=[]))
    with EdgeClassifier.load(bundle) as classifier:
        classifier.predict("aba")
        with pytest.raises(BundleError, match="no unknown token to stand for them"):
            classifier.predict("abz")
