"""Folders written whole or not at all (staged, then renamed), and sha256 of files."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from mtl_edge.errors import OptionError, OutputExistsError

__all__ = [
    "exchange",
    "recover",
    "require_cache",
    "require_free",
    "sha256_of",
    "staged_folder",
    "sync_file",
]

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
PARTIAL, OLD = ".partial", ".old"
DAY = 24 * 60 * 60
_in_progress: set[Path] = set()  # folders that this process is writing or replacing


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk; what is read-only, where the system can do that."""
    try:
        with path.open("r+b") as file:  # Windows takes nothing that is open for reading alone
            os.fsync(file.fileno())
    except PermissionError:
        if os.name == "posix":
            with path.open("rb") as file:
                os.fsync(file.fileno())


def require_cache(folder: Path) -> None:
    """Make the folder of a cache, if it is not there, before work is done that would go there.

    Raises:
        OptionError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise OptionError(
            f"the cache cannot be kept in {folder}: {error.strerror or error}; name a folder that "
            "can be written to with --cache, or for all runs with MTL_EDGE_CACHE"
        ) from error


def require_free(target: Path, *, overwrite: bool) -> None:
    """Fail before any work is done if `target` exists and may not be replaced.

    What a killed process left beside it is tidied up first.

    Raises:
        OutputExistsError: it exists, and `overwrite` is false or it is not a folder.
    """
    recover(Path(os.path.abspath(target)))
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputExistsError(f"{target} exists and is not a folder; choose another --out")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; choose another --out or pass --overwrite")


@contextlib.contextmanager
def staged_folder(
    target: Path, *, overwrite: bool = False, keep: Path | None = None
) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block succeeds.

    A reader sees the old folder or the new one, never a part of one: everything is written and
    synced under a temporary name and moved by rename, and only between two renames there is none.
    If the block fails, `target` is untouched and nothing is left behind.

    Args:
        keep: where the folder that was replaced goes; what was there before is removed.

    Raises:
        OutputExistsError: `target` exists and `overwrite` is false.
    """
    target = Path(os.path.abspath(target))
    require_free(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.parent / f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}{PARTIAL}"
    _in_progress.update((stage, stage.with_suffix(OLD)))
    stage.mkdir()
    try:
        yield stage
        _sync(stage)
        require_free(target, overwrite=overwrite)
        _swap(stage, target, keep)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _in_progress.difference_update((stage, stage.with_suffix(OLD)))


def recover(target: Path, keep: Path | None = None) -> None:
    """Remove what killed processes were writing; put back what one was about to replace.

    Args:
        target: absolute.
        keep: where what was replaced was to go, if the process was killed before it got there.
    """
    name = re.compile(rf"\.{re.escape(target.name)}\.(\d+)-[0-9a-f]{{8}}({PARTIAL}|{OLD})")
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        found = name.fullmatch(left.name)
        if found is None or not _abandoned(left, int(found[1])):
            continue
        if left.suffix == OLD and not target.exists():
            left.rename(target)  # killed between its two renames
        elif left.suffix == OLD and keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
            left.rename(keep)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _abandoned(folder: Path, process: int) -> bool:
    """Whether the process that made it is gone; where that cannot be asked, whether it is old."""
    if process == os.getpid():  # unless this process is writing it, an earlier one had its number
        return folder not in _in_progress
    if os.name != "posix":
        return time.time() - folder.stat().st_mtime > DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _swap(stage: Path, target: Path, keep: Path | None) -> None:
    if not target.exists():
        stage.rename(target)
        return
    old = stage.with_suffix(OLD)
    _put(stage, target, old)
    if keep is not None:
        shutil.rmtree(keep, ignore_errors=True)
        old.rename(keep)
    shutil.rmtree(old, ignore_errors=True)


def exchange(target: Path, other: Path) -> None:
    """Give two folders each other's name, by renames; what a kill leaves `recover` puts back."""
    old = target.parent / f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}{OLD}"
    _put(other, target, old)
    old.rename(other)


def _put(new: Path, target: Path, old: Path) -> None:
    """Rename `new` to `target`, and what was there to `old`; on failure all is as it was."""
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
