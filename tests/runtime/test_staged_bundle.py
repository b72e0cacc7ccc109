"""A bundle with stages in the runtime: the same calls, the same answers, fewer layers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_edge import EdgeClassifier, Limits
from mtl_edge.bundle import MANIFEST, Exit, open_bundle, read_manifest, write_manifest
from mtl_edge.choosing import machine
from mtl_edge.cli import main
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import BundleError, ClosedError, EngineError, LimitError, OptionError
from tests.runtime.staged import compose

pytestmark = pytest.mark.slow  # three bundles are exported first

TARGETS = ["onnx-int8", "openvino-int8"]
TEXTS = [f"number {i} " + ("good " if i % 2 else "news of it ") * (i % 23) for i in range(150)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, rows: Path) -> list[Path]:
    """Bundles of depth 0, 1 and 2."""
    folder = tmp_path_factory.mktemp("parts")
    train = ["train", "--backbone", str(tiny_backbone), "--epochs", "3", "--all-depths"]
    tasks = ["--task", f"sentiment={rows}", "--task", f"topic={rows}"]
    assert main([*train, *tasks, "--out", str(folder / "checkpoint")]) == 0
    made = [folder / f"depth{depth}" for depth in range(3)]
    for depth, out in enumerate(made):
        export = ["export", str(folder / "checkpoint"), "--out", str(out), "--depth", str(depth)]
        assert main([*export, "--targets", ",".join(TARGETS), "--max-accuracy-drop", "100"]) == 0
    return made


@pytest.fixture(scope="module")
def medians(parts: list[Path]) -> dict[str, float]:
    """By task, the certainty that half of the texts reach in the cheap stage."""
    with EdgeClassifier.load(parts[0], target="onnx-int8") as classifier:
        found = classifier.predict_proba(TEXTS)
    return {task: float(np.median(values.max(1))) for task, values in found.items()}


@pytest.fixture(scope="module")
def two(parts: list[Path], medians: dict[str, float], tmp_path_factory: Any) -> Path:
    """Depth 0, then depth 2."""
    out = tmp_path_factory.mktemp("staged") / "two"
    return compose(out, [parts[0], parts[2]], [medians])


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def classifier(two: Path, target: str) -> Iterator[EdgeClassifier]:
    with EdgeClassifier.load(two, target=target) as loaded:
        yield loaded


def with_exits(bundle: Path, change: Callable[[Exit], Exit]) -> None:
    manifest = read_manifest(bundle)
    exits = tuple(change(stage) for stage in manifest.exits)
    write_manifest(bundle, dataclasses.replace(manifest, exits=exits))


def thresholds(bundle: Path, value: float) -> None:
    with_exits(
        bundle, lambda s: dataclasses.replace(s, thresholds=dict.fromkeys(s.thresholds, value))
    )


def test_each_stage_answers_as_a_bundle_of_its_depth_does_to_the_bit(
    classifier: EdgeClassifier, parts: list[Path], target: str
) -> None:
    load = partial(EdgeClassifier.load, target=target)
    with load(parts[0]) as cheap, load(parts[2]) as full:
        assert classifier.info.depths == (0, 2)
        assert classifier.info.depth == 2
        seen = set()
        for text in TEXTS:
            prediction = classifier.predict(text)
            alone = (cheap if prediction.depth == 0 else full).predict(text)
            assert prediction == alone
            seen.add(prediction.depth)
        assert seen == {0, 2}


def test_a_text_takes_the_same_stage_in_any_call(classifier: EdgeClassifier) -> None:
    alone = [classifier.predict(text) for text in TEXTS]
    together = classifier.predict(TEXTS)
    streamed = list(classifier.predict_iter(iter(TEXTS), window=40))
    for others in (together, streamed, list(classifier.predict_iter(TEXTS, window=1))):
        # One that is at the threshold may fall on either side: its logits differ by rounding.
        assert sum(a.depth != b.depth for a, b in zip(alone, others, strict=True)) <= 1
        same = [(a, b) for a, b in zip(alone, others, strict=True) if a.depth == b.depth]
        for one, other in same:
            for task in one:
                assert other[task].probability == pytest.approx(one[task].probability, abs=1e-4)
    probabilities, logits = classifier.predict_proba(TEXTS), classifier.logits(TEXTS)
    for row, prediction in enumerate(together):
        for task, answer in prediction.items():
            expected = list(answer.probabilities.values())
            assert probabilities[task][row].tolist() == pytest.approx(expected, abs=1e-6)
            assert logits[task][row].argmax() == probabilities[task][row].argmax()


def test_thresholds_of_0_and_2_give_the_stages_by_themselves(
    parts: list[Path], tmp_path: Path, target: str
) -> None:
    load = partial(EdgeClassifier.load, target=target, fixed_tokens=0)
    bundle = compose(tmp_path / "all", [parts[0], parts[2]], [0.0])
    for threshold, alone in ((0.0, parts[0]), (2.0, parts[2])):
        thresholds(bundle, threshold)
        with load(bundle) as staged, load(alone) as single:
            expected, found = single.logits(TEXTS), staged.logits(TEXTS)
            depth = single.info.depth
            assert {p.depth for p in staged.predict(TEXTS)} == {depth}
            for task, values in expected.items():
                # With other batch-mates, rounding may differ in ONNX Runtime.
                np.testing.assert_allclose(found[task], values, atol=1e-4)
            assert staged.predict(TEXTS[3]) == single.predict(TEXTS[3])


def test_three_stages_answer_in_turn(parts: list[Path], tmp_path: Path, target: str) -> None:
    bundle = compose(tmp_path / "three", parts, [2.0, 2.0])
    with EdgeClassifier.load(bundle, target=target, fixed_tokens=0) as classifier:
        first = classifier.predict_proba(TEXTS)
        assert classifier.info.depths == (0, 1, 2)
        assert classifier.predict(TEXTS[0]).depth == 2
    thresholds(bundle, 0.0)
    with EdgeClassifier.load(bundle, target=target, fixed_tokens=0) as classifier:
        assert classifier.predict(TEXTS[0]).depth == 0
    with_exits(
        bundle,
        lambda s: dataclasses.replace(s, thresholds=dict.fromkeys(s.thresholds, 2.0 - 2 * s.depth)),
    )
    with EdgeClassifier.load(bundle, target=target, fixed_tokens=0) as classifier:
        assert {p.depth for p in classifier.predict(TEXTS)} == {1}
        assert not np.array_equal(classifier.predict_proba(TEXTS)["topic"], first["topic"])


def test_max_depth_leaves_deeper_stages_closed_and_the_deepest_left_answers_all(
    parts: list[Path], tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compose(tmp_path / "three", parts, [2.0, 2.0])
    opened: list[Path] = []
    from mtl_edge import engines

    start = engines.start

    def seen(name: str, files: Any, setup: Any) -> Any:
        opened.extend(files)
        return start(name, files, setup)

    monkeypatch.setattr(engines, "start", seen)
    for depth, kept in ((0, (0,)), (1, (0, 1)), (2, (0, 1, 2)), (99, (0, 1, 2))):
        opened.clear()
        with EdgeClassifier.load(
            bundle, target=target, max_depth=depth, fixed_tokens=0
        ) as classifier:
            assert classifier.info.depths == kept
            assert classifier.info.depth == kept[-1]
            assert classifier.manifest == read_manifest(bundle)
            assert {p.depth for p in classifier.predict(TEXTS)} == {kept[-1]}
            with EdgeClassifier.load(parts[kept[-1]], target=target, fixed_tokens=0) as alone:
                assert classifier.predict(TEXTS[7]) == alone.predict(TEXTS[7])
        graphs = {file.name for file in opened if "exit" in file.name}
        assert any("exit1" in name for name in graphs) == (depth >= 1)
    for wrong in (-1, "1", 0.5, True):
        with pytest.raises(OptionError, match="has depth 0, 1, 2; give one of these"):
            EdgeClassifier.load(bundle, target=target, max_depth=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="max_depth is 1, and the bundle has depth 2"):
        EdgeClassifier.load(parts[2], max_depth=1)


def test_auto_measures_the_stage_that_will_answer(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path))
    for depth in (None, 0):
        with EdgeClassifier.load(two, max_depth=depth) as classifier:
            assert classifier.predict("fine").depth in (0, depth or 2)
    # What was measured of the one says nothing of the other.
    folder = machine.cache_folder()
    assert folder is not None
    assert len(list((folder / "engines").iterdir())) == 2


def test_only_asked_or_named_tasks_send_a_text_on(two: Path, target: str) -> None:
    with EdgeClassifier.load(two, target=target, max_depth=0) as cheap:
        certain = cheap.predict_proba(TEXTS)
    (stage,) = read_manifest(two).exits
    sure = {task: certain[task].max(1) >= stage.thresholds[task] for task in certain}
    load = partial(EdgeClassifier.load, two, target=target, fixed_tokens=0)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, sure["sentiment"] & sure["topic"]),
        ({"tasks": ["topic"]}, sure["topic"]),
        ({"depth_for": ["sentiment"]}, sure["sentiment"]),
        ({"depth_for": "topic"}, sure["topic"]),
    ]
    for options, leaves in cases:
        with load(**options) as classifier:
            stays = np.array([p.depth == 0 for p in classifier.predict(TEXTS)])
            assert (stays != leaves).sum() <= 1  # one at the threshold itself
    assert 0 < (sure["sentiment"] & sure["topic"]).sum() < len(TEXTS)
    with pytest.raises(OptionError, match=r"asked for has no task 'topic'; it has sentiment"):
        load(tasks=["sentiment"], depth_for=["topic"])
    with pytest.raises(OptionError, match="depth_for is empty"):
        load(depth_for=[])


def test_a_budget_keeps_cheap_answers_where_there_is_no_time(
    two: Path, parts: list[Path], target: str
) -> None:
    with EdgeClassifier.load(two, target=target) as classifier:
        free = classifier.predict(TEXTS)
        unsure = [text for text, p in zip(TEXTS, free, strict=True) if p.depth == 2]
        assert {p.depth for p in classifier.predict(TEXTS, budget_ms=0)} == {0}
        assert classifier.predict(unsure[0], budget_ms=0).depth == 0
        assert classifier.predict(unsure[0], budget_ms=60_000).depth == 2
        plenty = [p.depth for p in classifier.predict(TEXTS, budget_ms=60_000)]
        assert sum(a != b.depth for a, b in zip(plenty, free, strict=True)) <= 1
        proba = classifier.predict_proba(TEXTS, budget_ms=0)
        with EdgeClassifier.load(parts[0], target=target) as cheap:
            np.testing.assert_allclose(
                proba["topic"], cheap.predict_proba(TEXTS)["topic"], atol=1e-5
            )
        for wrong in (-1, float("nan"), float("inf"), "5", True):
            with pytest.raises(OptionError, match=r"budget_ms is .*, expected milliseconds"):
                classifier.predict("text", budget_ms=wrong)  # type: ignore[arg-type]
    with EdgeClassifier.load(parts[2], target=target) as whole:  # nothing to choose from
        assert whole.predict("text", budget_ms=0).depth == 2


def test_a_bundle_without_stages_says_its_depth(parts: list[Path]) -> None:
    with EdgeClassifier.load(parts[2], target="onnx-int8") as classifier:
        assert classifier.info.depths == (2,)
        assert [p.depth for p in classifier.predict(TEXTS[:3])] == [2, 2, 2]


def test_a_second_stage_that_fails_is_an_error_of_its_own_kind(two: Path, target: str) -> None:
    class Broken:
        multiple, tokens_per_batch, fixed_shapes = 1, 64, ()

        def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
            return {"sentiment": np.full((len(input_ids), 2), np.nan, np.float32),
                    "topic": np.zeros((len(input_ids), 4), np.float32)}  # fmt: skip

        def close(self) -> None: ...

    with EdgeClassifier.load(two, target=target) as classifier:
        depths = [p.depth for p in classifier.predict(TEXTS)]
        loaded = classifier._running()
        first, last = loaded.stages
        broken = (first, dataclasses.replace(last, engine=Broken()))
        classifier._session = dataclasses.replace(loaded, stages=broken)
        with pytest.raises(EngineError, match="logits that are not finite"):
            classifier.predict(TEXTS)
        with pytest.raises(EngineError, match="logits that are not finite"):
            classifier.predict(TEXTS[depths.index(2)])
        assert classifier.predict(TEXTS[depths.index(0)]).depth == 0


def test_an_exit_that_does_not_open_is_told_at_load(
    parts: list[Path], tmp_path: Path, target: str
) -> None:
    bundle = compose(tmp_path / "damaged", [parts[0], parts[2]], [0.5])
    (graph,) = (g for g in read_manifest(bundle).graphs if g.target == target)
    file = bundle / graph.exits[0].file
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="bytes, and the manifest says"):
        EdgeClassifier.load(bundle, target=target)
    write_manifest(bundle, read_manifest(bundle))  # its sha256 is right now
    with pytest.raises((BundleError, EngineError), match=graph.exits[0].file):
        EdgeClassifier.load(bundle, target=target)


def test_limits_hold_in_every_stage(
    two: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(tokens=20, batch_tokens=64, texts=200)
    with EdgeClassifier.load(two, target=target, limits=limits, fixed_tokens=0) as classifier:
        sizes: list[tuple[int, ...]] = []
        run = type(classifier._running().engine).run

        def seen(self: Any, ids: Ids, mask: Ids) -> Any:
            sizes.append(ids.shape)
            return run(self, ids, mask)

        monkeypatch.setattr(type(classifier._running().engine), "run", seen)
        assert {p.depth for p in classifier.predict(TEXTS)} == {0, 2}
        assert max(tokens for _, tokens in sizes) <= 20
        assert max(rows * tokens for rows, tokens in sizes) <= 64
        with pytest.raises(LimitError):
            classifier.predict(["text"] * 201)


def test_threads_and_event_loops_get_the_same_answers(classifier: EdgeClassifier) -> None:
    expected = [p.depth for p in classifier.predict(TEXTS)]
    seen: list[list[int]] = []

    def work() -> None:
        seen.append([p.depth for p in classifier.predict(TEXTS)])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 6

    async def stream() -> AsyncIterator[str]:
        for text in TEXTS[:20]:
            yield text

    async def ask() -> None:
        alone = [p.depth async for p in classifier.apredict_iter(stream())]
        assert alone == [classifier.predict(text).depth for text in TEXTS[:20]]
        assert [p.depth for p in await classifier.apredict(TEXTS)] == expected
        quick = await classifier.apredict(TEXTS, budget_ms=0)
        assert {p.depth for p in quick} == {0}
        array = await classifier.apredict_proba(TEXTS, budget_ms=0)
        assert array["topic"].shape == (len(TEXTS), 4)

    asyncio.run(ask())


def test_it_reloads_closes_and_warms_as_any_other(two: Path, target: str) -> None:
    classifier = EdgeClassifier.load(two, target=target, warm=False, max_depth=2)
    before = classifier.predict(TEXTS)
    classifier.warmup()
    classifier.reload()
    assert classifier.info.depths == (0, 2)
    assert [p.depth for p in classifier.predict(TEXTS)] == [p.depth for p in before]
    classifier.close()
    with pytest.raises(ClosedError):
        classifier.predict("text")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_reloads_all_stages(two: Path, target: str) -> None:
    with EdgeClassifier.load(two, target=target) as classifier:
        expected = [p.depth for p in classifier.predict(TEXTS[:20])]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                try:
                    classifier.predict("text")
                except ClosedError:
                    classifier.reload()
                    found = [p.depth for p in classifier.predict(TEXTS[:20])]
                    code = 0 if found == expected else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_stage_says_that_it_reads_the_full_graph_s_weights(
    parts: list[Path], tmp_path: Path
) -> None:
    bundle = compose(tmp_path / "shared", [parts[1], parts[2]], [0.5])
    (graph,) = (g for g in read_manifest(bundle).graphs if g.target == "onnx-int8")
    assert "encoder.int8.bin" in graph.exits[0].companions
    open_bundle(bundle)


def altered(manifest: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return manifest | {"exits": [manifest["exits"][0] | fields]}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "as deep as all": (
        lambda m: altered(m, depth=2),
        r"exits have the depths \[2\], expected 0 to",
    ),
    "below none": (lambda m: altered(m, depth=-1), r"expected 0 to 1, rising"),
    "twice": (lambda m: m | {"exits": m["exits"] * 2}, "rising"),
    "one too many": (lambda m: m | {"exits": []}, "has 1 exits, expected 0"),
    "depth no integer": (lambda m: altered(m, depth=0.5), "depth: expected a value of type int"),
    "task missing": (lambda m: altered(m, thresholds={"topic": 1}), "thresholds are of other"),
    "task unknown": (
        lambda m: altered(m, temperatures=m["exits"][0]["temperatures"] | {"x": 1}),
        "temperatures are of other tasks: see 'x'",
    ),
    "no temperature": (
        lambda m: altered(m, temperatures={"sentiment": 0, "topic": 1}),
        "task 'sentiment' has the temperature 0",
    ),
    "threshold below 0": (
        lambda m: altered(m, thresholds={"sentiment": 0.5, "topic": -1}),
        "'topic' has the threshold -1",
    ),
    "threshold of text": (
        lambda m: altered(m, thresholds={"sentiment": 0.5, "topic": "0.5"}),
        "thresholds: expected a value of type float",
    ),
    "sure of another task": (lambda m: altered(m, sure={"x": [1, 1]}), "sure is of the unknown"),
    "sure of one label": (
        lambda m: altered(m, sure={"topic": [1]}),
        "a threshold of 0 or more for",
    ),
    "unknown field": (lambda m: altered(m, speed=2), "unknown field 'speed'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_in_an_exit_is_refused(case: str, two: Path, tmp_path: Path) -> None:
    change, message = WRONG[case]
    manifest = json.loads((two / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(change(manifest)))
    with pytest.raises(BundleError, match=message):
        read_manifest(tmp_path)


GRAPHS: dict[str, tuple[dict[str, Any], str]] = {
    "leads out": ({"file": "../model.onnx"}, "lists no checksum"),
    "not listed": ({"companions": ["other.bin"]}, "lists no checksum"),
    "another engine's": ({"file": "openvino.int8.xml", "heads": []}, "does not end in .onnx"),
    "the full graph's": ({"file": "model.int8.onnx", "heads": []}, "'model.int8.onnx' comes twice"),
    "heads of another": ({"heads": ["heads.int8.bin"]}, "is no file of graph 'onnx-int8'"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_file_that_is_no_exit_s_own_is_refused(case: str, two: Path, tmp_path: Path) -> None:
    fields, message = GRAPHS[case]
    manifest = json.loads((two / MANIFEST).read_text())
    manifest["graphs"][0]["exits"][0] |= fields
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        read_manifest(tmp_path)


def test_the_commands_show_stages_and_keep_to_max_depth(
    two: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    assert main(["info", str(two)]) == 0
    shown = capsys.readouterr().out
    assert "depth 0  sentiment" in shown
    assert "depth 2  all that is left" in shown
    assert "promise at depth 0: drop 0.003; confidence 0.95" in shown
    predict = ["predict", str(two), "--json", "--target", "onnx-int8"]
    depths = []
    for options in ([], ["--max-depth", "0"], ["--depth-for", "topic"]):
        assert main([*predict, *options, *TEXTS[:40]]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        depths.append([line["topic"]["depth"] for line in lines])
    assert set(depths[0]) == {0, 2}
    assert set(depths[1]) == {0}
    assert depths[2] != depths[0]
    assert "has depth 0, 2" in fails("predict", two, "--max-depth", "-1", "text")


def test_what_stages_cost_is_measured(
    two: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mtl_edge.benchmarks.experiments import stage_overhead

    for name in ("PASSES", "REPEATS"):
        monkeypatch.setattr(stage_overhead, name, 1)
    monkeypatch.setattr(stage_overhead, "MOST_EARLY", 10)
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    stage_overhead.main([str(two), "--texts", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("o")] == TARGETS
    assert list(two.parent.iterdir()) == [two]
