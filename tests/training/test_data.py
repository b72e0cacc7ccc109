"""Labelled files: what can be read is read as it stands, and the rest is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_edge.cli import main
from mtl_edge.errors import DataError
from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.checkpoint import load_checkpoint
from mtl_edge.training.data import build_task, conflicts

Fails = Callable[..., str]
TEXTS = ["NA", "null", 'a, "quoted" text', "two\nlines", " spaces ", "123", "über 💥"]
LABELS = ["yes", "no", "yes", "no", "yes", "no", "yes"]


def rows_of(labels: list[str]) -> Rows:
    return Rows(tuple(f"text {i}" for i in range(len(labels))), tuple(labels), {"file": "f.csv"})


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".CSV"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    file = tmp_path / f"data{ending}"
    if ending == ".parquet":
        frame.to_parquet(file)
    elif ending == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False, sep="\t" if ending == ".tsv" else ",")
    rows = read_rows("task", file)
    assert list(rows.texts) == TEXTS
    assert list(rows.labels) == LABELS


def test_the_label_column_may_bear_the_task_s_name_or_be_given(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("body,topic,score\nhello,a,1\nworld,b,2\n")
    assert read_rows("topic", file, ReadOptions("body")).labels == ("a", "b")
    assert read_rows("any", file, ReadOptions("body"), "score").labels == ("1", "2")


def test_nothing_in_a_json_file_is_taken_for_a_date_or_a_number(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"date": "2020-01-01", "modified": "007"}\n{"date": "2021", "modified": "1"}')
    rows = read_rows("task", file, ReadOptions("modified"), "date")
    assert rows.labels == ("2020-01-01", "2021")
    assert rows.texts == ("007", "1")


def test_rows_without_a_label_are_passed_over_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": None}, {"text": "c", "label": "x"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    rows = read_rows("task", file)
    assert rows.texts == ("a", "c")
    assert rows.labels == ("1", "x")
    assert rows.note == "1 row without a label was passed over"


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_numbers_as_labels_read_the_same_beside_missing_ones(tmp_path: Path, ending: str) -> None:
    texts = ["a", "b", "c", "d"]
    names = []
    for labels in ([1, 0, 1, 0], [1, 0, 1, None], [1.5, 2.0, None, 0.0]):
        file = tmp_path / f"data{ending}"
        if ending == ".parquet":
            pq.write_table(pa.table({"text": texts, "label": labels}), file)
        else:
            rows = [{"text": t, "label": v} for t, v in zip(texts, labels, strict=True)]
            file.write_text("\n".join(map(json.dumps, rows)))
        names.append(read_rows("task", file).labels)
    assert names == [("1", "0", "1", "0"), ("1", "0", "1"), ("1.5", "2", "0")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("unquoted.csv", "text,label\na, b,x\nc, d,y\n"),
        ("first.csv", "text,label\na, b,x\nc,y\n"),
        ("trailing.csv", "text,label\na,x,\nb,y,\n"),
        ("two.csv", "text,label\na,b,c,x\nd,e,f,y\n"),
        ("unquoted.tsv", "text\tlabel\na\tb\tx\nc\td\ty\n"),
    ],
)
def test_rows_wider_than_the_header_are_refused(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    seen = 4 if name == "two.csv" else 3
    with pytest.raises(DataError, match=f"line 2 has {seen} cells, the header 2; .* in quotes"):
        read_rows("task", file)


def test_a_csv_file_may_have_a_mark_in_front_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    content = '\ufeff"text",label,more\n\n"a, b",x,1\nd,,\n,z,\n"two\nlines",x,\n\n'
    file.write_text(content, encoding="utf-8")
    rows = read_rows("task", file)
    assert rows.texts == ("a, b", "", "two\nlines")
    assert rows.labels == ("x", "z", "x")
    assert rows.note == (
        "2 blank lines; 1 line inside quoted cells; 1 row without a label was passed over"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "cannot read"),
        ("empty.csv", "", "is empty"),
        ("header.csv", "text,label\n", "no rows"),
        ("blank.csv", "\n\n", "is empty"),
        ("data.xlsx", "x", "expected .txt, .csv, .tsv"),
        ("columns.csv", "a,b\n1,2\n", "it has 'a', 'b'; name one with --text-column"),
        ("nolabel.csv", "text,b\n1,2\n", "no column 'label' or 'task'"),
        ("unlabelled.csv", "text,label\na,\nb,\n", "no labelled row"),
        ("broken.jsonl", '{"text": "a"', "line 1 is not JSON"),
        ("broken.parquet", "not parquet", "not a Parquet file"),
        ("ragged.csv", "text,label\na,b\nc,d,e,f\n", "line 3 has 4 cells"),
        ("latin.csv", b"text,label\n\xe9\xff,x\n", "line 2 is not UTF-8 .*--encoding"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        read_rows("task", file)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="cannot read"):
        read_rows("task", tmp_path / "folder.csv")


def test_labels_are_sorted_and_the_split_keeps_their_shares() -> None:
    task = build_task("t", rows_of(["b"] * 100 + ["a"] * 50 + ["c"]), None, seed=0)
    assert task.labels == ("a", "b", "c")
    assert task.validation.labels.count("b") == 10
    assert task.validation.labels.count("a") == 5
    assert task.validation.labels.count("c") == 0, "a label's only row teaches"
    assert set(task.train.texts).isdisjoint(task.validation.texts)
    assert len(task.train) + len(task.validation) == 151


def test_the_split_repeats_for_a_seed_and_differs_between_seeds() -> None:
    rows = rows_of(["a", "b"] * 100)
    first, again, other = (build_task("t", rows, None, seed).validation for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_split_is_the_same_in_every_release() -> None:
    task = build_task("t", rows_of(["a", "b", "b"] * 20), None, seed=7)
    assert task.validation.texts == tuple(f"text {i}" for i in (5, 7, 12, 30, 38, 52))


def copies(texts: list[str], labels: list[str]) -> Rows:
    return Rows(tuple(texts), tuple(labels), {"file": "f.csv"})


def test_copies_of_a_text_are_on_one_side_of_the_split() -> None:
    texts = [f"text {i % 70}" for i in range(210)]
    labels = ["b" if i % 3 else "a" for i in range(210)]  # texts stand under both labels
    for seed in range(5):
        task = build_task("t", copies(texts, labels), None, seed)
        assert set(task.train.texts).isdisjoint(task.validation.texts)
        assert len(task.train) + len(task.validation) == 210
        assert len(task.validation) == 3 * len(set(task.validation.texts))


def test_each_label_is_taught_though_its_texts_stand_under_others_too() -> None:
    texts = [f"text {i}" for i in range(100)]
    labels = ["a"] * 100 + [f"also {i}" for i in range(50)]
    for seed in range(5):
        task = build_task("t", copies([*texts, *texts[:50]], labels), None, seed)
        assert set(task.train.labels) == set(task.labels)
        assert set(task.train.texts).isdisjoint(task.validation.texts)


def test_a_task_needs_two_labels_and_some_rows() -> None:
    with pytest.raises(DataError, match="one label 'a'"):
        build_task("t", rows_of(["a"] * 20), None, seed=0)
    with pytest.raises(DataError, match="too few"):
        build_task("t", rows_of(["a", "b"]), None, seed=0)
    with pytest.raises(DataError, match="5 or more texts of some label, all different"):
        build_task("t", copies(["same", "other"] * 20, ["a", "b"] * 20), None, seed=0)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "", "a/b", "a.b", "a b", "x" * 65])
def test_a_task_s_name_has_to_fit_a_graph_s_output(name: str) -> None:
    with pytest.raises(DataError, match="cannot name a task"):
        build_task(name, rows_of(["a", "b"] * 10), None, seed=0)


def test_dev_may_not_have_a_label_that_train_lacks() -> None:
    with pytest.raises(DataError, match=r"label 'z', which f\.csv lacks; expected a, b"):
        build_task("t", rows_of(["a", "b"] * 10), rows_of(["a", "z"]), seed=0)


def test_conflicting_labels_of_one_text_are_counted() -> None:
    rows = Rows(("x", "x", "y", "y", "z"), ("a", "b", "a", "a", "b"), {})
    assert conflicts(rows) == 1


def test_bad_data_on_the_command_line_writes_nothing(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "one.csv").write_text("text,label\n" + "a,b\n" * 20)
    out = tmp_path / "out"
    train = ("train", "--backbone", "minilm", "--out", out)
    assert "cannot read" in fails(*train, "--task", f"t={tmp_path}/none.csv")
    assert "one label" in fails(*train, "--task", f"t={tmp_path}/one.csv")
    assert "NAME=VALUE" in fails(*train, "--task", "no-equals-sign")
    assert "twice" in fails(*train, "--task", "t=a.csv", "--task", "t=b.csv")
    assert "no such --task" in fails(*train, "--task", "t=a.csv", "--dev", "u=b.csv")
    assert "--epochs is 0" in fails(*train, "--task", "t=a.csv", "--epochs", "0")
    assert [p.name for p in tmp_path.iterdir()] == ["one.csv"]


MANY = "text,mood,subject\na,good,x\nb,,y\nc,bad,\nd,,\n" + "".join(
    f"text {i},{'good' if i % 2 else 'bad'},{'x' if i % 3 else 'y'}\n" for i in range(30)
)


def test_one_file_may_hold_labels_of_several_tasks(
    tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.csv"
    file.write_text(MANY)
    command = ["train", "--backbone", str(tiny_backbone), "--epochs", "1"]
    command += ["--data", str(file), "--label", "sentiment=mood", "--label", "topic=subject"]
    assert main([*command, "--dev-data", str(file), "--out", str(tmp_path / "out")]) == 0
    checkpoint = load_checkpoint(tmp_path / "out")
    assert [(t.name, t.labels) for t in checkpoint.tasks] == [
        ("sentiment", ("bad", "good")),
        ("topic", ("x", "y")),
    ]
    report = checkpoint.report
    assert report["sentiment"]["reported"]["rows"] == report["topic"]["reported"]["rows"] == 32
    assert report["sentiment"]["train"]["rows"] == 32
    assert "2 rows without a label were passed over" in capsys.readouterr().err


def test_data_and_label_go_together(tmp_path: Path, fails: Callable[..., str]) -> None:
    file = tmp_path / "many.csv"
    file.write_text(MANY)
    train = ("train", "--backbone", "minilm", "--out", tmp_path / "out")
    assert "give both" in fails(*train, "--data", file)
    assert "give both" in fails(*train, "--label", "sentiment=mood")
    assert "no task" in fails(*train)
    assert "--dev-data goes with --data" in fails(*train, "--task", f"t={file}", "--dev-data", file)
    both = ("--data", file, "--label", "t=mood", "--task", f"t={file}")
    assert "named by both" in fails(*train, *both)
    missing = ("--data", file, "--label", "t=feeling")
    assert "no column 'feeling'; it has 'text', 'mood', 'subject'" in fails(*train, *missing)


def test_a_data_set_of_the_hub_s_library_is_read_with_its_label_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"text": ["fine", "awful", "unknown"], "label": [1, 0, -1]},
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["negative", "positive"]),
            }
        ),
    )
    # A folder is loaded by the same call as a name on the Hub; parquet keeps the features.
    (tmp_path / "set").mkdir()
    rows.to_parquet(str(tmp_path / "set" / "train.parquet"))
    read = read_rows("sentiment", f"hub:{tmp_path}/set")
    assert read.texts == ("fine", "awful")
    assert read.labels == ("positive", "negative")
    assert read.note == "1 row without a label was passed over"
    assert len(read.source["sha256"]) == 64
    with pytest.raises(DataError, match="check name, subset and split"):
        read_rows("sentiment", f"hub:{tmp_path}/set:nosuchsplit")
    with pytest.raises(DataError, match="expected hub:NAME"):
        read_rows("sentiment", "hub:")


def test_texts_over_the_limit_are_counted(
    tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.csv"
    file.write_text(
        "text,label\n" + "".join(f"{'word ' * (i + 1)},{'ab'[i % 2]}\n" for i in range(20))
    )
    command = ["train", "--backbone", str(tiny_backbone), "--epochs", "1", "--max-tokens", "8"]
    assert main([*command, "--task", f"t={file}", "--out", str(tmp_path / "out")]) == 0
    assert "14 of 20 texts are longer than 8 tokens and were cut" in capsys.readouterr().err
