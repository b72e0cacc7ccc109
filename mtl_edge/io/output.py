"""A file that is there when it is whole, and whose making survives being killed.

    OUT               appears last, by rename
    OUT.partial       an SQLite file: what makes OUT, and the chunks that are done

SQLite sees to it that a kill, at whatever moment, leaves whole chunks, and that two runs do not
write the same file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mtl_edge.changes import changes_of
from mtl_edge.errors import DataError, OutputExistsError
from mtl_edge.files import sync_file

__all__ = ["Output", "require_no_file"]

LAYOUT = 1  # of the SQLite file
SECONDS_BETWEEN_SAVES = 2.0


def require_no_file(target: Path, *, overwrite: bool) -> None:
    """
    Raises:
        OutputExistsError: `target` exists and may not be replaced.
    """
    if target.exists() and not target.is_file():
        raise OutputExistsError(f"{target} exists and is not a file; choose another --out")
    if os.path.lexists(target) and not overwrite:
        raise OutputExistsError(f"{target} exists; choose another --out or pass --overwrite")


class Output:
    """One file in the making.

        with Output(target, run) as output:
            output.begin(header, facts)  # where output.facts is None
            output.append(chunk, rows)   # of the rows behind output.rows
            output.finish()

    Args:
        run: what decides the content, as JSON takes it. What a stopped run left is gone on with if
            its `run` was the same.
        restart: forget what a stopped run left.
        lasting: whether what is there when the block fails is kept for a next run.

    Attributes:
        facts: what `begin` was given by the stopped run that this one goes on with.
        rows: that are done.
        done: whether the target has appeared.

    Raises:
        OutputExistsError: what lies beside the target is another run's, or nobody knows whose.
        DataError: what lies there is damaged.
    """

    def __init__(
        self, target: Path, run: Mapping[str, Any], *, restart: bool = False, lasting: bool = True
    ) -> None:
        self.target = target
        self.partial = target.with_name(target.name + ".partial")
        self.facts: dict[str, Any] | None = None
        self.rows, self.done, self._begun = 0, False, False
        self._run: dict[str, Any] = json.loads(json.dumps(run))
        self._restart, self._lasting = restart, lasting
        self._store: sqlite3.Connection | None = None
        self._foreign = False  # what lies there, and is to be forgotten
        self._saved = time.monotonic()
        if self.partial.exists():
            with self._told():
                try:
                    self._open()
                except sqlite3.DatabaseError as error:
                    if not restart or isinstance(error, sqlite3.OperationalError):
                        raise
                    self._foreign = True

    def _open(self) -> None:
        """Lock the store, and take up what a stopped run left in it."""
        store = sqlite3.connect(self.partial, timeout=0, isolation_level=None)
        try:
            store.execute("PRAGMA locking_mode = EXCLUSIVE")
            store.execute("BEGIN EXCLUSIVE")
            for table in ("run (layout, run, facts)", "chunks (rows, data)"):
                store.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            if self._restart:
                store.execute("DELETE FROM run")
                store.execute("DELETE FROM chunks")
            elif (found := store.execute("SELECT * FROM run").fetchone()) is not None:
                self._take_up(store, *found)
        except BaseException:
            store.close()
            raise
        self._store = store

    def _take_up(self, store: sqlite3.Connection, layout: int, run: str, facts: str) -> None:
        if layout != LAYOUT:
            raise sqlite3.DatabaseError("it is of another release")
        if not self._lasting:
            raise OutputExistsError(
                f"{self.partial} is what a killed run left, and an input that is no file cannot "
                "be gone on with; pass --restart to begin anew"
            )
        (rows,) = store.execute("SELECT max(rows) FROM chunks").fetchone()
        if changes := changes_of(json.loads(run), self._run):
            raise OutputExistsError(
                f"{self.partial} is what another run left ({rows:,} rows), which differs in "
                f"{', '.join(changes)}; give the same command as then to go on with it, or "
                "--restart to begin anew"
            )
        self.facts, self.rows = json.loads(facts), rows

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_BUSY:
                raise OutputExistsError(
                    f"{self.partial} is being written by another process; wait for it"
                ) from None
            if isinstance(error, sqlite3.OperationalError):
                number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
                raise OSError(number, str(error), str(self.partial)) from None
            raise DataError(
                f"{self.partial} is not what a stopped run left, or is damaged ({error}); move it "
                "away, or pass --restart to replace it"
            ) from None

    def __enter__(self) -> Output:
        return self

    def begin(self, header: bytes, facts: Mapping[str, Any]) -> None:
        """Start, or go on if a stopped run started.

        Args:
            header: what the file begins with.
            facts: JSON, for who goes on.
        """
        with self._told():
            if self._store is None:
                self.target.parent.mkdir(parents=True, exist_ok=True)
                if self._foreign:
                    self.partial.unlink()
                self._open()
            assert self._store is not None
            self._begun = True
            if self.facts is None:
                self.facts = dict(facts)
                values = LAYOUT, json.dumps(self._run), json.dumps(self.facts)
                self._store.execute("INSERT INTO run VALUES (?, ?, ?)", values)
                self._store.execute("INSERT INTO chunks VALUES (0, ?)", (header,))
            self._save()

    def append(self, data: bytes, rows: int) -> None:
        """Add a chunk, behind which so many rows are done."""
        assert self._store is not None
        with self._told():
            self._store.execute("INSERT INTO chunks VALUES (?, ?)", (rows, data))
            self.rows = rows
            if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
                self._save()

    def _save(self) -> None:
        assert self._store is not None
        self._store.execute("COMMIT")
        self._store.execute("BEGIN EXCLUSIVE")
        self._saved = time.monotonic()

    def finish(self, make: Callable[[Iterator[bytes], Path], None] | None = None) -> None:
        """The target appears.

        Args:
            make: writes it from the chunks; none: it is these one behind the other.
        """
        assert self._store is not None
        made = self.target.with_name(self.target.name + ".partial.made")
        try:
            with self._told():
                self._save()
                chunks = self._store.execute("SELECT data FROM chunks ORDER BY rowid")
                (make or _joined)((data for (data,) in chunks), made)
            sync_file(made)
            os.replace(made, self.target)
        finally:
            made.unlink(missing_ok=True)
        self.done = True

    @property
    def advice(self) -> str:
        """What to tell who stopped the run."""
        if not self._lasting:
            return "nothing was written; only what comes from a file can be gone on with"
        if self.facts is None:
            return "nothing was written"
        same = "the same command without --restart" if self._restart else "the same command"
        return f"{self.rows:,} rows are done, and {same} goes on from there"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is None:
            return
        keep = self._lasting and not self.done
        try:
            # Where something failed, the first error is the one to tell.
            with contextlib.suppress(sqlite3.Error) if error else self._told():
                if self._begun and keep and self._store.in_transaction:
                    self._store.execute("COMMIT")
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
            if self._begun and not keep:
                for end in ("", "-journal"):
                    Path(f"{self.partial}{end}").unlink(missing_ok=True)


def _joined(chunks: Iterator[bytes], target: Path) -> None:
    with target.open("wb") as file:
        file.writelines(chunks)
