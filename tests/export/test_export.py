"""Graphs: fused, in int8 where they say so, and faithful to the checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from transformers import AutoConfig, AutoTokenizer

from mtl_edge import EdgeClassifier, engines
from mtl_edge.bundle import Manifest, Task, open_bundle
from mtl_edge.cli import main
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError
from mtl_edge.export import proof
from mtl_edge.export import targets as export_targets
from mtl_edge.export.card import model_card
from mtl_edge.export.compared import compared
from mtl_edge.export.graphs import onnx_graph
from mtl_edge.export.proof import held_out
from mtl_edge.io.folders import sha256_of
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Sample, load_checkpoint
from mtl_edge.training.heads import hashes_of
from mtl_edge.training.model import logits_of
from tests.export.forked import forked
from tests.export.graphs import openvino_table_types, require_int8

Fails = Callable[..., str]
LAYERS = 2


def test_fp32_graph_equals_torch(checkpoint: Path, shared_bundle: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    texts = [sample.text for sample in loaded.samples[:100]]
    ids = loaded.backbone.text_encoder(loaded.max_tokens)(texts)
    expected = logits_of(loaded.model(), ids)
    with EdgeClassifier.load(shared_bundle, target="onnx-fp32") as classifier:
        logits = classifier.logits(texts)
    for task in expected:
        np.testing.assert_allclose(logits[task], expected[task], atol=1e-4)


def test_torch_batches_do_not_change_torch_logits(checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint).model()
    ids = [[101, 2000 + i, *range(3000, 3000 + i % 9), 102] for i in range(20)]
    together = logits_of(model, ids)["topic"]
    for row, tokens in enumerate(ids):
        with torch.inference_mode():
            tokens_2d = torch.tensor([tokens])
            alone = model(tokens_2d, torch.ones_like(tokens_2d))[1]
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("target", ["onnx-int8", "onnx-fp32"])
def test_onnx_graph_opens_without_this_package(shared_bundle: Path, target: str) -> None:
    file = shared_bundle / export_targets.TARGETS[target].files[0]
    onnx.checker.check_model(str(file))
    session = ort.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [o.name for o in session.get_outputs()] == ["sentiment", "topic"]
    for shape in ((1, 1), (3, 7), (2, 128)):
        ids = np.full(shape, 2023, np.int64)
        outputs = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert [o.shape for o in outputs] == [(shape[0], 2), (shape[0], 4)]


def test_both_engines_run_every_encoder_product_in_int8(
    shared_bundle: Path, tmp_path: Path
) -> None:
    fp32 = require_int8(shared_bundle, tmp_path, LAYERS)
    # Two heads of four members: hidden layer on what was asked and on the mean, scales of n-grams,
    # outputs. (Scores have their weights on the left.)
    asked, mean, scales = (2, 4, 256, 64), (2, 4, 64, 64), (1 + 3, 2 + 4)
    assert sorted(fp32) == sorted([asked, mean, scales, (256, 2), (256, 4)])


def test_onnx_embeddings_are_int8_on_disk(shared_bundle: Path) -> None:
    graph = onnx.load(shared_bundle / "model.int8.onnx").graph
    tables = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    large = [t for t in tables.values() if t.shape[:1] == (30522,) and t.shape[1] > 1]
    assert [t.dtype for t in large] == [np.int8]


def test_openvino_embeddings_are_int8_on_disk(shared_bundle: Path) -> None:
    assert openvino_table_types(shared_bundle / "openvino.int8.xml", 30522) == {"i8"}


def test_int8_product_equals_exact_integer_arithmetic(shared_bundle: Path, tmp_path: Path) -> None:
    """Saturating kernels, as some CPUs have, would show here."""
    graph = onnx.load(shared_bundle / "model.int8.onnx").graph
    node = next(n for n in graph.node if n.op_type == "MatMulIntegerToFloat")
    constants = {c.name: c for c in graph.initializer}
    weight = numpy_helper.to_array(constants[node.input[1]])
    extreme = np.full((4, weight.shape[0]), 255, np.uint8)
    extreme[1:] = np.random.default_rng(0).integers(0, 256, (3, weight.shape[0]))
    alone = onnx.helper.make_graph(
        [node],
        "product",
        [onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.UINT8, None)],
        [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
        [constants[name] for name in node.input[1:] if name],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(alone, opset_imports=opsets, ir_version=8)
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    result = session.run(None, {node.input[0]: extreme})[0]
    scale, scales, zero = (numpy_helper.to_array(constants[n]) for n in node.input[2:5])
    exact = (extreme.astype(np.int64) - int(zero)) @ weight.astype(np.int64)
    np.testing.assert_allclose(result, exact * scale * scales, rtol=1e-5)


def test_the_manifest_has_the_comparison_with_torch(shared_bundle: Path) -> None:
    evaluation = json.loads((shared_bundle / "manifest.json").read_text())["evaluation"]
    for task in ("sentiment", "topic"):
        assert evaluation[task]["graphs"]["onnx-fp32"]["agreement"] == 1
        for target in ("onnx-int8", "openvino-int8"):
            score = evaluation[task]["graphs"][target]
            assert score["agreement"] >= 0.8, "one row of these ten may change"
            assert score["compared_on"] == evaluation[task]["rows"]
            assert 0 <= score["paired_p"] <= 1
            assert 0 < score["max_probability_change"] < 0.1
        assert 0 <= evaluation[task]["bag_of_words"]["accuracy"] <= 1


def test_the_model_card_has_metadata_and_figures(shared_bundle: Path) -> None:
    card = (shared_bundle / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mtl-edge\npipeline_tag: text-classification\n")
    for word in ("sentiment", "topic", "bag of words", "usual recipe", "openvino-int8", "agrees"):
        assert word in card


def card_of(manifest: Manifest) -> str:
    """As one line, wherever it was wrapped."""
    return " ".join(model_card(manifest).split())


def test_the_model_card_says_what_runs(shared_bundle: Path, tiny_backbone: Path) -> None:
    manifest = open_bundle(shared_bundle).manifest
    name = manifest.backbone.name
    card = card_of(manifest)
    assert f"One pass of a frozen `{name}` encoder (2 layers, 64 wide) answers 2 tasks" in card
    assert "logistic regression on the same encoder." in card
    shallow = card_of(replace(manifest, depth=1))
    assert "logistic regression on the whole encoder, 2 layers." in shallow
    wide = replace(manifest, depth=0, backbone=replace(manifest.backbone, hidden_size=384))
    assert f"A table of token vectors (128 wide) from the embeddings of `{name}`" in card_of(wide)
    found = load_backbone(str(tiny_backbone))
    learned = found.changed(found.encoder, "top-layers").info
    card = card_of(replace(manifest, backbone=learned))
    assert f"One pass of a fine-tuned `{tiny_backbone}` encoder" in card
    assert f"base_model: {tiny_backbone} tags:" in card
    assert "frozen" not in card


def test_rows_that_taught_the_heads_again_do_not_count_as_set_aside(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    chosen = held_out(loaded)
    assert {s.split for found in chosen.values() for s in found} == {"selection"}
    dev = [Sample("dev", task.name, "some text", task.labels[0]) for task in loaded.tasks]
    report = {**loaded.report, "topic": {**loaded.report["topic"], "refitted": True}}
    again = replace(loaded, samples=[*loaded.samples, *dev], report=report)
    rows = held_out(again)
    assert [s.split for s in rows["topic"]] == ["dev"]
    assert len(rows["sentiment"]) == len(chosen["sentiment"]) + 1, "its heads were not"


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-1"])
def test_a_cache_of_no_size_is_refused(
    checkpoint: Path, tmp_path: Path, limit: str, fails: Fails
) -> None:
    message = fails("export", checkpoint, "--out", tmp_path / "b", f"--cache-limit={limit}")
    assert "expected gigabytes" in message


def test_no_trace_of_the_machine_or_the_training_texts_is_in_a_bundle(
    shared_bundle: Path, checkpoint: Path
) -> None:
    text = load_checkpoint(checkpoint).samples[0].text.encode()
    for file in shared_bundle.iterdir():
        data = file.read_bytes()
        assert text not in data, file
        assert str(Path.home()).encode() not in data or str(Path.home()) == "/", file


@pytest.mark.parametrize("stage", ["build", "evaluate"])
def test_a_failed_export_leaves_the_old_bundle_whole(
    bundle: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}

    def fail(*_: object) -> None:
        raise ExportError("made to fail")

    if stage == "build":
        monkeypatch.setattr("mtl_edge.export.int8.int8_onnx.quantize", fail)
    else:
        monkeypatch.setattr("mtl_edge.export.complete.evaluate", fail)
    command = ["export", str(checkpoint), "--out", str(bundle), "--targets", "onnx-int8"]
    assert main([*command, "--overwrite"]) == 2
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_a_graph_that_answers_otherwise_is_not_shipped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    join = onnx_graph.join

    def spoil(*args: onnx.ModelProto) -> onnx.ModelProto:
        model = join(*args)
        constants = {c.name: c for c in model.graph.initializer}
        bias = constants["heads/heads.0.groups.0.biases.1"]
        bias.CopyFrom(numpy_helper.from_array(np.float32([[9, 0, 0, 0]]), bias.name))
        return model

    monkeypatch.setattr("mtl_edge.export.graphs.onnx_graph.join", spoil)
    out = tmp_path / "out"
    message = fails("export", checkpoint, "--out", out, "--targets", "onnx-int8")
    assert "agrees with torch on" in message
    assert not out.exists()


def graph_that_errs(share: float, rows: int) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """Rows that a model gets right, and a graph but for a share of them."""
    samples = [Sample("dev", "t", f"text {i}", "ab"[i % 2]) for i in range(rows)]
    right = np.float32([[3, 0] if i % 2 == 0 else [0, 3] for i in range(rows)])
    wrong = right.copy()
    wrong[: round(share * rows)] = wrong[: round(share * rows), ::-1]
    return samples, right, wrong


@pytest.mark.parametrize(
    ("share", "rows", "limit", "ships"),
    [
        (0.004, 1000, 0.5, True),
        (0.006, 1000, 0.5, False),
        (0.006, 1000, 1.0, True),
        (0.3, 10, 0.5, True),  # three of ten rows may be chance
        (0.6, 10, 0.5, False),
    ],
)
def test_a_graph_may_lose_what_was_allowed_and_no_more(
    share: float, rows: int, limit: float, ships: bool
) -> None:
    samples, before, after = graph_that_errs(share, rows)
    task = Task("t", ("a", "b"))
    found = compared(task, [sample.label for sample in samples], before, after)
    assert found["rows_lost"] == round(share * rows)
    assert found["rows_won"] == 0
    assert found["paired_p"] == pytest.approx(min(1.0, 2 * 0.5 ** round(share * rows)))
    if ships:
        proof._require_accurate("onnx-int8", task, found, limit)
    else:
        with pytest.raises(ExportError, match=r"loses .* points of accuracy on .* rows"):
            proof._require_accurate("onnx-int8", task, found, limit)


def test_an_encoder_over_the_limit_of_a_graph_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr("mtl_edge.export.graphs.capture.MOST_BYTES", 10**6)
    message = fails("export", checkpoint, "--out", tmp_path / "b")
    assert "protobuf's limit" in message
    assert "smaller backbone" in message
    assert not (tmp_path / "b").exists()


def test_mistakes_are_named(checkpoint: Path, shared_bundle: Path, fails: Fails) -> None:
    out = shared_bundle.parent / "never"
    assert "there are onnx-int8" in fails("export", checkpoint, "--out", out, "--targets", "tflite")
    assert "exists; choose another" in fails("export", checkpoint, "--out", shared_bundle)
    assert "mtl-edge train" in fails("export", out, "--out", out)
    assert not out.exists()


def test_tables_of_ngrams_are_a_byte_a_number(shared_bundle: Path, checkpoint: Path) -> None:
    buckets = load_checkpoint(checkpoint).heads["topic"].config.buckets
    graph = onnx.load(shared_bundle / "model.int8.onnx").graph
    tables = [c for c in graph.initializer if list(c.dims)[:1] == [buckets]]
    assert [(tuple(c.dims), c.data_type) for c in tables] == [
        ((buckets, 1 + 3), onnx.TensorProto.INT8)
    ]
    assert openvino_table_types(shared_bundle / "openvino.heads.int8.xml", buckets) == {"i8"}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_hash_ngrams_as_torch_does(tmp_path: Path, engine: str) -> None:
    class Hashes(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hashes, there = hashes_of(ids, mask.float(), 2**19)
            return torch.cat(hashes, 1).float() * torch.cat(there, 1)

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 2**18, (4, 64), generator=generator)
    mask = torch.ones_like(ids)
    file = tmp_path / "hashes.onnx"
    torch.onnx.export(
        Hashes(),
        (ids, mask),
        str(file),
        input_names=["input_ids", "attention_mask"],
        output_names=["hashes"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")},
        opset_version=17,
        dynamo=False,
    )
    result = engines.start(engine, [file]).run(ids.numpy(), mask.numpy())["hashes"]
    np.testing.assert_array_equal(result, Hashes()(ids, mask).numpy())


def test_transformers_opens_the_tokenizer_and_plain_onnxruntime_the_graph(
    shared_bundle: Path,
) -> None:
    """The ten lines of the README."""
    texts = ["a quiet triumph", "the parcel was late " * 60, "Ärger & Ölpreis: 4 % 你好"]
    tokenizer = AutoTokenizer.from_pretrained(str(shared_bundle))
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    session = ort.InferenceSession(str(shared_bundle / "model.int8.onnx"), session_options())
    names = [value.name for value in session.get_inputs()]
    outputs = session.run(["topic"], {name: inputs[name].astype(np.int64) for name in names})
    with EdgeClassifier.load(shared_bundle, target="onnx-int8") as classifier:
        expected = classifier.logits(texts)["topic"]
    np.testing.assert_allclose(outputs[0], expected, atol=1e-4)
    config = AutoConfig.from_pretrained(str(shared_bundle))
    assert (config.model_type, config.num_hidden_layers) == ("bert", LAYERS)


def test_heads_are_fitted_to_the_quantized_encoder_when_asked(
    checkpoint: Path, rows: Path, tmp_path: Path, shared_bundle: Path, fails: Fails
) -> None:
    out = tmp_path / "b"
    export = ["export", str(checkpoint), "--targets", "onnx-int8,openvino-int8"]
    few = tmp_path / "few.csv"
    few.write_text("text\none\ntwo\n")
    assert "expected 100 or more" in fails(*export, "--refit", few, "--out", out)
    assert main([*export, "--refit", str(rows), "--out", str(out)]) == 0
    evaluation = json.loads((out / "manifest.json").read_text())["evaluation"]
    for task in ("sentiment", "topic"):
        for score in evaluation[task]["graphs"].values():
            assert score["before_refit"]["compared_on"] == score["compared_on"]
            assert score["agreement"] >= 0.8
    for name in ("encoder.int8.bin", "openvino.int8.bin"):
        assert (out / name).read_bytes() == (shared_bundle / name).read_bytes()


def test_the_targets_are_listed(capsys: pytest.CaptureFixture[str], fails: Fails) -> None:
    assert main(["export", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(export_targets.TARGETS)
    assert "expected a checkpoint and one of" in fails("export")


def test_scales_come_from_the_rows_that_are_given(
    checkpoint: Path, shared_bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("body\n" + "\n".join(f"nothing but number {i}" for i in range(40)))
    export = ["export", str(checkpoint), "--targets", "onnx-int8", "--calibration", str(file)]
    out = tmp_path / "bundle"
    assert main([*export, "--text-column", "body", "--out", str(out)]) == 0
    graphs = [onnx.load(folder / "model.int8.onnx").graph for folder in (out, shared_bundle)]
    scales = [
        sorted(
            float(numpy_helper.to_array(c))
            for c in graph.initializer
            if list(c.dims) == [] and c.data_type == onnx.TensorProto.FLOAT
        )
        for graph in graphs
    ]
    assert scales[0] != scales[1]
    assert "no column 'text'; it has 'body'" in fails(*export, "--out", tmp_path / "never")


KILLED = """
import signal

def prepare(stop):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if event == "call" and "/export/" in frame.f_code.co_filename.replace("\\\\", "/"):
            count += 1
            if count == stop:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(trace)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_an_export_killed_at_any_point_leaves_the_old_bundle_or_the_new(
    bundle: Path, checkpoint: Path
) -> None:
    before = sha256_of(bundle / "manifest.json")
    command = ["export", str(checkpoint), "--out", str(bundle), "--targets", "onnx-int8"]
    killed = 0
    with forked(KILLED) as run:
        for stop in (1, 5, 10, 20, 40, 80, 120, 160, 200, 240):
            code, errors = run(stop, [*command, "--overwrite"])
            assert code in (0, -9), errors
            open_bundle(bundle)
            if code == -9:
                assert sha256_of(bundle / "manifest.json") == before
                killed += 1
            before = sha256_of(bundle / "manifest.json")
    assert killed > 5
    assert main([*command, "--overwrite"]) == 0
    assert [p.name for p in bundle.parent.iterdir() if p.name.startswith(".")] == []


FULL_DISK = """
import resource

def prepare(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a limit on files")
def test_an_export_that_cannot_write_leaves_the_old_bundle_whole(
    bundle: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """As on a full disk, each write fails from some byte on."""
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}
    work = tmp_path / "work"
    work.mkdir()
    command = ["export", str(checkpoint), "--out", str(bundle), "--overwrite"]
    with forked(FULL_DISK, {"TMPDIR": str(work)}) as run:
        for limit in (100, 10_000, 90_000, 1_500_000, 2_500_000):
            code, errors = run(limit, [*command, "--targets", "onnx-int8,openvino-int8"])
            assert code in (1, 2), errors
            assert errors.splitlines()[-1].startswith("mtl-edge: "), errors
            assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before
            assert [p.name for p in bundle.parent.iterdir() if p.name.startswith(".")] == []
            assert [p.name for p in work.iterdir() if p.name.startswith("mtl-edge")] == []


def test_no_pair_of_products_overflows_sixteen_bits_when_the_range_is_reduced(
    checkpoint: Path, shared_bundle: Path, tmp_path: Path
) -> None:
    export = ["export", str(checkpoint), "--targets", "onnx-int8", "--reduce-range"]
    assert main([*export, "--out", str(tmp_path / "b")]) == 0
    largest = []
    for folder in (shared_bundle, tmp_path / "b"):
        weights = [
            numpy_helper.to_array(c)
            for c in onnx.load(folder / "model.int8.onnx").graph.initializer
            if c.name.endswith("_weight_int8")
        ]
        assert len(weights) == 4 * LAYERS
        largest.append(max(int(np.abs(w.astype(int)).max()) for w in weights))
    assert largest == [127, 63]
    assert 2 * 255 * largest[1] < 2**15 <= 2 * 255 * largest[0]


def test_fp16_keeps_inputs_outputs_and_answers(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    assert main(["export", str(checkpoint), "--targets", "onnx-fp16", "--out", str(out)]) == 0
    evaluation = json.loads((out / "manifest.json").read_text())["evaluation"]
    for task in ("sentiment", "topic"):
        assert evaluation[task]["graphs"]["onnx-fp16"]["max_probability_change"] < 0.01
    session = ort.InferenceSession(
        str(out / "model.fp16.onnx"), session_options(), providers=["CPUExecutionProvider"]
    )
    assert [i.type for i in session.get_inputs()] == ["tensor(int64)"] * 2
    assert [o.type for o in session.get_outputs()] == ["tensor(float)"] * 2
