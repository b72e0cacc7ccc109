"""Folders are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl_edge.errors import OutputExistsError
from mtl_edge.io.folders import require_free, staged_folder


def write(target: Path, text: str, *, overwrite: bool = False) -> None:
    with staged_folder(target, overwrite=overwrite) as stage:
        (stage / "file").write_text(text)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out") as stage:
        (stage / "file").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with (
        pytest.raises(ZeroDivisionError),
        staged_folder(tmp_path / "out", overwrite=True) as stage,
    ):
        (stage / "file").write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_or_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OutputExistsError, match="not a folder"):
            write(tmp_path / name, "new", overwrite=True)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputExistsError), staged_folder(target) as stage:
        (stage / "file").write_text("slow")
        write(target, "quick")
    assert (target / "file").read_text() == "quick"


def test_files_are_synced_as_windows_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(number: int) -> None:
        os.write(number, b"")  # fails unless it is open for writing
        synced.append(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "out", "new")
    assert len(synced) == 1
    assert (tmp_path / "out" / "file").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="syncs what is read-only")
def test_files_that_may_only_be_read_are_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.open
    synced: list[int] = []

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if self.name == "file" and "+" in mode:  # root may write all the same
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(self, mode, *rest, **more)

    monkeypatch.setattr(os, "fsync", synced.append)
    with staged_folder(tmp_path / "out") as stage:
        (stage / "file").write_text("new")
        (stage / "file").chmod(0o444)
        monkeypatch.setattr(Path, "open", opened)
    assert len(synced) == 1
    assert (tmp_path / "out" / "file").read_text() == "new"


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / f".out.{dead_process()}-0a0a0a0a.partial"
    alive = tmp_path / f".out.{os.getppid()}-0b0b0b0b.partial"
    namesake = tmp_path / f".out.{os.getpid()}-0d0d0d0d.partial"
    other = tmp_path / f".other.{dead_process()}-0c0c0c0c.partial"
    for folder in (dead, alive, namesake, other):
        folder.mkdir()
        (folder / "file").write_text("half")
    with staged_folder(tmp_path / "out") as stage:
        (stage / "file").write_text("whole")
    assert not dead.exists()
    assert alive.exists(), "another process is writing there"
    assert not namesake.exists(), "an earlier process had this one's number"
    assert other.exists(), "that is another target's"
    assert (tmp_path / "out" / "file").read_text() == "whole"


def test_a_process_killed_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    old = tmp_path / f".out.{dead_process()}-0a0a0a0a.old"
    old.mkdir()
    (old / "file").write_text("old")
    with pytest.raises(OutputExistsError):
        require_free(tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert not old.exists()
