"""The command under figures can be run elsewhere, and tells nothing of this machine's folders."""

from __future__ import annotations

import pytest

from mtl_edge.benchmarks.shown import shown


def test_folders_of_one_machine_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/home/me/data")
    given = ["/home/me/bundle", "--task", "a=/home/me/data/a.csv", "--only", "tf-idf words"]
    given += ["--out", "benchmarks/results", "--train=/home/me/b.csv"]
    assert shown("exits", given) == (
        "python -m mtl_edge.benchmarks.exits bundle --task a=$DATA/a.csv --only 'tf-idf words' "
        "--out benchmarks/results --train=b.csv"
    )
    monkeypatch.delenv("DATA")
    assert shown("peers", ["--dev", "t=/x/dev.csv"]).endswith("peers --dev t=dev.csv")


def test_without_arguments_those_of_the_process_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["peers", "--rounds", "3"])
    assert shown("peers", None) == "python -m mtl_edge.benchmarks.peers --rounds 3"
