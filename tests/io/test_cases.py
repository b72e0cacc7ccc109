"""Files that people bring: each is read as it was meant, or refused with the option that does."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_edge.cli import main
from mtl_edge.errors import DataError, MtlEdgeError, OptionError
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labelled import read_rows, read_texts
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.training.checkpoint import load_checkpoint
from tests.io.test_same_rows import same

PLAIN = [(f"parcel {i} came quick", "pos") if i % 2 else (f"parcel {i} late", "neg")
         for i in range(40)]  # fmt: skip


def table(rows: list[tuple[str, str]], separator: str = ",", header: str = "text,label") -> str:
    lines = [header.replace(",", separator), *(f"{t}{separator}{v}" for t, v in rows)]
    return "\n".join(lines) + "\n"


def objects(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


STRAY = table([('"Best phone ever', "pos"), ("screen died", "neg"), ("battery fine", "pos"),
               ('would not "buy again', "neg"), *PLAIN], "\t")  # fmt: skip
INCHES = table([('"Best phone ever', "pos"), ("died", "neg"), ('the screen is 5"', "pos"), *PLAIN])
NUMBERED = "id,text\n" + "".join(f"{i},text {i}\n" for i in range(9)) + '10,"open\n11,on\n12,5"\n'

Expected = list[tuple[str, str]] | tuple[str, ...]
# name: file, content, options, and rows or parts of the message.
CASES: dict[str, tuple[str, str | bytes, dict[str, Any], Expected]] = {
    # Quotes that are characters like others.
    "a stray quote": ("a.tsv", STRAY, {}, ("line 2", "'\t' expected", "--quoting none")),
    "a stray quote, as it is": ("a.tsv", STRAY, {"quoting": "none"}, [
        ('"Best phone ever', "pos"), ("screen died", "neg"), ("battery fine", "pos"),
        ('would not "buy again', "neg"), *PLAIN]),
    "stray quotes that pair": ("a.csv", INCHES, {}, ("quote that opens at", "line 2", "--quoting")),
    "that pair, as one cell": ("a.csv", INCHES, {"quoting": "double"}, [
        ("Best phone ever,pos\ndied,neg\nthe screen is 5", "pos"), *PLAIN]),
    "that pair, the label first": (
        "a.csv", "label,text\npos,\"Best\nneg,died\nneg,is 5\"\n" + "neg,bad\npos,fine\n" * 3, {},
        ("line 2", "--quoting none")),
    "that pair, before others like it": (
        "a.csv", INCHES.replace("\n", "\r\n"), {}, ("line 2", "--quoting none")),
    "lines with a comma in a cell": (
        "a.csv", table([('"Hi team,\nplease call', 'x"'), ("b", "y")]).replace(',x"', '",x'), {},
        [("Hi team,\nplease call", "x"), ("b", "y")]),
    "a greeting of two cells' width": (
        "a.csv", 'text,label\n"Hello, world\nbye",good\n' + "fine,good\nawful,bad\n", {},
        [("Hello, world\nbye", "good"), ("fine", "good"), ("awful", "bad")]),
    "a quote that stays open": ("a.csv", table(PLAIN) + '"never closed,pos\nx,neg\n', {},
        ("line 42", "unexpected end", "--quoting none")),
    # Escapes.
    "backslashes before quotes": (
        "a.csv", 'text,label\n"He said \\"fine\\", then left",pos\nb,neg\n', {},
        ("line 2", "--escape '\\'")),
    "backslashes before quotes, as escapes": (
        "a.csv", 'text,label\n"He said \\"fine\\", then left",pos\n"C:\\new\\\\x",neg\n',
        {"escape": "\\"}, [('He said "fine", then left', "pos"), ("C:\\new\\x", "neg")]),
    "backslashes before separators": (
        "a.csv", "text,label\na\\, b,pos\nc,neg\n", {}, ("--escape",)),
    "backslashes before separators, without quotes": (
        "a.csv", 'text,label\na\\, "b,pos\nc\\d,neg\n', {"escape": "\\", "quoting": "none"},
        [('a, "b', "pos"), ("c\\d", "neg")]),
    # Line ends.
    "a lone carriage return": (
        "a.csv", table(PLAIN) + "good start\r rest,pos\n", {}, ("line 42", "carriage return")),
    "a lone carriage return, as it is": (
        "a.csv", "text,label\ngood start\r rest,pos\nb,neg\n", {"quoting": "none"},
        [("good start\r rest", "pos"), ("b", "neg")]),
    "a lone carriage return in quotes": (
        "a.csv", 'text,label\n"good start\r rest",pos\nb,neg\n', {},
        [("good start\r rest", "pos"), ("b", "neg")]),
    "lines that end in carriage returns": (
        "a.csv", table(PLAIN).replace("\n", "\r"), {}, ("line 1", "carriage return")),
    "line ends of both kinds": ("a.csv", "text,label\r\na,x\nb,y\r\nc,x", {},
        [("a", "x"), ("b", "y"), ("c", "x")]),
    "line ends written twice": (
        "a.csv", "text,label\r\r\na,x\r\r\nb,y\r\r\n", {}, [("a", "x"), ("b", "y")]),
    "Unicode's own line ends": (
        "a.csv", "text,label\na\u2028b\x85c\x0bd,x\ne,y\n", {},
        [("a\u2028b\x85c\x0bd", "x"), ("e", "y")]),
    # Encodings.
    "UTF-16 with a mark": ("a.csv", table(PLAIN).encode("utf-16"), {}, PLAIN),
    "UTF-16 without": ("a.csv", table(PLAIN).encode("utf-16-be"), {}, ("--encoding utf-16-be",)),
    "UTF-16 without, named": (
        "a.csv", table(PLAIN).encode("utf-16-be"), {"encoding": "utf-16-be"}, PLAIN),
    "UTF-32 with a mark": ("a.tsv", table(PLAIN, "\t").encode("utf-32"), {}, PLAIN),
    "Latin-1": ("a.csv", table([*PLAIN, ("déjà vu", "pos")]).encode("latin-1"), {},
        ("line 42", "0xe9", "--encoding cp1252")),
    "Latin-1, named": (
        "a.csv", table([("déjà vu", "pos"), ("b", "neg")]).encode("latin-1"),
        {"encoding": "latin-1"}, [("déjà vu", "pos"), ("b", "neg")]),
    "Windows' quotes, named": (
        "a.csv", table([("don’t", "pos"), ("b", "neg")]).encode("cp1252"), {"encoding": "cp1252"},
        [("don’t", "pos"), ("b", "neg")]),
    "Japanese, named": (
        "a.csv", table([("とても良い", "pos"), ("b", "neg")]).encode("shift_jis"),
        {"encoding": "shift_jis"}, [("とても良い", "pos"), ("b", "neg")]),
    "JSONL with a mark": (
        "a.jsonl", b"\xef\xbb\xbf" + objects({"text": "a", "label": "x"}).encode(), {},
        [("a", "x")]),
    "JSONL in UTF-16": (
        "a.jsonl", objects({"text": "é", "label": "x"}).encode("utf-16"), {}, [("é", "x")]),
    "UTF-16 without a mark, not all Latin": (
        "a.txt", "\u201cHello\u201d he said\nfine\n".encode("utf-16-le"), {},
        ("--encoding utf-16-le",)),
    "UTF-32 without a mark": (
        "a.csv", table(PLAIN).encode("utf-32-be"), {}, ("--encoding utf-32-be",)),
    "a mark twice": ("a.csv", b"\xef\xbb\xbf" * 2 + table(PLAIN).encode(), {}, PLAIN),
    "a mark twice in JSONL": (
        "a.jsonl", b"\xef\xbb\xbf" * 2 + objects({"text": "a", "label": "x"}).encode(), {},
        [("a", "x")]),
    "a mark that is not the file's encoding": (
        "a.csv", b"\xff\xfe" + table(PLAIN).encode(), {}, ("--encoding",)),
    # Separators and headers.
    "semicolons": ("a.csv", table(PLAIN, ";"), {}, ("'text;label'", "--separator semicolon")),
    "semicolons, named": ("a.csv", table(PLAIN, ";"), {"separator": "semicolon"}, PLAIN),
    "tabs in .csv": ("a.csv", table(PLAIN, "\t"), {}, ("--separator tab",)),
    "tabs in .csv, named": ("a.csv", table(PLAIN, "\t"), {"separator": "tab"}, PLAIN),
    "bars": ("a.csv", table(PLAIN, "|"), {"separator": "|"}, PLAIN),
    "names in capitals": (
        "a.csv", table(PLAIN, header="Text,Label"), {}, ("--text-column 'Text'",)),
    "space around names": (
        "a.csv", "label, text\nx, a\n", {}, ("--text-column ' text'", "'label', ' text'")),
    "a name twice": ("a.csv", "text,label,text\na,x,b\n", {}, ("'text' comes twice",)),
    "no header": ("a.csv", "lovely,pos\nawful,neg\n", {}, ("no column 'text'", "'lovely', 'pos'")),
    "files put together": ("a.csv", table(PLAIN[:3]) * 2, {}, ("line 5", "header again")),
    "files with marks put together": (
        "a.csv", ("\ufeff" + table(PLAIN[:3])) * 2, {}, ("line 5", "header again")),
    "Excel's note of the separator": (
        "a.csv", "sep=;\n" + table(PLAIN, ";"), {"separator": ";"}, ("line 1", "--separator")),
    "a cell too many": ("a.csv", "text,label\na, b,x\n", {}, ("line 2", "3 cells")),
    "a cell too few": ("a.csv", "text,label\na,x\nb\n", {}, ("line 3", "1 cells")),
    # Nulls.
    "nulls": ("a.jsonl", objects({"text": "a", "label": "x"}, {"text": None, "label": "x"}), {},
        ("line 2", "--missing skip")),
    "nulls, passed over": (
        "a.jsonl",
        objects({"label": "x"}, {"text": "a", "label": "x"}, {"text": None, "label": "x"}),
        {"missing": "skip"}, [("a", "x")]),
    "nulls, as empty": (
        "a.jsonl", objects({"text": "a", "label": "x"}, {"label": "x"}), {"missing": "empty"},
        [("a", "x"), ("", "x")]),
    "NaN": ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": NaN, "label": "x"}\n',
        {"missing": "skip"}, [("a", "x")]),
    "no text anywhere": ("a.jsonl", objects({"body": "a"}, {"title": "b"}), {"missing": "skip"},
        ("no column 'text'", "'body', 'title'")),
    "words for null are words": ("a.csv", "text,label\nNA,null\nnull,None\n", {},
        [("NA", "null"), ("null", "None")]),
    # Types.
    "numbers for texts": ("a.jsonl", objects({"text": 5, "label": "x"}), {}, ("line 1", "is int")),
    "lists for texts": ("a.jsonl", objects({"text": ["a"]}), {}, ("line 1", "is list")),
    "whole numbers": (
        "a.jsonl", objects(*({"text": "a", "label": v} for v in (1, 2.0, "3", True, 1.5))), {},
        [("a", "1"), ("a", "2"), ("a", "3"), ("a", "True"), ("a", "1.5")]),
    # Containers.
    "JSON with old line ends": ("a.jsonl", '{"text": "a"}\r{"text": "b"}', {}, ("line 1", "tr ")),
    "a number of 5,000 digits": (
        "a.jsonl", '{"text": "a", "n": ' + "1" * 5000 + "}", {}, ("line 1", "4300 digits")),
    "a list of objects": ("a.json", json.dumps([{"text": "a"}]), {}, ("line 1", "jq -c '.[]'")),
    "printed over lines": ("a.json", json.dumps([{"text": "a"}], indent=1), {}, ("line 1", "jq")),
    "an Excel file": ("a.csv", b"PK\x03\x04\x14\0", {}, ("zip archive", "as CSV")),
    "packed with zstd": ("a.csv", b"\x28\xb5\x2f\xfd\0", {}, ("zstd",)),
    "a Parquet file named .csv": ("a.csv", b"PAR1\x15\x04", {}, ("--format parquet",)),
    "packed twice": ("a.csv.gz", gzip.compress(gzip.compress(b"text\n")), {}, ("packed twice",)),
    "packed with xz": ("a.csv.xz", lzma.compress(b"text\n"), {"format": "csv"}, ("xz -d",)),
    "packed with bzip2": ("a.csv", bz2.compress(b"text\n"), {}, ("bzip2 -d",)),
    "not packed, but for its name": ("a.csv.gz", table(PLAIN), {}, ("copy or rename",)),
    "packed in parts": (
        "a.csv.gz", gzip.compress(b"text,label\na,x\n") + gzip.compress(b"b,y\n"), {},
        [("a", "x"), ("b", "y")]),
    "packed, and something behind": (
        "a.csv.gz", gzip.compress(b"text,label\na,x\n") + b"more", {}, ("not a whole gzip",)),
    "an unknown ending": ("a.xls", b"", {}, ("'.xls'", "--format")),
    "an unknown ending, named": ("a.data", table(PLAIN), {"format": "csv"}, PLAIN),
    "nothing": ("a.csv", b"", {}, ("is empty",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_is_read_or_refused_alike_by_training_and_prediction(
    name: str, tmp_path: Path
) -> None:
    file, content, options, expected = CASES[name]
    path = tmp_path / file
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = same(path, ReadOptions(**options))
    if isinstance(expected, list):
        assert found == expected
    else:
        assert isinstance(found, str), found
        assert str(path) in found
        for part in expected:
            assert part in found


def test_rows_of_numbers_in_a_stray_quote_are_found_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(NUMBERED)
    with pytest.raises(DataError, match=r"line 11 .*--quoting none"):
        read_texts(path)
    texts, note = read_texts(path, ReadOptions(quoting="double"))
    assert texts[-1] == "open\n11,on\n12,5"
    assert note == "2 lines inside quoted cells"


def test_one_column_cannot_hold_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(PLAIN))
    for options, column in ((ReadOptions("label"), None), (ReadOptions(), "text")):
        with pytest.raises(DataError, match="would hold texts and labels; name two columns"):
            read_rows("task", path, options, column)


def test_a_text_too_large_is_what_one_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table([*PLAIN, ("é" * 700_000, "pos")]))
    assert "line 42: its text has 1,400,000 bytes" in (told := same(path))
    assert "--too-long cut" in told
    assert same(path, ReadOptions(too_long="skip")) == PLAIN
    assert same(path, ReadOptions(too_long="cut"))[-1] == ("é" * 524_288, "pos")
    assert read_texts(path, ReadOptions(too_long="cut"))[1] == "1 text too long was cut"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"separator": "ab"}, "--separator is 'ab'"),
        ({"separator": '"'}, "no quote"),
        ({"escape": "\n"}, "--escape"),
        ({"separator": ";", "escape": ";"}, "choose two"),
        ({"encoding": "klingon"}, "unknown encoding: klingon"),
        ({"encoding": "rot13"}, "not a text encoding"),
    ],
)
def test_options_that_make_no_sense_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        ReadOptions(**options)


COLUMNS = {
    "strings": pa.array(["a", "b"], pa.string()),
    "large strings": pa.array(["a", "b"], pa.large_string()),
    "views": pa.array(["a", "b"], pa.string_view()),
    "binary": pa.array([b"a", b"b"], pa.binary()),
    "large binary": pa.array([b"a", b"b"], pa.large_binary()),
    "fixed binary": pa.array([b"a", b"b"], pa.binary(1)),
    "a dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "a dictionary of binary": pa.array([b"a", b"b"]).dictionary_encode(),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_texts_and_labels_of_every_string_type_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": COLUMNS[name], "label": COLUMNS[name]}), path)
    rows = read_rows("task", path)
    assert (rows.texts, rows.labels) == (("a", "b"), ("a", "b"))


def test_bytes_of_another_encoding_are_told_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [b"a", "é".encode("latin-1")], "label": [b"x", b"y"]}), path)
    with pytest.raises(DataError, match=r"row 2: 'text' holds bytes .*--encoding"):
        read_rows("task", path)
    assert read_rows("task", path, ReadOptions(encoding="latin-1")).texts == ("a", "é")


LABELS: dict[str, tuple[Any, Any]] = {
    "whole numbers": (pa.array([1, 0, None], pa.int8()), ("1", "0")),
    "numbers": (pa.array([1.0, 0.5, float("nan")]), ("1", "0.5")),
    "truth": (pa.array([True, False, None]), ("True", "False")),
    "days": (pa.array([datetime.date(2026, 1, 2), None, None]), ("2026-01-02",)),
    "decimals": (pa.array([decimal.Decimal("1.50"), None, None]), ("1.50",)),
    "lists": (pa.array([["a"], ["b", "c"], None]), (("a",), ("b", "c"))),
    "structures": (pa.array([{"a": 1}, None, None]), "row 1: 'label' is of type dict"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_other_types_are_told_apart_or_refused(name: str, tmp_path: Path) -> None:
    values, expected = LABELS[name]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": values}), path)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_rows("task", path)
    else:
        assert read_rows("task", path).labels == expected


def test_lists_of_labels_are_several_labels_unless_one_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(objects({"text": "a", "label": "x"}, {"text": "b", "label": ["x", "y"]}))
    rows = read_rows("task", path)
    assert (rows.kind, rows.labels) == ("multi", (("x",), ("x", "y")))
    wrong = r"line 2: 'label' is a list \('x, y'\).*one label a text; pass --kind task=multi"
    with pytest.raises(DataError, match=wrong):
        read_rows("task", path, labels=LabelOptions(kind="single"))


def test_strings_that_are_not_utf8_are_told_as_bytes_are(tmp_path: Path) -> None:
    offsets, data = np.array([0, 2, 4, 6], np.int32), b"aa\xff\xfecc"
    strings = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(data))
    good = pa.array(["x", "y", "z"])
    for columns in ({"text": strings, "label": good}, {"text": good, "label": strings}):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table(columns), path)
        for source in (path, pa.table(columns)):
            with pytest.raises(DataError, match=r"row 2: '(text|label)' holds bytes .*--encoding"):
                read_rows("task", source)
    assert read_rows("task", path, ReadOptions(encoding="latin-1")).labels == ("aa", "ÿþ", "cc")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[10**8], [1], [2]], pa.list_(pa.date32())),
        pa.array([10**8, 1, 2], pa.date32()),
        pa.array([1, 2, 3], pa.duration("us")),
        pa.array([1, 2, 3], pa.timestamp("us", "Foo/Bar")),
    ],
    ids=["lists of days", "days out of range", "durations", "an unknown time zone"],
)
def test_values_that_cannot_be_told_are_refused(values: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": values}), path)
    with pytest.raises(DataError, match="column 'label' is of type"):
        read_rows("task", path)


def test_a_damaged_arrow_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    whole = pa.table({"text": [f"text {i}" for i in range(150)], "label": ["x"] * 150})
    with pa.ipc.new_file(str(path), whole.schema) as out:
        out.write_table(whole)
    data = path.read_bytes()
    for start in range(300, 1100, 100):
        path.write_bytes(data[:start] + b"\xff" * 80 + data[start + 80 :])
        same(path)  # read or refused, by both, without a crash


def test_classes_that_do_not_fit_their_names_are_told() -> None:
    about = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    schema = {b"huggingface": json.dumps(about).encode()}

    def labels(values: list[Any]) -> tuple[str, ...]:
        frame = pa.table({"text": ["a", "b"], "label": values}).replace_schema_metadata(schema)
        return read_rows("task", frame).labels

    assert labels([0, 1]) == ("no", "yes")
    assert labels(["yes", "no"]) == ("yes", "no")
    with pytest.raises(DataError, match="has the class 7, and its schema names 2"):
        labels([7, 0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for byte in table(PLAIN).encode("utf-16"):  # its mark in two parts
                file.write(bytes([byte]))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    rows = read_rows("task", path, ReadOptions(format="csv"))
    assert list(zip(rows.texts, rows.labels, strict=True)) == PLAIN
    writer.join(timeout=10)


FRAME = {"text": ["a", None, "c"], "label": ["x", "y", None], "n": [1, 2, 3]}


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(FRAME),
        pd.DataFrame(FRAME, index=["text", "text", "c"]).astype({"label": "category"}),
        pl.DataFrame(FRAME),
        pa.table(FRAME),
        pa.table(FRAME).to_reader(),
        FRAME,
    ],
    ids=["pandas", "pandas with categories", "Polars", "Arrow", "Arrow's reader", "columns"],
)
def test_data_frames_are_taken_as_they_are(frame: Any) -> None:
    rows = read_rows("task", frame, ReadOptions(missing="skip"))
    assert (rows.texts, rows.labels) == (("a",), ("x",))
    assert rows.note == (
        "1 row without a text was passed over; 1 row without a label was passed over"
    )
    assert len(rows.source["sha256"]) == 64


def test_a_data_set_is_taken_with_its_labels_names_and_its_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    whole = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, kinds)
    rows = read_rows("task", whole.select([2, 1, 0]))
    assert (rows.texts, rows.labels) == (("b", "a"), ("yes", "no"))
    # The names are in the file's schema, too: the file means what the data set does.
    whole.to_parquet(str(tmp_path / "a.parquet"))
    assert read_rows("task", tmp_path / "a.parquet").labels == ("no", "yes")
    with pytest.raises(DataError, match="give one of train, test"):
        read_rows("task", datasets.DatasetDict({"train": whole, "test": whole}))


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (pd.DataFrame({"body": ["a"]}), "no column 'text'; it has 'body'"),
        (pd.DataFrame({"text": ["a", 5]}), "one type"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "text"),
        (pd.DataFrame({"text": [1, 2]}), "type int64; expected strings"),
        (pl.LazyFrame(FRAME), "expected a file or a data frame"),
        (np.array(["a"]), "expected a file or a data frame"),
        (pd.Series(["a"]), "Series cannot be read as columns"),
        ("a\0b.csv", "cannot read"),
        (5, "got int"),
    ],
)
def test_frames_that_cannot_be_used_say_why(frame: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_rows("task", frame)


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_and_streams_are_read(stream: bool, tmp_path: Path) -> None:
    whole = pa.table({"text": [f"text {i}" for i in range(3000)], "label": ["x", "y"] * 1500})
    path = tmp_path / "a.arrow"
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(path), whole.schema) as out:
        out.write_table(whole, max_chunksize=7)
    assert same(path) == list(zip(whole["text"].to_pylist(), ["x", "y"] * 1500, strict=True))
    path.write_bytes(path.read_bytes()[:-900])
    assert "cannot" in same(path) or "not a" in same(path)


# Labels.


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("don\x92t like", "'\\\\x92' .*--encoding cp1252"),
        ("very\nbad", "control character '\\\\n'"),
        ("good\x85", "'\\\\x85'"),
        ("a\u2028b", "u2028"),
        ("\0", "control character"),
        ("a\x1bb", "control character"),
    ],
)
def test_a_label_with_a_control_character_is_refused_at_once(
    label: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(objects({"text": "a", "label": "fine"}, {"text": "b", "label": label}))
    with pytest.raises(DataError, match=f"line 2: 'label' is .*{told}"):
        read_rows("task", path)


def test_one_label_in_several_spellings_is_one_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table([("a", "café"), ("b", "cafe\u0301"), ("c", " café\u00a0"), ("d", "x")]))
    rows = read_rows("task", path)
    assert rows.labels == ("café", "café", "café", "x")
    assert rows.note is not None
    assert rows.note.startswith("1 label written in several ways")
    assert read_rows("task", path, known=["cafe\u0301", "x"]).labels[0] == "cafe\u0301"


def test_a_label_that_only_looks_known_is_told_from_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table([("a", "spam"), ("b", "sp\u0430m")]))
    with pytest.raises(DataError, match=r"line 3 has the label .* it looks like 'spam'"):
        read_rows("task", path, known=["ham", "spam"])


Train = Callable[..., list[str]]


@pytest.fixture
def train(tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Train on a file with options; returns the notes."""

    def run(file: Path, *options: str) -> list[str]:
        out = str(tmp_path / "out")
        command = ["train", "--backbone", str(tiny_backbone), "--epochs", "1", "--out", out]
        assert main([*command, "--task", f"t={file}", "--overwrite", *options]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]

    return run


def labels_in(folder: Path) -> tuple[str, ...]:
    return load_checkpoint(folder).tasks[0].labels


def test_labels_that_look_alike_are_noted(train: Train, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    alike = ["spam", "spam\u200b", "Spam", "ham"]
    path.write_text(table([(f"text {i}", alike[i % 4]) for i in range(40)]))
    (note,) = train(path)
    assert "'Spam' and 'spam'" in note
    assert "'Spam' and 'spam\\u200b' look alike" in note


def test_whole_numbers_are_in_number_order_and_an_order_may_be_given(
    train: Train, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table([(f"text {i}", str(i % 12)) for i in range(96)]))
    train(path)
    assert labels_in(tmp_path / "out") == tuple(map(str, range(12)))
    levels = ["low", '"mid, so so"', "high"]
    path.write_text(table([(f"text {i}", levels[i % 3]) for i in range(60)]))
    train(path, "--labels", 't=low,"mid, so so",high')
    assert labels_in(tmp_path / "out") == ("low", "mid, so so", "high")


def test_an_order_that_does_not_fit_is_told(
    tmp_path: Path, tiny_backbone: Path, fails: Callable[..., str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(PLAIN))
    command = ("train", "--backbone", tiny_backbone, "--out", tmp_path / "out", "--task")
    given = (*command, f"t={path}", "--labels")
    assert "line 2 has the label 'neg'" in fails(*given, "t=pos,other")
    assert "'other' is in one of" in fails(*given, "t=pos,neg,other")
    assert "two or more labels" in fails(*given, "t=pos")
    assert "two or more labels" in fails(*given, "t=pos,pos")
    assert "as bad,good" in fails(*given, "t=po\ns,neg")
    assert "no such task" in fails(*given, "u=pos,neg")


def test_a_later_run_keeps_the_order_of_the_labels(train: Train, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(PLAIN))
    train(path, "--labels", "t=pos,neg")
    (tmp_path / "out").rename(tmp_path / "first")
    command = ["train", "--extend", str(tmp_path / "first"), "--task", f"t={path}"]
    assert main([*command, "--epochs", "1", "--out", str(tmp_path / "second")]) == 0
    assert labels_in(tmp_path / "second") == ("pos", "neg")


def test_what_is_passed_over_is_told_once_by_reason(train: Train, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows: list[Any] = [{"text": t, "label": v} for t, v in PLAIN]
    rows += [{"text": None, "label": "pos"}] * 20 + [{"label": "pos"}] * 5
    path.write_text(objects(*rows, {"text": "a", "label": None}) + "\n\n")
    (note,) = train(path, "--missing", "skip")
    assert note == (
        f"note: task t: {path}: 2 blank lines; 25 rows without a text were passed over; "
        "1 row without a label was passed over"
    )


def test_every_command_reads_a_file_by_the_same_options(
    checkpoint: Path, shared_bundle: Path, tiny_backbone: Path, tmp_path: Path,
    fails: Callable[..., str], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";")
    writer.writerow(["Kommentar", "Urteil"])
    writer.writerows((f"schöner Text {i}", ["negative", "positive"][i % 2]) for i in range(60))
    path = tmp_path / "a.csv"
    path.write_bytes(out.getvalue().encode("cp1252"))
    reading = ["--text-column", "Kommentar", "--encoding", "cp1252", "--separator", ";"]
    task, columns = f"sentiment={path}", ["--label-column", "Urteil"]
    new = str(tmp_path / "new")
    commands: list[tuple[list[Any], list[Any]]] = [
        (["predict", shared_bundle, "--file", path], []),
        (["predict", shared_bundle, "--file", path, "--out", f"{new}.csv"], []),
        (["train", "--backbone", tiny_backbone, "--epochs", "1", "--task", task,
          "--dev", task, "--out", f"{new}-train"], columns),
        (["study", "--backbone", tiny_backbone, "--epochs", "1", "--task", task,
          "--scenarios", "frozen", "--out", f"{new}-study"], columns),
        (["bench", shared_bundle, "--data", task, "--texts", path, "--quick"], columns),
        (["export", checkpoint, "--calibration", path, "--vocabulary", path,
          "--targets", "onnx-int8", "--out", f"{new}-bundle"], []),
    ]  # fmt: skip
    for command, more in commands:
        assert "--encoding" in fails(*command, *more)
        assert "--separator semicolon" in fails(*command, *more, "--encoding", "cp1252")
        assert main([*map(str, command), *more, *reading]) == 0, command
        capsys.readouterr()


def test_a_typed_error_is_what_callers_of_any_kind_expect(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na,b\n")
    for error in (MtlEdgeError, ValueError):
        with pytest.raises(error, match="line 2"):
            read_texts(path)
