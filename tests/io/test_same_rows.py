"""A file gives the same rows to training and to prediction, or the same refusal to both."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import texts_of
from mtl_edge.io.labelled import read_rows, read_texts
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import open_table

SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def for_training(path: Path, options: ReadOptions = ReadOptions()) -> tuple[list[Any], str | None]:
    """Texts and labels, and the note; labels of "" are those of rows that are passed over."""
    rows = read_rows("task", path, options)
    return list(zip(rows.texts, rows.labels, strict=True)), rows.note


def for_prediction(path: Path, options: ReadOptions = ReadOptions()) -> list[tuple[Any, Any]]:
    """Texts that are answered, as `predict` takes them, beside the labels of the same rows."""
    found = []
    with open_table(path, options) as table:
        for chunk in table.chunks:
            texts = texts_of(table, chunk, options)
            labels = chunk.values("label")
            found += [pair for pair in zip(texts, labels, strict=True) if pair[0] is not None]
    return found


def same(path: Path, options: ReadOptions = ReadOptions()) -> list[tuple[str, str]] | str:
    """What both see: rows, or what both are told."""
    try:
        taught, _ = for_training(path, options)
    except DataError as error:
        told = str(error)
        if "no labelled row" in told or "has no rows" in told or "label' is" in told:
            return told  # labels are of no concern to prediction
        with pytest.raises(DataError) as caught:
            for_prediction(path, options)
        assert str(caught.value) == told
        with pytest.raises(DataError) as caught:
            read_texts(path, options)
        assert str(caught.value) == told
        return told
    asked = for_prediction(path, options)
    texts, _ = read_texts(path, options)
    assert texts == [text for text, _ in asked]
    labelled = [text for text, label in asked if label is not None and str(label).strip()]
    assert labelled == [text for text, _ in taught]
    return taught


# Characters that formats give a meaning to, and what lies beside them in Unicode.
CHARACTERS = st.sampled_from(
    [*"ab,;\t\"'\\|\n\r\0 {}[]:#é😀", "\u2028", "\x85", "\u200b", "\ufeff", "\x1c"]
)
TEXT = st.text(CHARACTERS, max_size=12)
LABEL = st.one_of(st.sampled_from(["good", "bad", "10", "2", "né", ""]), st.none())
ROWS = st.lists(st.tuples(TEXT, LABEL), min_size=1, max_size=8)


def written(rows: list[tuple[Any, Any]], path: Path, **dialect: Any) -> None:
    kind = path.suffix
    if kind in (".parquet", ".arrow"):
        table = pa.table(
            {"text": [t for t, _ in rows], "label": pa.array([v for _, v in rows], pa.string())}
        )
        if kind == ".parquet":
            pq.write_table(table, path, row_group_size=3)
        else:
            feather.write_feather(table, str(path))
        return
    out = io.StringIO(newline="")
    if kind == ".jsonl":
        out.writelines(json.dumps({"text": t, "label": v}) + "\n" for t, v in rows)
    else:
        separator = dialect.pop("separator", "\t" if kind == ".tsv" else ",")
        ends = dialect.pop("ends", "\r\n")
        # With "\n" the csv module would leave a lone "\r" without quotes.
        quoting = csv.QUOTE_ALL if ends == "\n" else csv.QUOTE_MINIMAL
        writer = csv.writer(out, delimiter=separator, lineterminator=ends, quoting=quoting)
        writer.writerows([("text", "label"), *((t, v or "") for t, v in rows)])
    path.write_bytes(out.getvalue().encode(dialect.pop("encoding", "utf-8")))


@SETTINGS
@given(rows=ROWS, kind=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ".arrow"]))
def test_what_was_written_is_what_training_and_prediction_read(
    rows: list[tuple[str, str | None]], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{kind}"
    written(rows, path)
    expected = [(text, label) for text, label in rows if label]
    found = same(path, ReadOptions(quoting="double"))
    if expected:
        assert found == expected
    else:
        assert "no labelled row" in found


@SETTINGS
@given(
    rows=st.lists(
        st.tuples(st.text(CHARACTERS, min_size=1, max_size=9), st.sampled_from("xy")), min_size=1
    ),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_separators_marks_and_line_ends_change_nothing(
    rows: list[tuple[str, str]], separator: str, encoding: str, ends: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    written(rows, path, separator=separator, encoding=encoding, ends=ends)
    given_ = encoding if encoding.startswith("utf-16-") else None
    options = ReadOptions(separator=separator, encoding=given_, quoting="double")
    assert same(path, options) == rows


@SETTINGS
@given(data=st.text(CHARACTERS, max_size=60), kind=st.sampled_from(["csv", "tsv", "jsonl", "json"]))
@pytest.mark.parametrize("quoting", ["none", "double", None])
def test_whatever_stands_in_a_file_both_see_the_same_or_are_told_the_same(
    data: str, kind: str, quoting: Any, tmp_path: Path
) -> None:
    header = {"csv": "text,label\n", "tsv": "text\tlabel\n"}.get(kind, "")
    path = tmp_path / f"rows.{kind}"
    path.write_bytes((header + data).encode())
    same(path, ReadOptions(quoting=quoting))


@SETTINGS
@given(
    rows=st.lists(
        st.tuples(st.one_of(st.none(), TEXT, st.integers(), st.lists(TEXT)), LABEL), min_size=1
    ),
    missing=st.sampled_from(["error", "skip", "empty"]),
)
def test_nulls_types_and_nesting_mean_the_same_to_both(
    rows: list[tuple[Any, str | None]], missing: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in rows))
    same(path, ReadOptions(missing=missing))


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl.gz"])
def test_packed_files_are_read_whatever_their_name(name: str, tmp_path: Path) -> None:
    plain = tmp_path / name.removesuffix(".gz")
    written([("a, b", "x"), ("c", "y")], plain)
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert same(path) == [("a, b", "x"), ("c", "y")]
