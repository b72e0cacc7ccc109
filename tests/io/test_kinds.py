"""Labels as people have them: several in a cell or a column each, probabilities, numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labelled import Rows, read_rows
from mtl_edge.io.labels import SoftLabel


def csv_of(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, **how: object) -> Rows:
    return read_rows("task", path, labels=LabelOptions(**how))  # type: ignore[arg-type]


def test_several_labels_in_a_cell_are_parted_as_asked(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "text,label", "a,joy|fear", "b,joy", "c,joy | joy")
    assert read(path).kind == "single"
    rows = read(path, separator="|")
    assert (rows.kind, rows.labels) == ("multi", (("joy", "fear"), ("joy",), ("joy",)))


def test_lists_in_cells_are_lists(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "text,label", """a,"[""joy"", ""fear""]\"""", "b,['joy']", "c,[]", "d,")
    rows = read(path, kind="multi")
    assert rows.labels == (("joy", "fear"), ("joy",), ())
    assert rows.note == "1 row without a label was passed over"


def test_lists_that_frames_and_files_hold_are_lists(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": [["joy"], ["joy", "fear"]]})
    frame.to_parquet(tmp_path / "rows.parquet")
    for source in (frame, tmp_path / "rows.parquet"):
        rows = read_rows("task", source)
        assert (rows.kind, rows.labels) == ("multi", (("joy",), ("joy", "fear")))


def test_a_column_a_label_is_several_labels_or_one(tmp_path: Path) -> None:
    several = csv_of(tmp_path, "text,is_joy,is_fear", "a,1,0", "b,1,1", "c,0,0", "d,true,no", "e,,")
    rows = read(several, columns="is_*")
    assert rows.kind == "multi"
    assert rows.labels == (("joy",), ("joy", "fear"), (), ("joy",))
    one = csv_of(tmp_path, "text,joy,fear", "a,1,0", "b,0,1")
    assert read(one, columns="joy,fear").labels == ("joy", "fear")
    assert read(one, columns="joy,fear", kind="multi").labels == (("joy",), ("fear",))


def test_probabilities_teach_alone_or_beside_labels(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "text,p_joy,p_fear,label", "a,.7,.3,joy", "b,.5,.5,", "c,,,fear")
    alone = read(path, columns="p_*").labels
    assert alone == (SoftLabel(("joy", "fear"), (0.7, 0.3)), SoftLabel(("joy", "fear"), (0.5, 0.5)))
    beside = read(path, columns="p_*", column="label").labels
    assert isinstance(beside[0], SoftLabel)
    assert beside[0].shares == pytest.approx((0.85, 0.15))
    assert beside[2] == "fear"


def test_logits_become_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "joy": 2.0, "fear": -2.0}) + "\n")
    (one,) = read(path, columns="joy,fear", logits=True).labels
    (each,) = read(path, columns="joy,fear", logits=True, kind="multi").labels
    assert isinstance(one, SoftLabel)
    assert isinstance(each, SoftLabel)
    assert one.shares == pytest.approx((0.982, 0.018), abs=1e-3)
    assert each.shares == pytest.approx((0.881, 0.119), abs=1e-3)


@pytest.mark.parametrize(
    ("lines", "how", "wrong"),
    [
        (["a,.7,.7"], {"columns": "joy,fear"}, "line 2: .* sum to 1.4, expected 1; .*--logits"),
        (["a,3,-1"], {"columns": "joy,fear"}, "line 2 has -1 to 3 .*pass --logits task"),
        (["a,x,1"], {"columns": "joy,fear"}, "line 2: the column of label 'joy' holds 'x'"),
        (["a,1,"], {"columns": "joy,fear"}, "line 2: the column of label 'fear' holds ''"),
        (["a,1,0"], {"columns": "joy,anger"}, "names 'anger', which is not there; there are text"),
        (["a,1,0"], {"columns": "q_*"}, "fits no two columns"),
        (
            ["a,high,0"],
            {"column": "joy", "kind": "score"},
            "line 2: 'joy' is 'high', and a task of",
        ),
        (["a,inf,0"], {"column": "joy", "kind": "score"}, "line 2: 'joy' is 'inf'"),
    ],
)
def test_labels_that_make_no_sense_are_refused_with_their_line(
    tmp_path: Path, lines: list[str], how: dict[str, str], wrong: str
) -> None:
    with pytest.raises(DataError, match=wrong):
        read(csv_of(tmp_path, "text,joy,fear", *lines), **how)


@pytest.mark.parametrize(
    "how",
    [{"logits": True}, {"separator": ",", "kind": "score"}, {"columns": "a,b", "kind": "score"},
     {"columns": "*_*"}],
)  # fmt: skip
def test_options_of_labels_that_do_not_fit_together_are_refused(how: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        LabelOptions(**how)  # type: ignore[arg-type]


def test_numbers_with_fractions_are_a_score_and_whole_ones_are_names(tmp_path: Path) -> None:
    scores = read(csv_of(tmp_path, "text,label", *(f"t{i},{i / 8}" for i in range(20))))
    assert (scores.kind, scores.labels[:2]) == ("score", (0.0, 0.125))
    marks = csv_of(tmp_path, "text,label", *(f"t{i},{i % 5}" for i in range(20)))
    assert read(marks).kind == "single"
    assert read(marks, kind="score").labels[:3] == (0.0, 1.0, 2.0)
