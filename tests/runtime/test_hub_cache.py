"""A bundle in the Hub's cache, a folder of links, is the bundle; links elsewhere are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import MANIFEST, open_bundle
from mtl_edge.bundle.schema import SIGNATURE
from mtl_edge.bundle.signing import sign
from mtl_edge.cli import main
from mtl_edge.errors import BundleError
from mtl_edge.io.folders import sha256_of
from tests.runtime.test_signing import keys

TEXTS = ["good morning", "the phone is broken", "how much is it"]


def in_cache(bundle: Path, cache: Path, inner: str = "") -> Path:
    """The bundle as the Hub's client leaves it after a download."""
    repository = cache / "models--someone--classifier"
    snapshot = repository / "snapshots" / ("c" * 40) / inner
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in bundle.iterdir():
        blob = repository / "blobs" / sha256_of(file)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def snapshot(shared_bundle: Path, tmp_path: Path) -> Path:
    return in_cache(shared_bundle, tmp_path)


@pytest.mark.parametrize(
    ("target", "engine"),
    [
        ("onnx-int8", "onnxruntime"),
        ("onnx-fp32", "onnxruntime"),
        ("openvino-int8", "openvino"),
    ],
)
def test_answers_from_the_cache_are_those_of_the_bundle(
    shared_bundle: Path, snapshot: Path, target: str, engine: str
) -> None:
    with EdgeClassifier.load(shared_bundle, target=target, engine=engine) as classifier:
        expected = classifier.logits(TEXTS)
    with EdgeClassifier.load(snapshot, target=target, engine=engine) as classifier:
        found = classifier.logits(TEXTS)
    for task, values in expected.items():
        np.testing.assert_array_equal(found[task], values)


def test_a_bundle_in_a_folder_of_its_repository_loads(shared_bundle: Path, tmp_path: Path) -> None:
    with EdgeClassifier.load(in_cache(shared_bundle, tmp_path, "small/one")) as classifier:
        assert len(classifier.predict(TEXTS)) == len(TEXTS)


def test_a_link_to_the_whole_folder_loads(shared_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(in_cache(shared_bundle, tmp_path))
    (tmp_path / "plain").symlink_to(shared_bundle)
    for name in ("latest", "plain"):
        assert open_bundle(tmp_path / name).manifest == open_bundle(shared_bundle).manifest


def test_commands_take_it(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(snapshot)]) == 0
    assert "every sha256 as the manifest says" in capsys.readouterr().out
    assert main(["predict", str(snapshot), *TEXTS]) == 0
    open_bundle(snapshot, verify="size")


def test_a_signed_one_is_known_by_its_key(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    _, other = keys(tmp_path, "other")
    sign(bundle, private)
    snapshot = in_cache(bundle, tmp_path)
    assert (snapshot / SIGNATURE).is_symlink()
    with EdgeClassifier.load(snapshot, public_key=public) as classifier:
        assert len(classifier.predict(TEXTS)) == len(TEXTS)
    with pytest.raises(BundleError, match="not signed with the key"):
        open_bundle(snapshot, public_key=other)


def test_signing_it_leaves_the_cache_s_blobs_alone(bundle: Path, tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "maker")
    mine, public = keys(tmp_path, "mine")
    sign(bundle, private)
    snapshot = in_cache(bundle, tmp_path)
    blob = (snapshot / SIGNATURE).resolve()
    before = blob.read_bytes()
    sign(snapshot, mine)
    open_bundle(snapshot, public_key=public)
    assert blob.read_bytes() == before


def test_a_blob_that_was_altered_is_found(snapshot: Path) -> None:
    blob = (snapshot / "encoder.int8.bin").resolve()
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BundleError, match="sha256 differs"):
        EdgeClassifier.load(snapshot)
    blob.write_bytes(data[:-1])
    with pytest.raises(BundleError, match="the manifest says"):
        EdgeClassifier.load(snapshot, verify="size")
    blob.unlink()
    with pytest.raises(BundleError, match="missing"):
        EdgeClassifier.load(snapshot, verify="size")


@pytest.mark.parametrize("name", [MANIFEST, "tokenizer.json", "encoder.int8.bin"])
@pytest.mark.parametrize("where", ["outside", "repository", "other", "deeper", "through a blob"])
def test_a_link_to_anything_but_the_repository_s_blobs_is_refused(
    snapshot: Path, tmp_path: Path, name: str, where: str
) -> None:
    repository = snapshot.parent.parent
    blob = (snapshot / name).resolve()
    place = {
        "outside": tmp_path / "outside",
        "repository": repository / "outside",
        "other": tmp_path / "models--someone--other" / "blobs" / blob.name,
        "deeper": repository / "blobs" / "folder" / blob.name,
        "through a blob": tmp_path / "outside",
    }[where]
    place.parent.mkdir(parents=True, exist_ok=True)
    blob.rename(place)
    if where == "through a blob":
        blob.symlink_to(place)
    else:
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(place)
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(snapshot)


def test_blobs_that_are_elsewhere_are_refused(snapshot: Path, tmp_path: Path) -> None:
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(snapshot)


def test_a_folder_that_only_looks_like_a_snapshot_is_refused(
    snapshot: Path, tmp_path: Path
) -> None:
    shutil.move(snapshot.parent.parent, tmp_path / "my-models")
    with pytest.raises(BundleError, match="leads out"):
        EdgeClassifier.load(tmp_path / "my-models" / "snapshots" / snapshot.name)


def test_a_blob_that_is_no_file_is_refused(snapshot: Path) -> None:
    blob = (snapshot / "encoder.int8.bin").resolve()
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(BundleError, match="not a regular file"):
        EdgeClassifier.load(snapshot)
