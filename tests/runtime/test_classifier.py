"""Answers: typed, in order, and the same whatever else is asked in the same call."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mtl_edge import Answer, EdgeClassifier, Prediction
from mtl_edge.bundle import read_manifest, write_manifest
from mtl_edge.errors import EngineError, OptionError, TextError

TARGETS = ["onnx-int8", "openvino-int8", "onnx-fp32"]
ODD = [
    "",
    " ",
    "\0",
    "a\0b",
    "💥👩‍👩‍👧‍👦",
    "\ud800 lone",
    "x" * 100_000,
    "word " * 20_000,
    "\u202eright to left",
    "Ωmega ﬁ ½ 中文 العربية",
    "[CLS] [SEP] [MASK]",
    "\r\n\t",
]


@pytest.fixture(scope="module", params=TARGETS)
def classifier(request: pytest.FixtureRequest, shared_bundle: Path) -> Iterator[EdgeClassifier]:
    with EdgeClassifier.load(shared_bundle, target=request.param) as loaded:
        yield loaded


def test_a_text_gets_a_typed_answer_from_every_task(classifier: EdgeClassifier) -> None:
    prediction = classifier.predict("a quiet triumph")
    assert isinstance(prediction, Prediction)
    assert list(prediction) == ["sentiment", "topic"]
    for task in classifier.tasks:
        answer = prediction[task.name]
        assert isinstance(answer, Answer)
        assert tuple(answer.probabilities) == task.labels
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.probability == answer.probabilities[answer.label]
        assert answer.probability == max(answer.probabilities.values())


def test_a_list_gets_a_list_in_its_order(classifier: EdgeClassifier) -> None:
    texts = ["long " * 90, "short", "of medium length " * 5, ""]
    together = classifier.predict(texts)
    assert [p["topic"].label for p in together] == [
        classifier.predict(text)["topic"].label for text in texts
    ]
    assert classifier.predict([]) == []
    assert classifier.predict_proba([])["topic"].shape == (0, 4)


def test_probabilities_come_as_arrays_of_a_row_a_text(classifier: EdgeClassifier) -> None:
    probabilities = classifier.predict_proba(["one", "two", "three"])
    assert probabilities["sentiment"].shape == (3, 2)
    assert probabilities["topic"].shape == (3, 4)
    assert probabilities["topic"].dtype == np.float32
    np.testing.assert_allclose(probabilities["topic"].sum(1), 1, atol=1e-5)


def test_batch_mates_and_padding_do_not_change_an_answer(classifier: EdgeClassifier) -> None:
    texts = [f"number {i} " + "and more " * (i % 13) for i in range(64)]
    alone = np.concatenate([classifier.logits([text])["topic"] for text in texts])
    shuffled = random.Random(0).sample(texts, len(texts))
    together = classifier.logits([*shuffled, "very long " * 60])["topic"]
    for text, row in zip(shuffled, together, strict=False):
        np.testing.assert_allclose(row, alone[texts.index(text)], atol=1e-3)


@pytest.mark.parametrize("text", ODD, ids=[f"{text[:8]!a}" for text in ODD])
def test_odd_text_gets_an_answer(classifier: EdgeClassifier, text: str) -> None:
    probabilities = classifier.predict_proba([text, "plain"])["topic"]
    assert np.isfinite(probabilities).all()


@pytest.mark.parametrize("item", [None, 3, b"bytes", ["nested"], float("nan")])
def test_what_is_not_text_is_refused_with_its_position(
    classifier: EdgeClassifier, item: object
) -> None:
    with pytest.raises(TextError, match=r"item 1 is .*expected str"):
        classifier.predict(["fine", item])  # type: ignore[list-item]


def test_threads_get_the_same_answers_as_one(classifier: EdgeClassifier) -> None:
    texts = [f"text {i} " * (1 + i % 7) for i in range(40)]
    expected = classifier.predict_proba(texts)["topic"]
    seen: list[bool] = []

    def work() -> None:
        seen.append(np.array_equal(classifier.predict_proba(texts)["topic"], expected))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 8


def test_int8_gives_the_fp32_graph_s_probabilities_closely(shared_bundle: Path) -> None:
    texts = [f"sample {i} of text " * (1 + i % 5) for i in range(50)]
    loaded = {t: EdgeClassifier.load(shared_bundle, target=t) for t in TARGETS}
    fp32 = loaded["onnx-fp32"].predict_proba(texts)["topic"]
    for target in ("onnx-int8", "openvino-int8"):
        difference = np.abs(loaded[target].predict_proba(texts)["topic"] - fp32)
        assert 0 < difference.max() < 0.05


def test_without_measuring_auto_goes_by_the_figures_of_the_export(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_EDGE_MEASURE", "0")
    with EdgeClassifier.load(shared_bundle) as classifier:
        latencies = {g.target: g.latency_ms or 0 for g in classifier.manifest.graphs}
        # A wider graph has to be faster by a tenth.
        assert latencies[classifier.graph.target] <= 1.1 * min(latencies.values())


def test_an_engine_can_be_asked_for(shared_bundle: Path) -> None:
    for engine in ("onnxruntime", "openvino"):
        with EdgeClassifier.load(shared_bundle, engine=engine, threads=1) as classifier:
            assert classifier.graph.engine == engine


def test_what_the_bundle_lacks_is_named(shared_bundle: Path) -> None:
    with pytest.raises(EngineError, match="auto, onnxruntime, openvino"):
        EdgeClassifier.load(shared_bundle, engine="tensorrt")
    with pytest.raises(OptionError, match="it holds onnx-int8"):
        EdgeClassifier.load(shared_bundle, target="onnx-int4")
    with pytest.raises(OptionError, match="no graph for engine openvino and target onnx-int8"):
        EdgeClassifier.load(shared_bundle, engine="openvino", target="onnx-int8")
    for threads in (0, -1, 10**7):
        with pytest.raises(OptionError, match=f"threads is {threads}, expected 1 to"):
            EdgeClassifier.load(shared_bundle, threads=threads)


@pytest.mark.parametrize(("target", "device"), [("onnx-int8", "CUDA"), ("openvino-int8", "NPU")])
def test_a_device_that_is_not_there_is_named_with_those_that_are(
    shared_bundle: Path, target: str, device: str
) -> None:
    with pytest.raises(EngineError, match=f"no device '{device}'.* CPU"):
        EdgeClassifier.load(shared_bundle, target=target, device=device)
    with EdgeClassifier.load(shared_bundle, target=target, device="CPU") as classifier:
        assert classifier.predict("fine")["topic"].probability > 0


def test_a_single_text_s_graph_of_fixed_shape_answers_as_the_open_one(shared_bundle: Path) -> None:
    texts = ["short", "of some length " * 9, "long " * 60]
    load = partial(EdgeClassifier.load, shared_bundle, engine="openvino")
    with load() as fixed, load(fixed_tokens=0) as opened, load(fixed_tokens=20) as one:
        assert fixed.info.fixed_shapes == ((1, 16), (1, 32), (1, 48), (1, 64))
        assert opened.info.fixed_shapes == ()
        assert one.info.fixed_shapes == ((1, 16),)
        for text in texts:
            expected = opened.logits(text)["topic"]
            for classifier in (fixed, one):
                np.testing.assert_allclose(classifier.logits(text)["topic"], expected, atol=1e-5)


def test_a_single_text_of_the_greatest_length_has_a_graph_of_its_own(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(bundle, replace(read_manifest(bundle), max_tokens=40))
    load = partial(EdgeClassifier.load, bundle, engine="openvino")
    texts = ["short", "of some length " * 9, "long " * 60]
    with load(fixed_tokens=0) as opened:
        expected = [opened.logits(text)["topic"] for text in texts]
    with load(fixed_tokens=40) as most, load(fixed_tokens=39) as less, load() as fixed:
        assert most.info.fixed_shapes == fixed.info.fixed_shapes == ((1, 16), (1, 32), (1, 40))
        assert less.info.fixed_shapes == ((1, 16), (1, 32))
        monkeypatch.setattr(fixed._running().engine, "_batches", None)
        found = [fixed.logits(text)["topic"] for text in texts]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)


def test_what_threads_do_while_they_wait_does_not_change_an_answer(shared_bundle: Path) -> None:
    load = partial(EdgeClassifier.load, shared_bundle, target="onnx-int8")
    with load() as call, load(spin="never") as never, load(spin="always") as always:
        expected = call.logits("a quiet triumph")["topic"]
        for classifier in (never, always):
            logits = classifier.logits("a quiet triumph")["topic"]
            np.testing.assert_array_equal(logits, expected)
