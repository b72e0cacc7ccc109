"""How many threads an engine gets: the cores that are there for this process, not more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.engines import cores

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine as Linux describes it."""

    def describe(core_of: dict[int, int], quota: str | None = None, package: int = 0) -> None:
        for cpu, core in core_of.items():
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "core_id").write_text(f"{core}\n")
            (folder / "physical_package_id").write_text(f"{package}\n")
        if quota is not None:
            (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(core_of), raising=False)

    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    return describe


def test_two_hardware_threads_of_a_core_count_once(machine: Machine) -> None:
    machine({0: 0, 1: 1, 2: 0, 3: 1})
    assert cores.physical_cores() == 2


def test_a_large_machine_s_cores_are_not_all_taken(machine: Machine) -> None:
    machine({cpu: cpu for cpu in range(64)})
    assert cores.physical_cores() == 64
    assert cores.default_threads() == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("800000 100000", 4),
     ("damaged", 4)],
)  # fmt: skip
def test_a_container_gets_as_many_as_it_may_use(
    machine: Machine, quota: str, expected: int
) -> None:
    machine({cpu: cpu for cpu in range(4)}, quota)
    assert cores.physical_cores() == expected


def test_where_the_system_does_not_tell_every_cpu_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert cores.physical_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.physical_cores() == 1
