"""Tables that stay aligned whatever is in them."""

from __future__ import annotations

from mtl_edge.table import clip, markdown_table, text_table


def test_columns_align_with_wide_and_control_characters() -> None:
    table = text_table(["name", "n"], [["中文", "1"], ["a\x1b[2J", "10"], ["e\u0301", "200"]])
    assert table.splitlines() == [
        "name     n",
        "-----  ---",
        "中文     1",
        "a�[2J   10",
        "e\u0301      200",
    ]


def test_numbers_stand_at_the_right() -> None:
    lines = text_table(["name", "ms"], [["a", "1.25"], ["b", "100.50"]]).splitlines()
    assert lines[2].endswith("   1.25")
    assert lines[3].endswith("100.50")


def test_markdown_escapes_bars_and_line_breaks() -> None:
    assert markdown_table(["a\nb"], [["x"]]).splitlines() == ["| a b |", "| --- |", "| x |"]
    assert markdown_table(["a|b"], [["1"]]).splitlines() == ["| a\\|b |", "| ---: |", "| 1 |"]


def test_long_text_is_clipped_to_one_line() -> None:
    assert clip("short", 10) == "short"
    assert clip("two\nlines", 20) == "two lines"
    assert clip("x" * 50, 10) == "x" * 9 + "…"
    assert clip("x" * 100_000, 10) == "x" * 9 + "…"
    assert len(clip("中" * 50, 10)) <= 6
