"""Folders written whole or not at all, and files that prove what they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mtl_edge.errors import OutputExistsError

__all__ = ["require_free", "sha256_of", "staged_folder"]


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_free(target: Path, *, overwrite: bool) -> None:
    """Fail before any work is done if `target` exists and may not be replaced.

    Raises:
        OutputExistsError: it exists, and `overwrite` is false or it is not a folder.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputExistsError(f"{target} exists and is not a folder; choose another --out")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; choose another --out or pass --overwrite")


@contextlib.contextmanager
def staged_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block succeeds.

    A reader sees the old folder or the new one, never a part of one: everything is written and
    synced under a temporary name and moved by rename. If the block fails, `target` is untouched
    and nothing is left behind.

    Raises:
        OutputExistsError: `target` exists and `overwrite` is false.
    """
    target = Path(os.path.abspath(target))
    require_free(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    stage.mkdir()
    try:
        yield stage
        _sync(stage)
        require_free(target, overwrite=overwrite)
        _swap(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _swap(stage: Path, target: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    old = stage.with_suffix(".old")
    target.rename(old)
    try:
        stage.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
