"""The whole line as its users run it: the demo, real data, DistilBERT's size, the built wheel."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.batches.planning import pad
from mtl_edge.benchmarks.experiments import random_backbone
from mtl_edge.bundle import TOKENIZER
from mtl_edge.cli import demo, main
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.model import logits_of
from tests.conftest import DEMO, REAL, ROOT, needs_real_data
from tests.export.graphs import require_int8

pytestmark = pytest.mark.slow

LAYERS = 6
TRAIN_ROWS = 2000


def test_the_demo_prints_its_three_things_and_runs_again_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["demo", "--out", str(tmp_path / "demo")]
    assert main(command) == 0
    out = capsys.readouterr().out
    for line in ("torch fp32", "onnx-int8", "openvino-int8", "bag of words", "The bundle is"):
        assert line in out
    assert "Our train was cancelled twice" in out
    evaluation = EdgeClassifier.load(tmp_path / "demo" / "bundle").manifest.evaluation
    for task in ("sentiment", "topic"):
        found = evaluation[task]
        assert found["fp32"]["accuracy"] > found["bag_of_words"]["accuracy"]
        for score in found["graphs"].values():
            assert score["agreement"] >= 0.97
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    steps: list[list[str]] = []
    monkeypatch.setattr(demo, "_step", lambda step: steps.append(step) or 0)
    assert main([*command, "--overwrite"]) == 0
    assert [step[0] for step in steps if "--overwrite" in step] == ["train", "export"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint and bundle of MiniLM on a third of SST-2 and AG News, which takes a minute."""
    work = tmp_path_factory.mktemp("real")
    command = ["train", "--backbone", "minilm", "--out", str(work / "checkpoint")]
    for task in ("sentiment", "topic"):
        with (REAL / task / "train.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[: 1 + TRAIN_ROWS]
        with (work / f"{task}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        command += ["--task", f"{task}={work}/{task}.csv"]
        command += ["--dev", f"{task}={REAL}/{task}/dev.csv"]
    assert main(command) == 0
    targets = "onnx-int8,openvino-int8,onnx-fp32"
    export = ["export", str(work / "checkpoint"), "--out", str(work / "bundle")]
    assert main([*export, "--targets", targets]) == 0
    return work


@needs_real_data
def test_on_real_data_int8_keeps_the_accuracy_and_the_answers(real: Path) -> None:
    evaluation = json.loads((real / "bundle" / "manifest.json").read_text())["evaluation"]
    for task, rows in (("sentiment", 872), ("topic", 600)):
        found = evaluation[task]
        assert found["rows"] == rows
        assert found["fp32"]["accuracy"] > found["mean_pooling"]["accuracy"]
        for target in ("onnx-int8", "openvino-int8"):
            score = found["graphs"][target]
            assert score["accuracy"] >= found["fp32"]["accuracy"] - 0.005, target
            assert score["agreement"] >= 0.98, target


@needs_real_data
def test_on_real_data_the_fp32_graph_equals_torch(real: Path) -> None:
    checkpoint = load_checkpoint(real / "checkpoint")
    texts = [sample.text for sample in checkpoint.samples if sample.split == "dev"]
    expected = logits_of(checkpoint.model(), checkpoint.backbone.text_encoder(128)(texts))
    with EdgeClassifier.load(real / "bundle", target="onnx-fp32") as classifier:
        for task, logits in classifier.logits(texts).items():
            np.testing.assert_allclose(logits, expected[task], atol=1e-4)


@needs_real_data
@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_on_real_data_batch_mates_do_not_change_an_answer(real: Path, target: str) -> None:
    """Alone, among 64 of which some are far longer, and in another order."""
    checkpoint = load_checkpoint(real / "checkpoint")
    texts = [sample.text for sample in checkpoint.samples if sample.split == "dev"][::23][:63]
    texts.append(" ".join(texts)[:3000])
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    with EdgeClassifier.load(real / "bundle", target=target) as classifier:
        together = classifier.logits(texts)
        shuffled = classifier.logits([texts[row] for row in order])
        ids, mask = pad(TextEncoder.from_file(real / "bundle" / TOKENIZER, 128)(texts))
        padded = classifier._running().engine.run(
            ids, mask
        )  # one batch, all as long as the longest
        for row, text in enumerate(texts):
            alone = classifier.logits([text])
            for task, logits in alone.items():
                others = (together[task][row], shuffled[task][order.index(row)], padded[task][row])
                for other in others:
                    assert np.abs(other - logits[0]).max() < 1e-4
                    assert other.argmax() == logits[0].argmax()


@needs_real_data
def test_on_real_data_the_graphs_run_in_int8(real: Path, tmp_path: Path) -> None:
    require_int8(real / "bundle", tmp_path, LAYERS)


def test_distilbert_at_full_size_trains_exports_and_runs_as_fused(tmp_path: Path) -> None:
    random_backbone.write(tmp_path / "distilbert")
    rows = tmp_path / "rows.csv"
    lines = (DEMO / "train.csv").read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:201]))
    train = ["train", "--backbone", str(tmp_path / "distilbert"), "--epochs", "1"]
    train += ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    assert main([*train, "--out", str(tmp_path / "checkpoint")]) == 0
    bundle = tmp_path / "bundle"
    assert main(["export", str(tmp_path / "checkpoint"), "--out", str(bundle)]) == 0
    require_int8(bundle, tmp_path, LAYERS)
    for engine in ("onnxruntime", "openvino"):
        with EdgeClassifier.load(bundle, engine=engine) as classifier:
            assert classifier.manifest.backbone.hidden_size == 768
            assert set(classifier.predict("a text")) == {"sentiment", "topic"}


def test_the_wheel_runs_in_an_environment_without_torch(
    shared_bundle: Path, tmp_path: Path
) -> None:
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # of an earlier build
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, str(wheel)], check=True)
    # Another folder: in the repository's root, Python would find the sources first.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python.parent / "mtl-edge"), "predict", str(shared_bundle), "a text", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert set(json.loads(done.stdout)) == {"text", "sentiment", "topic"}
    listing = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "freeze"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.lower()
    for package in ("torch", "transformers", "onnx=", "openvino", "pandas", "scikit-learn"):
        assert f"\n{package}" not in f"\n{listing}"
    probe = "import mtl_edge.training, mtl_edge.export, mtl_edge.benchmarks, sys; import mtl_edge"
    subprocess.run([str(python), "-c", probe], cwd=tmp_path, env=environment, check=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    assert not {"training", "export", "benchmarks"} & {p.name for p in site.iterdir()}
    measuring = {p.name for p in (site / "mtl_edge" / "benchmarks").iterdir() if p.is_dir()}
    assert {"bench", "core", "roofline"} <= measuring
    assert not {"experiments", "peers", "micro", "results"} & measuring, "they stay in the clone"
    assert (site / "mtl_edge" / "py.typed").is_file()
    assert (site / "mtl_edge" / "training" / "demo" / "dev.csv").is_file()


OPTIMUM = """
import json, sys
from optimum.onnxruntime import ORTModelForCustomTasks
from transformers import AutoTokenizer

folder, *texts = sys.argv[1:]
model = ORTModelForCustomTasks.from_pretrained(folder, file_name="model.int8.onnx")
inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
outputs = model(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
print(json.dumps({name: logits.tolist() for name, logits in outputs.items()}))
"""


def test_optimum_runs_the_graph_in_an_environment_of_its_own(
    shared_bundle: Path, tmp_path: Path
) -> None:
    """optimum-onnx needs an older transformers; torch and the rest are this environment's."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    old = ["optimum==2.1.0", "optimum-onnx==0.1.0", "transformers==4.57.6"]
    old += ["tokenizers==0.22.2", "huggingface-hub==0.36.2"]
    pip = [str(python), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--no-deps", *old], check=True)
    subprocess.run([*pip, "requests"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "parent.pth").write_text(str(Path(np.__file__).parent.parent) + "\n")
    texts = ["a quiet triumph", "the parcel was late"]
    done = subprocess.run(
        [str(python), "-c", OPTIMUM, str(shared_bundle), *texts],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    outputs = json.loads(done.stdout.splitlines()[-1])
    with EdgeClassifier.load(shared_bundle, target="onnx-int8") as classifier:
        expected = classifier.logits(texts)
    assert set(outputs) == set(expected)
    for task, logits in expected.items():
        np.testing.assert_allclose(outputs[task], logits, atol=1e-4)
