"""A budget says what it means, chooses by it, and leaves everything as it was if nothing fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import Manifest, open_bundle
from mtl_edge.cli import main
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.budget_search import search
from mtl_edge.export.budget_search.budget import parse
from mtl_edge.export.budget_search.candidates import plans
from mtl_edge.export.budget_search.frontier import (
    FRONTIER,
    Candidate,
    Plan,
    choose,
    standard_error,
    table,
)
from mtl_edge.export.early_exit.exits import Promise
from mtl_edge.training.checkpoint import load_checkpoint

Fails = Callable[..., str]
ROWS = {"sentiment": 400, "topic": 100}


@pytest.mark.parametrize(
    ("text", "name", "sign", "value"),
    [
        ("p95<1ms", "p95", "<", 1.0),
        ("p50 <= 250us", "p50", "<=", 0.25),
        ("p99<250 µs", "p99", "<", 0.25),  # the micro sign
        ("p99<250 μs", "p99", "<", 0.25),  # the Greek letter
        (" P95 < .5 S ", "p95", "<", 500.0),
        ("size<25MB", "size", "<", 25e6),
        ("size<900kb", "size", "<", 900e3),
        ("drop<=0", "drop", "<=", 0.0),
        ("drop<0.5", "drop", "<", 0.5),
        ("texts/s>2000", "texts/s", ">", 2000.0),
        ("texts/s >= 2000", "texts/s", ">=", 2000.0),
    ],
)
def test_a_limit_is_read_in_any_unit(text: str, name: str, sign: str, value: float) -> None:
    (limit,) = parse(text)
    assert (limit.name, limit.sign) == (name, sign)
    assert limit.value == pytest.approx(value)
    assert str(limit) == text.strip()


def test_a_budget_has_many_limits() -> None:
    limits = parse("p95<1ms, size<25MB,drop<0.5 ,texts/s>2000")
    assert [limit.name for limit in limits] == ["p95", "size", "drop", "texts/s"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no limit"),
        ("p95<1ms,", "is no limit"),
        ("p95", "is no limit"),
        ("p95=1ms", "is no limit"),
        ("p95<fast", "is no limit"),
        ("p95<-1ms", "is no limit"),
        ("p95<1ms 2ms", "is no limit"),
        ("p90<1ms", "unknown quantity 'p90'; there are p50, p95, p99, texts/s, size, drop"),
        ("p95>1ms", "takes < or <=, not >"),
        ("texts/s<=5", "takes > or >=, not <="),
        ("p95<1", "takes one of the units us, µs, ms, s, got none"),
        ("size<25GB", "takes one of the units kB, MB, got 'GB'"),
        ("drop<0.5%", "takes a number without a unit, got '%'"),
        ("texts/s>2,000", "'000' is no limit"),
        ("size<0MB", "the limit of size is 0"),
        ("p95<1ms, P95<2ms", "limits p95 twice"),
    ],
)
def test_a_malformed_budget_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "--budget" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "figure", "kept"),
    [
        ("p95<1ms", 1.0, False),
        ("p95<=1ms", 1.0, True),
        ("texts/s>10", 10.0, False),
        ("texts/s>=10", 10.0, True),
        ("drop<0.5", -1.0, True),
    ],
)
def test_a_limit_itself_is_within_only_where_the_sign_says_so(
    text: str, figure: float, kept: bool
) -> None:
    (limit,) = parse(text)
    assert limit.kept(figure) is kept
    assert (limit.excess(figure) == 0) is kept or figure == limit.value


def candidate(
    depth: int, accuracy: float, target: str = "onnx-int8", **figures: float
) -> Candidate:
    found = {"p50": 1.0 + depth, "p95": 2.0 + depth, "p99": 3.0 + depth, "texts/s": 1000.0 - depth}
    found |= {"size": 1e6 * (1 + depth), "drop": 100 * (0.9 - accuracy)}
    named = {name.replace("rate", "texts/s"): value for name, value in figures.items()}
    both = {"sentiment": accuracy, "topic": accuracy}
    return Candidate(Plan(depth, (), target), both, found | named)


SHALLOW, MIDDLE, DEEP = candidate(0, 0.8), candidate(3, 0.85), candidate(6, 0.9)
ALL = [SHALLOW, MIDDLE, DEEP]


def test_the_most_accurate_within_the_budget_is_chosen() -> None:
    assert choose(ALL, parse("p95<100ms"), ROWS) is DEEP
    assert choose(ALL, parse("p95<6ms"), ROWS) is MIDDLE
    assert choose(ALL, parse("size<1.5MB"), ROWS) is SHALLOW
    assert choose(ALL, parse("p95<6ms, drop<7"), ROWS) is MIDDLE


def test_among_equals_the_fastest_is_chosen_by_the_speed_that_the_budget_names() -> None:
    best = candidate(6, 0.9)
    margin = standard_error(best, ROWS) / 2
    lean = candidate(5, 0.9 - 0.9 * margin)
    bulky = candidate(4, 0.9 - 0.9 * margin, "openvino-int8", p50=20.0, p95=30.0, rate=5000.0)
    worse = candidate(1, 0.9 - 1.1 * margin)
    some = [worse, lean, bulky, best]
    assert choose(some, parse("size<100MB"), ROWS) is lean
    assert choose(some, parse("p95<100ms, texts/s>1"), ROWS) is lean
    assert choose(some, parse("texts/s>1, p95<100ms"), ROWS) is bulky


def test_the_standard_error_is_that_of_a_mean_over_tasks() -> None:
    expected = (0.9 * 0.1 / 400 + 0.9 * 0.1 / 100) ** 0.5 / 2
    assert standard_error(DEEP, ROWS) == pytest.approx(expected)


def test_none_within_the_budget_shows_the_nearest_and_what_they_miss() -> None:
    with pytest.raises(ExportError) as caught:
        choose(ALL, parse("p95<1.9ms, drop<6"), ROWS)
    message = str(caught.value)
    assert "none of 3 candidates" in message
    assert (
        "onnx-int8, depth 0 (p95 is 2.00 ms, not p95<1.9ms, drop is 10.00, not drop<6)" in message
    )
    assert message.index("depth 0") < message.index("depth 3") < message.index("depth 6")


def test_the_table_marks_the_chosen_one_and_says_what_others_miss() -> None:
    header, lines = table(ALL, parse("p95<6ms, size<3MB"), ROWS, SHALLOW)
    assert header[:4] == ["layers", "graph", "sentiment % of 400", "topic % of 100"]
    assert [line[-1] for line in lines] == ["* chosen", "size", "p95, size"]


def trained(folder: Path, backbone: Path, rows: Path, *options: str) -> Path:
    command = ["train", "--backbone", str(backbone), "--out", str(folder), "--epochs", "3"]
    command += ["--task", f"sentiment={rows}", "--task", f"topic={rows}", *options]
    assert main(command) == 0
    return folder


GENEROUS = "p95<10s, size<1000MB, drop<100, texts/s>0.001"


@pytest.mark.slow
def test_the_search_writes_the_chosen_bundle_with_its_frontier(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    command = ["export", str(staged), "--out", str(out), "--budget", GENEROUS]
    assert main([*command, "--targets", "onnx-int8", "--exit-drop", "30"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("* chosen") == 1
    bundle = open_bundle(out)
    (graph,) = bundle.manifest.graphs
    found = json.loads((out / FRONTIER).read_text(encoding="utf-8"))
    tried = [(one["depth"], tuple(one["stages"])) for one in found["candidates"]]
    assert {(0, ()), (1, ()), (2, ()), (2, (0,)), (2, (1,))} <= set(tried)
    (chosen,) = (one for one in found["candidates"] if one["chosen"])
    stages = [stage.depth for stage in bundle.manifest.exits]
    assert (bundle.manifest.depth, stages) == (chosen["depth"], chosen["stages"])
    assert graph.target == chosen["target"] == "onnx-int8"
    assert all(one["missed"] == [] for one in found["candidates"])
    best = max(sum(one["accuracy"].values()) for one in found["candidates"])
    assert sum(chosen["accuracy"].values()) <= best
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f'--budget "{GENEROUS}"' in card
    assert card.count("\\* chosen") + card.count("* chosen") == 1
    # What the figures say of the chosen one is what its files say.
    own = [s for s in load_checkpoint(staged).samples if s.split == "selection"]
    with EdgeClassifier.load(out) as classifier:
        for task in ("sentiment", "topic"):
            rows = [s for s in own if s.task == task]
            right = [classifier.predict(s.text)[task].label == s.label for s in rows]
            assert sum(right) / len(right) == pytest.approx(chosen["accuracy"][task])
    assert abs(chosen["figures"]["size"] - bundle.size_of(graph)) < 500
    assert chosen["figures"]["p50"] <= chosen["figures"]["p95"] <= chosen["figures"]["p99"]


@pytest.mark.slow
def test_an_impossible_budget_leaves_what_was_there(
    checkpoint: Path, bundle: Path, fails: Fails
) -> None:
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}
    command = ("export", checkpoint, "--out", bundle, "--overwrite", "--targets", "onnx-int8")
    message = fails(*command, "--budget", "p95<0.001us, size<1kB")
    assert "none of 1 candidates is within the budget" in message
    assert "onnx-int8, depth 2 (p95 is" in message
    assert "size is" in message
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name], "nothing is left behind"


@pytest.mark.slow
def test_heads_that_saw_the_rows_are_judged_by_what_they_got_right_before(
    tmp_path: Path, tiny_backbone: Path, rows: Path
) -> None:
    dev = [option for task in ("sentiment", "topic") for option in ("--dev", f"{task}={rows}")]
    folder = trained(tmp_path / "refitted", tiny_backbone, rows, "--refit", *dev)
    out = tmp_path / "bundle"
    command = ["export", str(folder), "--out", str(out), "--targets", "onnx-fp32"]
    assert main([*command, "--budget", "drop<=0"]) == 0
    (chosen,) = json.loads((out / FRONTIER).read_text(encoding="utf-8"))["candidates"]
    evaluation = open_bundle(out).manifest.evaluation
    for task, found in load_checkpoint(folder).report.items():
        expected = found["depths"]["2"]["selection_score"]
        assert chosen["accuracy"][task] == pytest.approx(expected)
        compared = evaluation[task]["graphs"]["onnx-fp32"]["compared_on"]
        assert compared == found["reported"]["rows"], "rows that taught prove nothing"


def test_only_tasks_whose_heads_saw_the_rows_are_judged_by_the_record(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    report = {
        task: {
            **found,
            "refitted": task == "topic",
            "depths": {"2": {**found["depths"]["2"], "selection_score": 0.0625}},
        }
        for task, found in loaded.report.items()
    }
    rows = search._rows(loaded)
    plan = Plan(2, (), "onnx-int8")
    measured: dict[Plan, dict[str, float]] = {}
    seen = search._UnseenAccuracy(replace(loaded, report=report), rows, measured)
    expected = loaded.report["sentiment"]["depths"]["2"]["selection_score"]
    assert seen.fp32 == {"sentiment": pytest.approx(expected), "topic": 0.0625}
    measured[plan] = {"sentiment": 0.5, "topic": seen._torch(2)["topic"]}
    own = seen.of(plan, cast(Manifest, None))
    assert own == {"sentiment": 0.5, "topic": pytest.approx(0.0625)}


@pytest.mark.slow
def test_new_heads_leave_the_old_frontier_behind(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = ["export", str(checkpoint), "--out", str(out), "--targets", "onnx-int8"]
    assert main([*command, "--budget", GENEROUS]) == 0
    assert main(["export", "--heads-only", str(checkpoint), "--into", str(out)]) == 0
    assert not (out / FRONTIER).exists()
    assert FRONTIER not in [entry.path for entry in open_bundle(out).manifest.files]
    assert "Chosen to a budget" not in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_stages_come_from_the_answers_that_the_checkpoint_holds(
    staged: Path, checkpoint: Path
) -> None:
    plain = load_checkpoint(checkpoint)
    assert plans(plain, ["onnx-int8"], Promise(None)) == ([Plan(2, (), "onnx-int8")], [])
    found, left_out = plans(load_checkpoint(staged), ["onnx-int8"], Promise(None))
    assert [(plan.depth, plan.stages) for plan in found] == [
        (0, ()), (1, ()), (2, ()), (2, (0,)), (2, (1,)),
    ]  # fmt: skip
    assert "100 rows" in left_out[0] or "pays" in left_out[0]


@pytest.mark.parametrize(
    "option",
    [
        ("--depth", "1"),
        ("--exits", "0"),
        ("--explain",),
        ("--heads-only",),
        ("--check-exits", "sentiment=rows.csv"),
        ("--refit", "rows.csv"),
        ("--with-tokenizer",),
        ("--ort",),
        ("--keep-worst", "2"),
    ],
)
def test_what_a_budget_decides_cannot_be_asked_for(
    option: tuple[str, ...], tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "bundle"
    message = fails("export", "checkpoint", "--out", out, "--budget", "drop<1", *option)
    assert f"{option[0]} does not go with --budget" in message


def test_a_malformed_budget_fails_before_anything_is_read(tmp_path: Path, fails: Fails) -> None:
    message = fails("export", "nowhere", "--out", tmp_path / "bundle", "--budget", "speed<1")
    assert "unknown quantity 'speed'" in message
