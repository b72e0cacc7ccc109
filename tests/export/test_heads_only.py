"""A bundle gets new heads; its encoder stays byte for byte."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime_extensions
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import open_bundle
from mtl_edge.bundle.update import previous_of
from mtl_edge.cli import main
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.model import logits_of

Fails = Callable[..., str]
ENCODERS = ("encoder.int8.bin", "encoder.fp32.bin", "openvino.int8.xml", "openvino.int8.bin")
UPDATE = "update.zip"
TEXTS = ["a quiet triumph", "the parcel was late", "", "why not " * 90]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, rows: Path) -> Path:
    """The checkpoint with a third task, its sentiment taught anew."""
    out = tmp_path_factory.mktemp("extended") / "checkpoint"
    command = ["train", "--extend", str(checkpoint), "--task", f"mood={rows}"]
    command += ["--label-column", "sentiment", "--task", f"sentiment={rows}", "--learning-rate"]
    assert main([*command, "0.01", "--epochs", "2", "--out", str(out)]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace(checkpoint: Path, bundle: Path, *more: str) -> int:
    return main(["export", "--heads-only", str(checkpoint), "--into", str(bundle), *more])


@pytest.fixture(scope="module")
def replaced(shared_bundle: Path, extended: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with the heads of `extended`, in a folder with the update; only read."""
    folder = tmp_path_factory.mktemp("replaced")
    bundle = Path(shutil.copytree(shared_bundle, folder / "bundle"))
    update = folder / UPDATE
    update.write_text("mine")
    assert replace(extended, bundle, "--update", str(update), "--overwrite") == 0
    return bundle


def test_new_heads_answer_and_the_encoder_stays(
    shared_bundle: Path, replaced: Path, extended: Path
) -> None:
    before, after = contents(shared_bundle), contents(replaced)
    assert all(after[name] == before[name] for name in ENCODERS)
    assert contents(previous_of(replaced)) == before
    model = load_checkpoint(extended)
    ids = model.backbone.text_encoder(model.max_tokens)(TEXTS)
    expected = logits_of(model.model(), ids)
    assert list(expected) == ["topic", "mood", "sentiment"]
    for target in ("onnx-fp32", "onnx-int8", "openvino-int8"):
        with EdgeClassifier.load(replaced, target=target) as classifier:
            assert [task.name for task in classifier.tasks] == list(expected)
            logits = classifier.logits(TEXTS)
        for task, wanted in expected.items():
            atol = 1e-4 if target == "onnx-fp32" else 0.3
            np.testing.assert_allclose(logits[task], wanted, atol=atol)


def test_replacing_twice_leaves_no_former_head_in_the_graph(
    shared_bundle: Path, replaced: Path, extended: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(extended)
    graph = onnx.load(replaced / "model.int8.onnx", load_external_data=False).graph
    assert [output.name for output in graph.output] == [t.name for t in checkpoint.tasks]
    size = (replaced / "heads.int8.bin").stat().st_size
    again = Path(shutil.copytree(replaced, tmp_path / "bundle"))
    assert replace(extended, again) == 0
    assert (again / "heads.int8.bin").stat().st_size == size
    assert onnx.load(again / "model.int8.onnx", load_external_data=False).graph == graph
    fresh = (shared_bundle / "heads.int8.bin").read_bytes()
    assert fresh != (again / "heads.int8.bin").read_bytes()


def test_the_version_before_can_be_restored(
    shared_bundle: Path, replaced: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(replaced.parent, tmp_path / "copy")) / replaced.name
    after = contents(bundle)
    assert main(["update", str(bundle), "--restore"]) == 0
    assert contents(bundle) == contents(shared_bundle)
    assert main(["update", str(bundle), "--restore"]) == 0
    assert contents(bundle) == after


def test_heads_that_fail_the_proof_change_nothing(
    bundle: Path, extended: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    before = contents(bundle)

    def fail(*_: object) -> None:
        raise ExportError("made to fail")

    monkeypatch.setattr("mtl_edge.export.complete.evaluate", fail)
    assert "made to fail" in fails("export", "--heads-only", extended, "--into", bundle)
    assert contents(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_heads_of_another_encoder_are_refused(
    bundle: Path, tmp_path: Path, rows: Path, minilm: Path, fails: Fails
) -> None:
    other = tmp_path / "other"
    train = ["train", "--backbone", str(minilm), "--depth", "0", "--epochs", "1"]
    assert main([*train, "--task", f"topic={rows}", "--out", str(other)]) == 0
    message = fails("export", "--heads-only", other, "--into", bundle)
    assert "another backbone than the checkpoint" in message
    message = fails("export", "--heads-only", other, "--out", tmp_path / "b")
    assert "expected a checkpoint and one of" in message


def test_an_update_brings_a_copy_elsewhere_to_the_new_version(
    shared_bundle: Path, replaced: Path, tmp_path: Path
) -> None:
    device = Path(shutil.copytree(shared_bundle, tmp_path / "device"))
    update = replaced.parent / UPDATE
    assert update.stat().st_size < (replaced / "encoder.int8.bin").stat().st_size
    assert main(["update", str(device), str(update)]) == 0
    assert contents(device) == contents(replaced)
    open_bundle(device)
    assert main(["update", str(device), "--restore"]) == 0
    assert contents(device) == contents(shared_bundle)


def test_a_file_of_ones_own_is_no_update_unless_it_may_be_replaced(
    bundle: Path, replaced: Path, extended: Path, tmp_path: Path, fails: Fails
) -> None:
    before = contents(bundle)
    update = tmp_path / "update.zip"
    update.write_text("mine")
    command = ["export", "--heads-only", str(extended), "--into", str(bundle), "--update"]
    assert "exists; choose another --update" in fails(*command, update)
    assert "is a folder, expected a file" in fails(*command, tmp_path)
    assert update.read_text() == "mine"
    assert contents(bundle) == before
    assert [path.name for path in bundle.parent.iterdir() if path.is_dir()] == [bundle.name]
    assert zipfile.is_zipfile(replaced.parent / UPDATE), "with --overwrite it was"


def test_heads_that_read_more_states_than_the_former_are_put_into_any_precision(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    train = ["train", "--backbone", str(tiny_backbone), "--task", f"topic={rows}", "--epochs", "1"]
    for kind in ("linear:mean", "attention"):
        assert main([*train, "--head", kind, "--out", str(tmp_path / kind)]) == 0
    out = tmp_path / "b"
    targets = "onnx-fp16,onnx-fp32,onnx-int8,openvino-int8"
    command = ["export", str(tmp_path / "linear:mean"), "--targets", targets]
    assert main([*command, "--out", str(out)]) == 0
    assert replace(tmp_path / "attention", out) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--heads-only", "--into", "B", "--refit", "x.csv"], "is for new bundles"),
        (["--heads-only", "--into", "B", "--overwrite"], "is for new bundles"),
        (["--heads-only", "--into", "B", "--update", "missing/u.zip"], "no such folder"),
        (["--out", "C", "--update", "u.zip"], "--update is of --heads-only"),
        (["--out", "C", "--targets", "onnx-fp32", "--embeddings", "4bit"], "is for onnx-int8"),
        (["--out", "C", "--targets", "openvino-int8", "--ort"], "is for onnx-int8"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    bundle: Path, checkpoint: Path, options: list[str], says: str, fails: Fails
) -> None:
    there = [str(bundle) if part == "B" else part for part in options]
    there = [str(bundle.parent / "C") if part == "C" else part for part in there]
    assert says in fails("export", checkpoint, *there)


def test_graphs_that_take_strings_get_the_new_heads_too(
    checkpoint: Path, extended: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    forms = ["--with-tokenizer", "--ort", "--targets", "onnx-int8"]
    assert main(["export", str(checkpoint), "--out", str(out), *forms]) == 0
    before = contents(out)
    assert {"model.int8.text.onnx", "model.int8.ort"} < set(before)
    assert replace(extended, out) == 0
    after = contents(out)
    assert set(after) == set(before)
    for name in ("model.int8.text.onnx", "model.int8.ort"):
        assert after[name] != before[name]
    options = session_options()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = ort.InferenceSession(str(out / "model.int8.text.onnx"), options)
    texts = ["a quiet triumph", "the parcel was late"]
    with EdgeClassifier.load(out) as classifier:
        expected = classifier.logits(texts)["mood"]
    (logits,) = session.run(["mood"], {"text": np.array(texts, object)})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
