"""What is measured keeps to as many cores as it has threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtl_edge.benchmarks.pinning import free_cores, pinned

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


def test_where_the_system_does_not_tell_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert free_cores() == ()
    with pinned(1) as cores:
        assert cores == ()
