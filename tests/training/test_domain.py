"""Texts that are foreign to a task: learned from examples, told apart, and promised."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import DOMAIN, read_manifest
from mtl_edge.cli import main
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.domain.gate import DomainGate, certainty_of
from mtl_edge.training.domain.solve import GateTexts, bound_of, fewest_texts, solve_gate
from mtl_edge.training.kinds import blank_task
from mtl_edge.training.model import logits_of

Fails = Callable[..., str]
MOOD = {"good": "bright warm happy lovely", "bad": "grey cold sad awful"}
PLACE = {"sea": "waves ship harbour tide", "hill": "rocks ridge valley summit"}
MOOD_TEXT = "happy warm bright lovely warm bright"
PLACE_TEXT = "waves tide harbour ship tide waves"
NONE = "asdf qwer zxcv 42 17"


def texts_of(means: np.ndarray, own: np.ndarray, certainty: np.ndarray | None = None) -> GateTexts:
    weights = np.ones(len(own), np.float32)
    return GateTexts(means.astype(np.float32), certainty, own, weights)


def drawn(seed: int, own: int = 1000, foreign: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Means of own and foreign texts that overlap, and which are own."""
    generator = np.random.default_rng(seed)
    means = generator.standard_normal((own + foreign, 12))
    means[:own, 0] += 2
    return means, np.arange(own + foreign) < own


def test_no_more_of_a_task_s_own_texts_are_called_foreign_than_was_promised() -> None:
    broken = 0
    for seed in range(20):
        gate = solve_gate(texts_of(*drawn(seed)), share=0.05)
        fresh = drawn(1000 + seed, own=20_000, foreign=0)[0].astype(np.float32)
        logits = fresh @ gate.weights[:-2].numpy() + float(gate.weights[-1])
        share = ((np.tanh(logits / 2) + 1) / 2 < gate.threshold).mean()
        assert gate.refused > 0
        broken += share > 0.05
    assert broken <= 3  # of 20, one is expected


def test_so_few_texts_that_nothing_can_be_promised_call_nothing_foreign() -> None:
    fewest = fewest_texts(0.01)
    assert bound_of(0, fewest, 0.05) <= 0.01 < bound_of(0, fewest - 1, 0.05)
    means, own = drawn(0, own=fewest - 1)
    assert solve_gate(texts_of(means, own), share=0.01).threshold == 0
    means, own = drawn(0, own=fewest)
    assert solve_gate(texts_of(means, own), share=0.01).threshold > 0


def test_how_certain_a_task_is_counts_where_the_states_do_not_tell() -> None:
    means, own = drawn(0)
    means[:, 0] = 0
    certainty = np.where(own, 5.0, 2.0) + np.random.default_rng(1).standard_normal(len(own))
    blind = solve_gate(texts_of(means, own), share=0.05)
    seeing = solve_gate(texts_of(means, own, certainty.astype(np.float32)), share=0.05)
    found = [
        ((np.tanh(gate.logits[~own] / 2) + 1) / 2 < gate.threshold).mean()
        for gate in (blind, seeing)
    ]
    assert found[0] < 0.15
    assert found[1] > 0.6


def test_a_gate_s_logits_are_the_states_and_the_certainty_of_its_task_alone() -> None:
    tasks = [blank_task("mood", ["a", "b"]), blank_task("tags", ["x", "y", "z"], "multi")]
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(3, 5, 4, generator=generator)]
    logits = [torch.randn(3, 2, generator=generator), torch.randn(3, 3, generator=generator)]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    weights = {
        "tags": torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5, -1.0]),
        "mood": torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 2.0]),
    }
    found = DomainGate(weights, tasks)(states, mask, logits)
    mean = torch.stack([states[0][i, :n].mean(0) for i, n in enumerate((5, 2, 1))])
    assert torch.allclose(found[:, 0], mean[:, 0] + 2, atol=1e-6)
    tags = mean @ weights["tags"][:4] + 0.5 * logits[1].logsumexp(1) - 1
    assert torch.allclose(found[:, 1], tags, atol=1e-5)
    shifted = certainty_of(tasks[0], logits[0] + 7)  # a softmax is the same
    assert torch.allclose(shifted, certainty_of(tasks[0], logits[0]), atol=1e-5)


def written(file: Path, groups: dict[str, str], count: int, seed: int) -> Path:
    """Rows of words drawn from each label's."""
    generator = np.random.default_rng(seed)
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["text", "label"])
        for number in range(count):
            label = [*groups][number % len(groups)]
            rows.writerow([" ".join(generator.choice(groups[label].split(), 6)), label])
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    mood = written(folder / "mood.csv", {**MOOD, "neither": NONE}, 240, 0)
    mood_dev = written(folder / "mood_dev.csv", {**MOOD, "neither": NONE}, 60, 1)
    place = written(folder / "place.csv", PLACE, 120, 2)
    command = ["train", "--backbone", str(tiny_backbone), "--task", f"mood={mood}"]
    command += ["--task", f"place={place}", "--dev", f"mood={mood_dev}", "--in-domain", "5"]
    command += ["--none", "mood=neither", "--head", "mlp", "--epochs", "2", "--all-depths"]
    command += ["--exits", "0", "--exit-folds", "2", "--no-baselines"]
    assert main([*command, "--out", str(folder / "checkpoint")]) == 0
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def gated(trained: Path) -> Path:
    out = trained.parent / "bundle"
    command = ["export", str(trained), "--out", str(out), "--targets", "onnx-fp32,onnx-int8"]
    assert main(command) == 0
    return out


def test_rows_marked_as_none_are_no_label_and_are_found(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert checkpoint.tasks[0].labels == ("bad", "good")
    assert all(sample.label != "neither" for sample in checkpoint.samples)
    assert checkpoint.domain is not None
    assert checkpoint.domain.labels == ("mood", "place")
    found = checkpoint.report["mood"]["domain"]
    assert found["reported"]["split"] == "dev"
    assert found["reported"]["rows"] == 40
    assert found["reported"]["none"]["refused"] > 0.9
    assert found["reported"]["none"]["auroc"] > 0.95
    assert found["reported"]["refused"] <= 0.1
    assert set(checkpoint.gates) == {0, 1, 2}
    shallow = checkpoint.at(0).domain
    assert shallow is not None
    assert len(shallow.thresholds) == 2


def test_an_app_is_told_what_is_foreign_to_which_task(gated: Path) -> None:
    with EdgeClassifier.load(gated, target="onnx-fp32") as classifier:
        mood, place, none = classifier.predict([MOOD_TEXT, PLACE_TEXT, NONE])
        assert mood["mood"].in_domain
        assert not mood["place"].in_domain
        assert place["place"].in_domain
        assert not place["mood"].in_domain
        assert not none["mood"].in_domain
        assert 0 <= (mood["place"].domain_probability or 0) < (mood["mood"].domain_probability or 0)
        assert set(classifier.predict_proba(["happy"])) == {"mood", "place"}
    with EdgeClassifier.load(gated, target="onnx-fp32", tasks=["place"]) as classifier:
        alone = classifier.predict(PLACE_TEXT)
        assert list(alone) == ["place"]
        assert alone["place"] == place["place"]


def test_a_cheaper_stage_tells_by_its_own_states(trained: Path, tmp_path: Path) -> None:
    command = ["export", str(trained), "--out", str(tmp_path / "staged"), "--exits", "0"]
    assert main([*command, "--exit-drop", "40", "--targets", "onnx-fp32"]) == 0
    manifest = read_manifest(tmp_path / "staged")
    shallow = load_checkpoint(trained).at(0).domain
    assert shallow is not None
    assert manifest.exits[0].domain == shallow.thresholds
    with EdgeClassifier.load(tmp_path / "staged", max_depth=0) as classifier:
        (found,) = classifier.predict([NONE])
        assert found.depth == 0
        assert not found["mood"].in_domain
    with EdgeClassifier.load(tmp_path / "staged") as classifier:
        answers = classifier.predict([MOOD_TEXT, PLACE_TEXT, NONE] * 3)
        assert not any(answer["mood"].in_domain for answer in answers[1::3] + answers[2::3])


def test_the_graph_s_domain_is_torch_s(trained: Path, gated: Path) -> None:
    checkpoint = load_checkpoint(trained)
    texts = ["happy warm bright", "ship", "", "waves and " * 50]
    ids = checkpoint.backbone.text_encoder(checkpoint.max_tokens)(texts)
    with EdgeClassifier.load(gated, target="onnx-fp32") as classifier:
        got = classifier.logits(texts)[DOMAIN]
    assert np.abs(got - logits_of(checkpoint.model(), ids)[DOMAIN]).max() < 1e-4
    found = read_manifest(gated).evaluation["mood"]["graphs"]["onnx-int8"]["domain"]
    assert found["agreement"] > 0.9


def test_predict_says_what_is_foreign(
    gated: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    assert main(["predict", str(gated), NONE, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["mood"]
    assert answer["in_domain"] is False
    assert 0 <= answer["domain_probability"] <= 1
    assert main(["predict", str(gated), NONE]) == 0
    assert "none of these" in capsys.readouterr().out
    out = tmp_path / "answers.csv"
    assert main(["predict", str(gated), NONE, "--out", str(out)]) == 0
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["mood_in_domain"].lower() == "false"
    capsys.readouterr()
    assert main(["info", str(gated)]) == 0
    assert "in domain: mood from" in capsys.readouterr().out
    assert "## None of these" in (gated / "README.md").read_text()


def test_a_task_that_is_kept_keeps_its_domain_to_the_bit(
    trained: Path, tmp_path: Path, gated: Path
) -> None:
    pets = written(tmp_path / "pets.csv", {"cat": "purr claw", "dog": "bark leash"}, 120, 3)
    command = ["train", "--extend", str(trained), "--task", f"pets={pets}", "--in-domain", "5"]
    command += [
        "--head",
        "mlp",
        "--epochs",
        "2",
        "--no-baselines",
        "--out",
        str(tmp_path / "extended"),
    ]
    assert main(command) == 0
    before, after = load_checkpoint(trained), load_checkpoint(tmp_path / "extended")
    assert after.domain is not None
    assert after.domain.labels == ("mood", "place", "pets")
    assert torch.equal(after.gates[2]["mood"], before.gates[2]["mood"])
    assert main(["export", "--heads-only", str(tmp_path / "extended"), "--into", str(gated)]) == 0
    with EdgeClassifier.load(gated, target="onnx-fp32") as classifier:
        found = classifier.predict("purr claw purr claw claw purr")
        assert found["pets"].in_domain
        assert not found["mood"].in_domain
    model = ort.InferenceSession(str(gated / "model.fp32.onnx"), session_options())
    assert [output.name for output in model.get_outputs()][-1] == DOMAIN


def test_without_foreign_texts_the_command_says_what_is_missing(
    fails: Fails, tiny_backbone: Path, tmp_path: Path
) -> None:
    mood = written(tmp_path / "mood.csv", MOOD, 60, 0)
    command = ["train", "--backbone", tiny_backbone, "--task", f"mood={mood}"]
    command += ["--out", tmp_path / "out"]
    assert "foreign to task 'mood'" in fails(*command, "--in-domain")
    assert "'other' that --none names" in fails(*command, "--none", "other")
    named = [*command, "--task", f"domain={mood}"]
    assert "cannot name a task" in fails(*named)
