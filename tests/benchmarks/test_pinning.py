"""What is measured keeps to its cores, and its command can be run elsewhere."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtl_edge.benchmarks.core import machine
from mtl_edge.benchmarks.core.machine import command_line, free_cores, pinned

pins = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not pin")


@pins
def test_threads_that_are_started_within_have_the_same_cores_and_the_process_all_again() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores, ThreadPoolExecutor(1) as pool:
        assert len(cores) == 1
        assert pool.submit(os.sched_getaffinity, 0).result() == {*cores}
    assert os.sched_getaffinity(0) == before


@pins
def test_more_threads_than_cores_may_use_all() -> None:
    with pinned(10_000) as cores:
        assert {*cores} == os.sched_getaffinity(0)


@pins
def test_threads_get_cores_of_their_own_before_two_share_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(machine, "physical_core", lambda core: (str(core // 2),))
    assert free_cores() == (0, 2, 4, 1, 3, 5)


def test_where_the_system_does_not_tell_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert free_cores() == ()
    with pinned(1) as cores:
        assert cores == ()


def test_folders_of_one_machine_are_left_out_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/home/me/data")
    given = ["/home/me/bundle", "--task", "a=/home/me/data/a.csv", "--only", "tf-idf words"]
    given += ["--out", "benchmarks/results", "--train=/home/me/b.csv"]
    assert command_line("python -m exits", given) == (
        "python -m exits bundle --task a=$DATA/a.csv --only 'tf-idf words' "
        "--out benchmarks/results --train=b.csv"
    )
    monkeypatch.delenv("DATA")
    assert command_line("peers", ["--dev", "t=/x/dev.csv"]) == "peers --dev t=dev.csv"


def test_without_arguments_those_of_the_process_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["peers", "--rounds", "3"])
    assert command_line("peers", None) == "peers --rounds 3"
