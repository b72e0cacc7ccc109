"""`mtl-edge predict` on files: every format, any size, wrong rows, runs that are killed."""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.cli import main, predict_to_file, progress
from mtl_edge.errors import OutputExistsError
from mtl_edge.io import chunks, delimited, store, text

Fails = Callable[..., str]
Predict = Callable[..., None]

TEXTS = ["a quiet triumph", 'said "no",\r\nand left', "", "naïve \u2028 café\ttab", "nul \0 byte"]
ADDED = [f"{task}{end}" for task in ("sentiment", "topic") for end in ("", "_probability", "_sure")]
ENDINGS = ["csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz"]


@pytest.fixture
def predict(shared_bundle: Path) -> Predict:
    """Run the command, which must succeed."""

    def run(*options: str | Path) -> None:
        assert main(["predict", str(shared_bundle), *map(str, options)]) == 0

    return run


def _write(path: Path, rows: list[dict[str, Any]], group: int = 3) -> Path:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
        return path
    out = io.StringIO()
    if kind == "jsonl":
        out.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.writer(out, delimiter="\t" if kind == "tsv" else ",")
        writer.writerows([list(rows[0]), *(row.values() for row in rows)])
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if kind == "jsonl":
        return [json.loads(line) for line in text.split("\n")[:-1]]
    separator = "\t" if kind == "tsv" else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))


def _strings(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Values as CSV has them."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.6f}"
        return value if isinstance(value, str) else json.dumps(value)

    return [{name: cell(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("before", ENDINGS)
@pytest.mark.parametrize("after", ENDINGS)
def test_every_format_becomes_every_other(
    before: str, after: str, predict: Predict, shared_bundle: Path, tmp_path: Path
) -> None:
    rows = [{"id": str(i), "text": text, "Größe": "x"} for i, text in enumerate(TEXTS)]
    out = tmp_path / f"out.{after}"
    predict("--file", _write(tmp_path / f"in.{before}", rows), "--out", out)
    found = _read(out)
    assert [list(row) for row in found] == [["id", "text", "Größe", *ADDED]] * len(rows)
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    with EdgeClassifier.load(shared_bundle) as classifier:
        for row, prediction in zip(_strings(found), classifier.predict(TEXTS), strict=True):
            assert row["topic"] == prediction["topic"].label
            assert float(row["topic_probability"]) == pytest.approx(
                prediction["topic"].probability, abs=2e-5
            )
            assert row["sentiment_sure"] == "true"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"in.{before}", out.name])


def test_lines_and_arguments_can_be_written_too(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfone\r\n\nsep\xe2\x80\xa8arated\nno end")
    predict("--file", tmp_path / "in.txt", "--out", tmp_path / "a.csv", "--column", "review")
    found = [row["review"] for row in _read(tmp_path / "a.csv")]
    assert found == ["one", "", "sep\u2028arated", "no end"]
    predict("one", "two\nlines \udcff", "--out", tmp_path / "b.jsonl")
    assert [row["text"] for row in _read(tmp_path / "b.jsonl")] == ["one", "two\nlines \ufffd"]


def test_a_column_per_label_some_tasks_and_another_column(predict: Predict, tmp_path: Path) -> None:
    source = _write(tmp_path / "in.csv", [{"topic": "t", "body": "a text", "text": "another"}])
    options = ["--column", "body", "--probabilities", "--prefix", "its_", "--tasks", "topic"]
    predict("--file", source, "--out", tmp_path / "out.jsonl", *options)
    (row,) = _read(tmp_path / "out.jsonl")
    labels = ["food", "gadgets", "money", "travel"]
    chances = [row[f"its_topic_probability_{label}"] for label in labels]
    assert list(row)[3:6] == ["its_topic", "its_topic_probability", "its_topic_sure"]
    assert len(row) == 10
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert row["its_topic"] == labels[chances.index(max(chances))]


def test_the_depth_that_answered_is_a_column_if_asked_for(
    predict: Predict, shared_bundle: Path, fails: Fails, tmp_path: Path
) -> None:
    source = _write(tmp_path / "in.csv", [{"text": "one"}, {"text": ""}])
    options = ["--depth-column", "--prefix", "its_", "--tasks", "topic", "--missing", "skip"]
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{ending}"
        predict("--file", source, "--out", out, *options)
        assert [str(row["its_depth"]) for row in _read(out)] == ["2", "2"], ending
    source = _write(tmp_path / "with.csv", [{"text": "one", "its_depth": "4"}])
    out = tmp_path / "none.csv"
    told = fails("predict", shared_bundle, "--file", source, "--out", out, *options)
    assert "its_depth" in told


def test_parquet_keeps_types_and_tells_them_in_text(predict: Predict, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["one", "two"]).dictionary_encode(),
            "at": pa.array([1, None], pa.timestamp("ns", "UTC")),
            "day": [datetime.date(2026, 1, 2), None],
            "price": [decimal.Decimal("1.50"), None],
            "tags": [["a", "b"], None],
            "share": [float("nan"), 0.5],
            "raw": [b"\xff", b"x"],
        }
    ).replace_schema_metadata({"made": "by hand"})
    pq.write_table(table, tmp_path / "in.parquet")
    predict("--file", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    kept = [name for name in table.column_names if name != "share"]  # NaN equals nothing
    assert found.select(kept).equals(table.select(kept))
    assert found.schema.names == [*table.column_names, *ADDED]
    assert found.schema.metadata[b"made"] == b"by hand"
    predict("--file", tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl")
    first, second = _read(tmp_path / "out.jsonl")
    assert first["at"].startswith("1970-01-01 00:00:00.000000001")
    assert (first["day"], first["price"], first["tags"]) == ("2026-01-02", "1.50", ["a", "b"])
    assert (first["share"], first["raw"], second["share"]) == (None, "\\xff", 0.5)
    predict("--file", tmp_path / "in.parquet", "--out", tmp_path / "out.csv")
    assert [row["tags"] for row in _read(tmp_path / "out.csv")] == ['["a", "b"]', ""]


def test_jsonl_rows_may_differ_and_are_kept_to_the_letter(predict: Predict, tmp_path: Path) -> None:
    rows = [
        '{"text": "one",  "n": 1.10, "big": 123456789012345678901234567890, "odd": "\\ud800"}',
        '{"text": "two", "n": 2, "late": [1, {"a": null}], "big": 7}',
        '{"text": "three", "yes": true, "n": null}',
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join([rows[0], " ", *rows[1:]]))
    predict("--file", source, "--out", tmp_path / "out.jsonl")
    written = (tmp_path / "out.jsonl").read_text().split("\n")
    assert all(line.startswith(row[:-1]) for line, row in zip(written, rows, strict=False))
    predict("--file", source, "--out", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    kinds = {name: str(found.schema.field(name).type) for name in found.column_names[:6]}
    assert kinds == {
        "text": "string",
        "n": "double",
        "big": "string",
        "odd": "string",
        "late": "string",
        "yes": "bool",
    }
    assert found["late"].to_pylist() == [None, '[1, {"a": null}]', None]
    assert found["n"].to_pylist() == [1.1, 2.0, None]
    assert found["odd"].to_pylist() == ["\ufffd", None, None]
    predict("--file", source, "--out", tmp_path / "out.csv")
    assert [row["big"] for row in _read(tmp_path / "out.csv")] == [
        "123456789012345678901234567890",
        "7",
        "",
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_file_without_rows_gives_one_without_rows(
    ending: str, predict: Predict, tmp_path: Path
) -> None:
    if ending == "parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    else:
        (tmp_path / f"in.{ending}").write_text("text\n")
    for after in ENDINGS:
        predict("--file", tmp_path / f"in.{ending}", "--out", tmp_path / f"out.{after}")
        assert _read(tmp_path / f"out.{after}") == []
    assert pq.read_schema(tmp_path / "out.parquet").names == ["text", *ADDED]


def test_csv_as_programs_write_it(predict: Predict, tmp_path: Path) -> None:
    long = "word " * 60_000  # over the csv module's own limit
    source = tmp_path / "in.csv"
    source.write_bytes(
        b'\xef\xbb\xbf"text",n\r\n"quoted\r\nline ""end""",1\r\n\r\n' + long.encode() + b",2\r\n"
    )
    limit = csv.field_size_limit()
    predict("--file", source, "--out", tmp_path / "out.csv")
    assert csv.field_size_limit() == limit
    data = (tmp_path / "out.csv").read_bytes()
    assert data.startswith(b"text,n,sentiment,")
    assert b'"quoted\r\nline ""end""",1,' in data
    csv.field_size_limit(1 << 20)
    try:
        assert [row["text"] for row in _read(tmp_path / "out.csv")][1] == long
    finally:
        csv.field_size_limit(limit)


def test_a_lone_carriage_return_is_quoted(predict: Predict, tmp_path: Path) -> None:
    rows = [{"text": "one\rtwo", "id": "\r"}, {"text": "three", "id": "4"}]
    source = _write(tmp_path / "in.jsonl", rows)
    for ending in ("csv", "tsv"):
        out, back = tmp_path / f"out.{ending}", tmp_path / f"{ending}.jsonl"
        predict("--file", source, "--out", out)
        assert b'"one\rtwo"' in out.read_bytes()
        predict("--file", out, "--out", back, "--prefix", "its_")
        for found in (_read(out), _read(back)):
            assert [{name: row[name] for name in ("text", "id")} for row in found] == rows


MALFORMED = {
    "too many cells": ("csv", b"text,n\na,1\nb,2,3\n", "line 3 has 3 cells, the header 2"),
    "too few cells": ("csv", b"text,n\na,1\nb\n", "line 3 has 1 cells, the header 2"),
    "open quote": ("csv", b'text,n\na,1\n"b,2\nc,3\n', "begins at", "line 3", "unexpected end"),
    "quote in a cell": ("tsv", b'text\tn\n"a"b\t1\n', "line 2", "malformed"),
    "csv not utf-8": ("csv", b"text,n\na,1\n\xe9t\xe9,2\n", "line 3 is not UTF-8", "--encoding"),
    "utf-16": ("csv", "text,n\na,1\n".encode("utf-16-le"), "--encoding utf-16-le"),
    "lines not utf-8": ("txt", b"a\n\xff\n", "line 2 is not UTF-8"),
    "old line ends": ("csv", b"text,n\ra,1\rb,2\r", "line 1", "new-line character"),
    "names twice": ("csv", b"text,n,n\na,1,2\n", "'n' comes twice"),
    "no column": ("csv", b"body,n\na,1\n", "no column 'text'", "'body', 'n'", "--text-column"),
    "no header": ("csv", b"", "is empty"),
    "not json": ("jsonl", b'{"text": "a"}\n\n{"text": \n', "line 3 is not JSON"),
    "not an object": ("jsonl", b'{"text": "a"}\n["b"]\n', "line 2 holds list"),
    "nested": ("jsonl", b'{"text": "a", "x": ' + b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    "digits": ("jsonl", b'{"text": "a", "x": ' + b"1" * 5000 + b"}\n", "line 1 is not JSON"),
    "key twice": ("jsonl", b'{"text": "a", "text": "b"}\n', "'text' comes twice"),
    "no key": ("jsonl", b'{"body": "a"}\n', "line 1 has no column 'text'", "'body'"),
    "number": ("jsonl", b'{"text": "a"}\n{"text": 5}\n', "line 2", "is int; expected a string"),
    "null": ("jsonl", b'{"text": "a"}\n{"text": null}\n', "line 2 has no text", "--missing"),
    "json not utf-8": ("jsonl", b'{"text": "\xff"}\n', "line 1 is not UTF-8"),
    "no parquet": ("parquet", b"PAR1 not PAR1", "not a Parquet file"),
    "no gzip": ("csv.gz", b"text\na\n", "not a whole gzip"),
    "cut gzip": ("csv.gz", gzip.compress(b"text\n" + os.urandom(9999).hex().encode())[:-999],
                 "not a whole gzip"),
    "unknown ending": ("xlsx", b"PK", "ending '.xlsx'", "--format"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_wrong_with_a_file_is_told_with_its_line(
    name: str, shared_bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    ending, content, *words = MALFORMED[name]
    source = tmp_path / f"in.{ending}"
    assert isinstance(content, bytes)
    source.write_bytes(content)
    message = fails("predict", shared_bundle, "--file", source, "--out", tmp_path / "out.csv")
    for word in words:
        assert str(word) in message
    assert [p.name for p in tmp_path.iterdir()] == [source.name], "nothing was left"


def test_a_cell_or_line_without_end_does_not_fill_the_memory(
    shared_bundle: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "MAX_CELL", 1000)
    monkeypatch.setattr(text, "MAX_LINE", 1 << 20)
    (tmp_path / "in.csv").write_text('text\nfine\n"open\n' + "a line\n" * 1000)
    (tmp_path / "in.jsonl").write_text('{"text": "' + "a" * (2 << 20))
    for name, word in (("in.csv", "begins at"), ("in.jsonl", "longer than 1 Mi characters")):
        out = tmp_path / "out.csv"
        assert word in fails("predict", shared_bundle, "--file", tmp_path / name, "--out", out)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_missing_texts_are_what_one_asks_for(
    ending: str, predict: Predict, tmp_path: Path, shared_bundle: Path, fails: Fails
) -> None:
    source = _write(
        tmp_path / f"in.{ending}", [{"text": t, "n": "x"} for t in ("a", None, "b", "")]
    )
    out = tmp_path / "out.jsonl"
    message = fails("predict", shared_bundle, "--file", source, "--out", out)
    assert ("line 2" if ending == "jsonl" else "row 2") in message
    predict("--file", source, "--out", out, "--missing", "skip")
    skipped = _read(out)
    assert [row["text"] for row in skipped] == ["a", None, "b", ""]
    assert [skipped[1][name] for name in ADDED] == [None] * len(ADDED)
    assert all(row["topic"] for row in (skipped[0], *skipped[2:]))
    predict("--file", source, "--out", out, "--missing", "empty", "--overwrite")
    empty = _read(out)
    assert empty[1]["text"] is None
    assert [empty[1][name] for name in ADDED] == [empty[3][name] for name in ADDED]


def test_options_that_cannot_be_meant_are_told(
    shared_bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    source = _write(tmp_path / "in.csv", [{"text": "a", "topic": "b"}])
    out = tmp_path / "out.csv"
    given = ("predict", shared_bundle, "--file", source)
    assert "'topic'" in (message := fails(*given, "--out", out))
    assert "--prefix" in message
    assert "is the input" in fails(*given, "--out", source, "--overwrite")
    assert "--json" in fails(*given, "--out", out, "--json")
    assert "expected an ending" in fails(*given, "--out", tmp_path / "out.xlsx")
    assert "expected an ending" in fails(*given, "--out", tmp_path / "out.parquet.gz")
    for option in ("--overwrite", "--restart", "--probabilities", "--prefix=a"):
        assert "--out" in fails(*given, option)
    assert "cannot read" in fails(
        "predict", shared_bundle, "--file", tmp_path / "no.csv", "--out", out
    )
    (tmp_path / "folder.csv").mkdir()
    assert "is not a file" in fails(*given, "--out", tmp_path / "folder.csv", "--prefix=a")
    out.write_text("mine")
    assert "cannot read" in fails(
        "predict", shared_bundle, "--file", tmp_path / "no.csv", "--out", out, "--overwrite"
    )
    assert "--overwrite" in fails(*given, "--out", out, "--prefix=a")
    assert out.read_text() == "mine"


def test_parquet_without_its_package_names_the_extra(
    shared_bundle: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _write(tmp_path / "in.csv", [{"text": "a"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    command = ("predict", shared_bundle, "--file", source, "--out", tmp_path / "out.parquet")
    assert "pip install 'mtl-edge[parquet]'" in fails(*command)


def test_a_table_of_a_file_is_printed(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(tmp_path / "in.jsonl", [{"text": "one"}, {"text": None}])
    predict("--file", source, "--missing", "skip")
    assert [line.split()[:1] for line in capsys.readouterr().out.splitlines()[2:]] == [["one"], []]
    predict("--file", source, "--missing", "skip", "--json", "--tasks", "topic")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(first) == {"text", "topic"}
    assert second == {"text": None, "topic": None}


# A run in a process of its own: small chunks, the journal after each, and a signal to itself when
# it is about to append the rows up to {at}, half of which a kill leaves behind.
STOPPED = """
import os, signal, sys
from mtl_edge.cli import main
from mtl_edge.io import chunks, store
chunks.CHUNK_ROWS = 16
store.SECONDS_BETWEEN_SAVES = 0
# Who started the tests may ignore it, as a shell does for what runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
whole = store.Store.append
def append(self, answers, rows):
    if rows >= {at}:
        if {number} == signal.SIGKILL:
            self._file.execute("PRAGMA cache_size = 1")  # so that it is on the disk
            self._file.execute("INSERT INTO chunks VALUES (?, ?)", (rows, "[" * 100000))
        os.kill(os.getpid(), {number})
    whole(self, answers, rows)
store.Store.append = append
sys.exit(main(sys.argv[1:]))
"""


def _done(out: Path) -> int:
    """Rows that a stopped run has done."""
    with contextlib.closing(sqlite3.connect(f"{out}.partial")) as file:
        (rows,) = file.execute("SELECT max(rows) FROM chunks").fetchone()
    return int(rows)


def _stopped(number: int, at: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    program = STOPPED.format(at=at, number=int(number))
    arguments = [sys.executable, "-c", program, *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 16)


@pytest.fixture
def many() -> list[dict[str, Any]]:
    return [{"id": str(i), "text": f"number {i}\nof many " * (i % 7)} for i in range(150)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("csv", "csv"),
        ("csv.gz", "jsonl"),
        ("jsonl", "csv.gz"),
        ("tsv", "parquet"),
        ("parquet", "parquet"),
        ("jsonl.gz", "parquet"),
    ],
)
def test_a_killed_run_goes_on_and_its_file_is_that_of_a_whole_run(
    before: str,
    after: str,
    shared_bundle: Path,
    predict: Predict,
    many: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = _write(tmp_path / f"in.{before}", many)
    out, whole = tmp_path / f"out.{after}", tmp_path / f"whole.{after}"
    predict("--file", source, "--out", whole)
    command = ("predict", shared_bundle, "--file", source, "--out", out)
    assert _stopped(signal.SIGKILL, 70, *command).returncode == -signal.SIGKILL
    assert not out.exists()
    first = _done(out)
    assert _stopped(signal.SIGKILL, 120, *command).returncode == -signal.SIGKILL
    second = _done(out)
    assert 0 < first < second < len(many)
    capsys.readouterr()
    predict(*command[2:])
    assert f"going on behind row {second}" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert [row["id"] for row in _read(out)] == [row["id"] for row in many]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, out.name, whole.name])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_its_chunk_and_says_how_to_go_on(
    number: int,
    code: int,
    shared_bundle: Path,
    predict: Predict,
    many: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    source, out = _write(tmp_path / "in.csv", many), tmp_path / "out.csv"
    same = ("--target", "onnx-int8")
    command = ("predict", shared_bundle, "--file", source, "--out", out, *same)
    done = _stopped(number, 70, *command)
    assert done.returncode == code
    assert "80 rows are done, and the same command goes on" in done.stderr.splitlines()[-1]
    assert _done(out) == 80
    predict(*command[2:])
    predict("--file", source, "--out", tmp_path / "whole.csv", *same)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_run_that_began_anew_goes_on_without_that_option(
    shared_bundle: Path, predict: Predict, many: list[dict[str, Any]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, out = _write(tmp_path / "in.csv", many), tmp_path / "out.csv"
    command = ("predict", shared_bundle, "--file", source, "--out", out)
    done = _stopped(signal.SIGTERM, 70, *command, "--restart")
    assert "80 rows are done, and the same command without --restart goes on" in done.stderr
    capsys.readouterr()
    predict(*command[2:])
    assert "going on behind row 80" in capsys.readouterr().err
    assert len(_read(out)) == len(many)


def test_what_is_said_of_a_stopped_run_is_what_is_there(tmp_path: Path) -> None:
    target, facts = tmp_path / "out", {"rows": 9}
    with store.Store(target, {}) as one:
        assert one.advice == "nothing was written"
        one.begin(facts)
        one.append([["a"], None, ["b"]], 3)
    assert "3 rows are done, and the same command goes on" in one.advice
    with store.Store(target, {}, restart=True) as two:  # stopped before it began
        assert two.advice == "nothing was written"
    with store.Store(target, {}) as three:
        assert "3 rows are done, and the same command goes on" in three.advice
        assert three.facts == facts
        three.begin({})
        assert list(three.answers()) == [[["a"], None, ["b"]]]
        three.done = True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_chunks")
def test_what_another_run_left_is_not_gone_on_with(
    shared_bundle: Path,
    bundle: Path,
    predict: Predict,
    many: list[dict[str, Any]],
    tmp_path: Path,
    fails: Fails,
) -> None:
    source, out = _write(tmp_path / "in.csv", many), tmp_path / "out.csv"
    command = ("predict", shared_bundle, "--file", source, "--out", out)
    assert _stopped(signal.SIGKILL, 70, *command).returncode == -signal.SIGKILL
    left = _done(out)
    message = fails(*command, "--probabilities", "--missing", "skip")
    assert 'missing (then "error", now "skip"), probabilities (then false' in message
    assert "64 rows" in message
    assert "--restart" in message
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["tasks"][0]["temperature"] = 2.0
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "bundle (then" in fails("predict", bundle, *command[2:])
    with source.open("a") as file:
        file.write("last,row\n")
    assert "input bytes (then" in fails(*command)
    assert _done(out) == left
    predict(*command[2:], "--restart")
    assert len(_read(out)) == len(many) + 1


def test_files_beside_the_output_that_are_no_run_are_left_alone(
    shared_bundle: Path, predict: Predict, tmp_path: Path, fails: Fails
) -> None:
    source, out = _write(tmp_path / "in.csv", [{"text": "a"}]), tmp_path / "out.csv"
    partial = tmp_path / "out.csv.partial"
    command = ("predict", shared_bundle, "--file", source, "--out", out)
    partial.write_text("mine")
    assert "is not what a stopped run left" in fails(*command)
    assert partial.read_text() == "mine"
    assert "no bundle" in fails("predict", tmp_path, *command[2:], "--restart")
    assert partial.read_text() == "mine"
    predict(*command[2:], "--restart")
    assert len(_read(out)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_two_runs_do_not_write_one_file(shared_bundle: Path, tmp_path: Path, fails: Fails) -> None:
    source, out = _write(tmp_path / "in.csv", [{"text": "a"}]), tmp_path / "out.csv"
    with store.Store(out, {}) as other:
        other.begin({})
        message = fails("predict", shared_bundle, "--file", source, "--out", out)
    assert "another process" in message


def test_a_full_disk_leaves_what_can_be_gone_on_with(
    shared_bundle: Path,
    predict: Predict,
    many: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_chunks: None,
) -> None:
    source, out = _write(tmp_path / "in.csv", many), tmp_path / "out.csv"
    whole = store.Store.append

    def append(self: store.Store, answers: Any, rows: int) -> None:
        if rows > 60:
            raise OSError(28, "No space left on device")
        whole(self, answers, rows)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "append", append)
        patch.setattr(store, "SECONDS_BETWEEN_SAVES", 0)
        assert main(["predict", str(shared_bundle), "--file", str(source), "--out", str(out)]) == 1
    assert "No space left" in capsys.readouterr().err.splitlines()[-1]
    predict("--file", source, "--out", out)
    assert "going on behind row 48" in capsys.readouterr().err
    assert [row["id"] for row in _read(out)] == [row["id"] for row in many]


def test_standard_input_is_written_whole_or_not_at_all(
    shared_bundle: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch,
    fails: Fails,
) -> None:  # fmt: skip
    def given(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(b"text,n\na,1\nb,2\n")
    predict("--format", "csv", "--out", tmp_path / "a.jsonl")
    assert [row["n"] for row in _read(tmp_path / "a.jsonl")] == ["1", "2"]
    given(b'{"text": "a", "n": 1}\n{"text": "b", "m": 1}\n')
    predict("--format", "jsonl", "--out", tmp_path / "b.jsonl")
    assert [set(row) - {*ADDED} for row in _read(tmp_path / "b.jsonl")] == [
        {"text", "n"},
        {"text", "m"},
    ]
    given(b'{"text": "a", "topic": 1}\n')
    command = ("predict", shared_bundle, "--format", "jsonl", "--out")
    assert "'topic'" in fails(*command, tmp_path / "c.jsonl")
    given(b'{"text": "a"}\n')
    assert "--file" in fails(*command, tmp_path / "c.csv")
    given(b"text,n\na,1\nb\n")
    assert "standard input, line 3" in fails(
        "predict", shared_bundle, "--format", "csv", "--out", tmp_path / "c.csv"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("resumable", [True, False])
def test_a_disk_that_is_full_is_told_and_leaves_what_can_be_gone_on_with_or_nothing(
    resumable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS_BETWEEN_SAVES", 0)
    target = tmp_path / "out"
    with (
        pytest.raises(OSError, match="full"),
        store.Store(target, {}, resumable=resumable) as made,
    ):
        made.begin({})
        made.append([["a"]] * 3, 3)
        assert made._file is not None
        made._file.execute("PRAGMA max_page_count = 4")
        made.append([["a" * (1 << 20)]], 4)
    assert [path.name for path in tmp_path.iterdir()] == (["out.partial"] if resumable else [])
    with store.Store(target, {}, resumable=resumable) as made:
        assert made.rows == (3 if resumable else 0)


@pytest.mark.parametrize("stdin", [True, False])
def test_a_disk_that_is_full_at_the_end_costs_the_end_alone(
    stdin: bool, shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], predict: Predict,
) -> None:  # fmt: skip
    source = _write(tmp_path / "in.csv", [{"text": "a"}])
    command = ["predict", str(shared_bundle), "--out", str(tmp_path / "out.csv")]
    command += ["--format", "csv"] if stdin else ["--file", str(source)]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for place, name in ((predict_to_file, "sync_file"), (os, "replace")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            assert main(command) == 1
        assert "No space left" in capsys.readouterr().err
        left = ["in.csv"] if stdin else ["in.csv", "out.csv.partial"]
        assert sorted(path.name for path in tmp_path.iterdir()) == left
    if not stdin:
        monkeypatch.setattr(EdgeClassifier, "predict", full)  # all was answered
        predict("--file", source, "--out", tmp_path / "out.csv")
        assert len(_read(tmp_path / "out.csv")) == 1


def test_a_file_that_changes_while_it_is_read_is_told(
    shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    source = _write(tmp_path / "in.csv", [{"text": "a"}])
    whole = store.Store.append

    def append(self: store.Store, answers: Any, rows: int) -> None:
        whole(self, answers, rows)
        with source.open("a") as file:
            file.write("another\n")

    monkeypatch.setattr(store.Store, "append", append)
    message = fails("predict", shared_bundle, "--file", source, "--out", tmp_path / "out.csv")
    assert "changed while it was read; begin anew with --restart" in message
    assert not (tmp_path / "out.csv").exists()


def test_what_another_run_is_writing_is_not_removed(tmp_path: Path) -> None:
    with store.Store(tmp_path / "out", {}) as one:
        one.begin({})
        for restart in (False, True):
            with pytest.raises(OutputExistsError, match="another process"):
                store.Store(tmp_path / "out", {}, resumable=False, restart=restart)
        assert one.path.exists()


def test_a_run_that_waits_for_input_stops_when_told_to(shared_bundle: Path) -> None:
    command = [sys.executable, "-m", "mtl_edge.cli", "predict", str(shared_bundle), "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        # A chunk is answered when it is full; it waits for the next one then.
        process.stdin.write(b"a text\n" * chunks.CHUNK_ROWS)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=30) == 143
        assert b"1,024 rows were answered" in process.stderr.read()


MEMORY = """
import sys
from mtl_edge import EdgeClassifier
from mtl_edge.cli import main
from mtl_edge.io import writers
writers.GROUP_ROWS = 4096  # so that the smaller file fills one, too
whole = EdgeClassifier.predict
EdgeClassifier.predict = lambda self, texts: whole(self, ["a text"]) * len(texts)
assert main(sys.argv[1:]) == 0
with open("/proc/self/status") as status:  # getrusage's peak is the parent's, if that had more
    print(*(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(
    ending: str, shared_bundle: Path, tmp_path: Path
) -> None:
    peaks = []
    for count in (5_000, 100_000):
        rows = [{"id": str(i), "text": f"text number {i} " * 20} for i in range(count)]
        source = _write(tmp_path / f"{count}.{ending}", rows, group=2500)
        out = tmp_path / f"out-{count}.{ending}"
        command = ["predict", shared_bundle, "--file", source, "--out", out]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, command)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 40, f"MB: {peaks}"


def _screen(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    """Standard error, on which every update of progress shows, a second after the one before."""
    screen = io.StringIO()
    clock = iter(range(1000))
    monkeypatch.setattr(screen, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1.0)
    return screen


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        screen = _screen(patch, terminal=False)
        with progress.Progress("out.csv", total=400, unit="rows", done=100) as bar:
            bar.update(30)
            bar.reach(160)
        assert screen.getvalue().splitlines() == [
            "out.csv: 32%, 130/400 rows, 30/s, 9.0 s left",
            "out.csv: 40%, 160/400 rows, 30/s, 8.0 s left",
            "out.csv: 60 rows in 3.0 s, 20/s",
        ]
    with monkeypatch.context() as patch:
        screen = _screen(patch, terminal=True)
        with progress.Progress("out.csv", total=40_000, unit="rows") as bar:
            bar.update(2)
        first, erased, last = screen.getvalue().split("\r")[1:], "\x1b[K", "2 rows in 2.0 s, 1/s"
        assert first[0].startswith(f"out.csv: {'.' * 24}   0% 2/40,000 rows, 2/s, 5 h 33 min left")
        assert first[1] == f"{erased}out.csv: {last}\n"
    with monkeypatch.context() as patch:
        screen = _screen(patch, terminal=False)
        with progress.Progress("checking", total=None, unit="bytes", brief=True) as bar:
            bar.update(2)
        assert screen.getvalue() == "checking: 2 bytes, 2/s\n"


def test_a_signal_while_the_file_gets_its_name_comes_too_late(
    shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predict: Predict
) -> None:
    source = _write(tmp_path / "in.csv", [{"text": "a"}])
    whole = os.replace

    def replace(made: Path, to: Path) -> None:
        # Not by the system: under pytest's faulthandler signals have a stack of their own, which is
        # too small for what some engines ask the processor to keep.
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)
        whole(made, to)

    monkeypatch.setattr(os, "replace", replace)
    before = signal.getsignal(signal.SIGTERM)
    predict("--file", source, "--out", tmp_path / "out.parquet")
    assert signal.getsignal(signal.SIGTERM) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.parquet"]


def test_a_kill_while_parquet_is_made_costs_nothing_but_that(
    shared_bundle: Path, tmp_path: Path, predict: Predict, many: list[dict[str, Any]],
    small_chunks: None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, out = _write(tmp_path / "in.csv", many), tmp_path / "out.parquet"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", stopped)
        assert (
            main(["predict", str(shared_bundle), "--file", str(source), "--out", str(out)]) == 130
        )
    assert not out.exists()
    monkeypatch.setattr(EdgeClassifier, "predict", stopped)
    predict("--file", source, "--out", out)
    assert len(_read(out)) == len(many)


def test_a_text_that_is_too_large_is_told_before_the_work(
    shared_bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    rows = [{"text": "a"}] * 3 + [{"text": "a" * (1 << 21)}]
    source = _write(tmp_path / "in.csv", rows)
    message = fails("predict", shared_bundle, "--file", source, "--out", tmp_path / "out.csv")
    assert (
        "line 5: its text has 2,097,152 bytes, at most 1,048,576 are allowed; pass --too" in message
    )
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_row_of_a_text_that_is_too_large_counts_those_without_a_text(
    ending: str, shared_bundle: Path, tmp_path: Path, fails: Fails, predict: Predict,
    monkeypatch: pytest.MonkeyPatch, small_chunks: None,
) -> None:  # fmt: skip
    rows: list[dict[str, Any]] = [{"text": "a"}, {"text": None}] * 10
    rows += [{"text": None}, {"text": "é" * (1 << 20)}]
    source = _write(tmp_path / f"in.{ending}", rows)
    given = ("predict", shared_bundle, "--missing", "skip", "--file", source)
    message = fails(*given, "--out", tmp_path / "out.csv")
    assert f"{'line' if ending == 'jsonl' else 'row'} 22: its text has 2,097,152 bytes" in message
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 1024)
    assert message == fails(*given)
    if ending == "jsonl":
        stdin = io.TextIOWrapper(io.BytesIO(source.read_bytes()))
        monkeypatch.setattr("sys.stdin", stdin)
        options = ("--missing", "skip", "--format", ending, "--out", tmp_path / "out.jsonl")
        told = fails("predict", shared_bundle, *options)
        assert told == message.replace(str(source), "standard input")
