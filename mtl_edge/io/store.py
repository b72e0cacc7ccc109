"""Answers kept until their file is whole, so that a stopped run can be resumed.

    OUT            appears last, by rename
    OUT.partial    an SQLite file: the settings that OUT is made with, and the answers so far

SQLite sees to it that a kill, at whatever moment, leaves whole chunks of answers, and that two runs
do not write the same file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_edge.errors import DataError, OutputExistsError
from mtl_edge.io.changes import changes_of
from mtl_edge.io.writers import Answers

__all__ = ["Store", "require_no_file"]

LAYOUT = 1  # of the SQLite file
SECONDS_BETWEEN_SAVES = 2.0


def require_no_file(target: Path, *, overwrite: bool) -> None:
    """Fail before any work is done if the file `target` exists and may not be replaced.

    Raises:
        OutputExistsError: it exists, and `overwrite` is false or it is not a file.
    """
    if target.exists() and not target.is_file():
        raise OutputExistsError(f"{target} exists and is not a file; choose another --out")
    if os.path.lexists(target) and not overwrite:
        raise OutputExistsError(f"{target} exists; choose another --out or pass --overwrite")


class Store:
    """The answers of one run, by chunks of rows.

    Args:
        target: the file that will be made of the answers.
        run: the settings that decide the answers, as JSON takes them. A stopped run is resumed if
            its settings were the same.
        restart: forget what a stopped run left.
        resumable: whether the answers are kept for a next run when the block fails.

    Attributes:
        facts: what the stopped run that this one resumes gave to `begin`; None if there is none.
        rows: number of rows that have answers.
        done: set by the caller once the target is there.

    Raises:
        OutputExistsError: the file beside the target is another run's, or not of this program.
        DataError: the file beside the target is damaged.
    """

    def __init__(
        self, target: Path, run: Mapping[str, Any], *, restart: bool = False, resumable: bool = True
    ) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".partial")
        self.facts: dict[str, Any] | None = None
        self.rows, self.done = 0, False
        self._run: dict[str, Any] = json.loads(json.dumps(run))
        self._restart, self._resumable, self._foreign, self._begun = (
            restart,
            resumable,
            False,
            False,
        )
        self._file: sqlite3.Connection | None = None
        if self.path.exists():
            with self._typed_errors():
                self._open()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """Raise SQLite's errors as this package's or the system's."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_BUSY:
                raise OutputExistsError(
                    f"{self.path} is being written by another process; wait for it"
                ) from None
            if isinstance(error, sqlite3.OperationalError):
                number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
                raise OSError(number, str(error), str(self.path)) from None
            if self._restart and not self._begun:
                self._foreign = True  # it is replaced when there is something to put there
                return
            raise DataError(
                f"{self.path} is not what a stopped run left, or is damaged ({error}); move it "
                "away, or pass --restart to replace it"
            ) from None

    def _open(self) -> None:
        """Lock the file, and resume what a stopped run left in it."""
        file = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("BEGIN EXCLUSIVE")
            for table in ("run (layout, run, facts)", "chunks (rows, answers)"):
                file.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            if self._restart:
                file.execute("DELETE FROM run")
                file.execute("DELETE FROM chunks")
            elif (found := file.execute("SELECT * FROM run").fetchone()) is not None:
                (rows,) = file.execute("SELECT coalesce(max(rows), 0) FROM chunks").fetchone()
                self._resume(rows, *found)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _resume(self, rows: int, layout: int, run: str, facts: str) -> None:
        if layout != LAYOUT:
            raise sqlite3.DatabaseError("it is of another release")
        if not self._resumable:
            raise OutputExistsError(
                f"{self.path} is what a stopped run left, and an input that is no file cannot be "
                "gone on with; pass --restart to begin anew"
            )
        if changes := changes_of(json.loads(run), self._run):
            raise OutputExistsError(
                f"{self.path} is what another run left ({rows:,} rows), which differs in "
                f"{', '.join(changes)}; give the same command as then to go on with it, or "
                "--restart to begin anew"
            )
        self.facts, self.rows = json.loads(facts), rows

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Start, or resume if a stopped run started.

        Args:
            facts: for a run that resumes this one, as JSON takes them.
        """
        with self._typed_errors():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self._foreign:
                    self.path.unlink()
                self._open()
            self._begun = True
            if self.facts is None:
                self.facts = dict(facts)
                values = LAYOUT, json.dumps(self._run), json.dumps(self.facts)
                self._execute("INSERT INTO run VALUES (?, ?, ?)", values)
            self._save()

    def _execute(self, command: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        assert self._file is not None
        return self._file.execute(command, values)

    def append(self, answers: Answers, rows: int) -> None:
        """Add a chunk's answers, up to row number `rows`."""
        with self._typed_errors():
            self._execute("INSERT INTO chunks VALUES (?, ?)", (rows, json.dumps(answers)))
            self.rows = rows
            if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
                self._save()

    def _save(self) -> None:
        self._execute("COMMIT")
        self._execute("BEGIN EXCLUSIVE")
        self._saved = time.monotonic()

    def answers(self) -> Iterator[Answers]:
        """Each chunk's answers, in order."""
        with self._typed_errors():
            for (answers,) in self._execute("SELECT answers FROM chunks ORDER BY rowid"):
                yield json.loads(answers)

    @property
    def advice(self) -> str:
        """What to tell a user who stopped the run."""
        if not self._resumable:
            return "nothing was written; only what comes from a file can be gone on with"
        if self.facts is None:
            return "nothing was written"
        same = "the same command without --restart" if self._restart else "the same command"
        return f"{self.rows:,} rows are done, and {same} goes on from there"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._file is None:
            return
        keep = self._resumable and not self.done
        try:
            # Where something failed, the first error is the one to tell.
            with contextlib.suppress(sqlite3.Error) if error else self._typed_errors():
                if self._begun and keep and self._file.in_transaction:
                    self._execute("COMMIT")
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            if self._begun and not keep:
                for end in ("", "-journal"):
                    Path(f"{self.path}{end}").unlink(missing_ok=True)
