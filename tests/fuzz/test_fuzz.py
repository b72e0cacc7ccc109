"""Whatever a bundle's files hold, it is refused or it answers: no crash, no hang, no other error.

A few seconds of what `tests/fuzz/long.py` does at length, and all cases that were ever at fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.cases import KINDS, base_of
from tests.fuzz.long import CORPUS, fuzz
from tests.fuzz.worker import Outcome, Worker

CASES = {
    "manifest": 200,
    "tokenizer": 200,
    "onnx": 60,
    "xml": 12,
    "heads": 12,
    "bin": 12,
    "text": 3,  # lists of texts
}


@pytest.fixture(scope="module")
def base(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_of(shared_bundle, tmp_path_factory.mktemp("fuzz") / "base")


@pytest.fixture(scope="module")
def worker(base: Path) -> Iterator[Worker]:
    found = Worker(base)
    yield found
    found.close()


@pytest.mark.parametrize("kind", [*KINDS, "text"])
def test_nothing_but_our_own_errors_comes_of_odd_files_and_texts(
    base: Path, worker: Worker, kind: str
) -> None:
    faults: list[Outcome] = []
    outcomes, _ = fuzz(
        kind, base, worker, CASES[kind], 0, lambda _, outcome: faults.append(outcome)
    )
    assert not faults
    assert outcomes.total() >= CASES[kind]
    if kind == "text":
        assert set(outcomes) == {"ok"}


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_files_pass_so_that_changes_are_what_is_refused(
    base: Path, worker: Worker, kind: str
) -> None:
    assert worker.run(kind, (base / KINDS[kind].file).read_bytes()).name == "ok"


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.name)
def test_what_was_once_at_fault_is_refused(worker: Worker, file: Path) -> None:
    kind = file.name.partition("-")[0]
    assert worker.run(kind, file.read_bytes()).name in ("BundleError", "EngineError")


class Does:
    """Does something in the process to which it is sent."""

    def __init__(self, what: Callable[..., object], argument: object = ()) -> None:
        self.what, self.argument = what, argument

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.what, () if self.argument == () else (self.argument,)


def test_a_crash_and_a_hang_are_seen(base: Path) -> None:
    worker = Worker(base, seconds=3)
    assert worker.run("text", Does(os.abort)) == Outcome("crashed", "exit code -6")
    assert worker.run("text", Does(time.sleep, 60)).name == "hung"
    assert worker.run("text", Does(bytearray, 2**40)).name == "crashed"
    assert worker.run("text", [1]).name == "TextError"
    assert worker.run("text", ["as before"]).name == "ok"
    worker.close()
