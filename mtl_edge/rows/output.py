"""A file that is there when it is whole, and whose making survives being killed.

    OUT               appears last, by rename
    OUT.partial       grows by whole chunks
    OUT.partial.json  the journal: what makes OUT, and how far it is

The journal is written behind the data, so whatever a kill leaves, the journal speaks of bytes that
are there; what is behind them is cut off when the run goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mtl_edge.cli.changes import changes_of
from mtl_edge.errors import DataError, OutputExistsError
from mtl_edge.files import sync_file
from mtl_edge.rows.model import Mark

__all__ = ["Output", "require_no_file"]

JOURNAL = 1  # the journal's layout
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
            output.append(chunk, mark)   # of rows behind output.mark
            output.finish()

    Args:
        run: what decides the content. What a stopped run left is gone on with if its `run` was
            the same.
        restart: forget what a stopped run left.
        lasting: whether what is there when the block fails is kept for a next run.

    Attributes:
        facts: what `begin` was given by the stopped run that this one goes on with.
        mark: the row behind which to go on.
        done: whether the target has appeared.

    Raises:
        OutputExistsError: what lies beside the target is another run's, or nobody knows whose.
        DataError: what lies there is damaged.
    """

    def __init__(
        self,
        target: Path,
        run: Mapping[str, Any],
        *,
        restart: bool = False,
        lasting: bool = True,
    ) -> None:
        self.target = target
        self.partial = target.with_name(target.name + ".partial")
        self.journal = target.with_name(target.name + ".partial.json")
        self._run: dict[str, Any] = json.loads(json.dumps(run))
        self._restart = restart
        self._lasting = lasting
        self.facts: dict[str, Any] | None = None
        self._whole = Mark(), 0  # where the input stands, and the bytes that came of it
        self._file: BinaryIO | None = None
        self._made = self.partial
        self.done = False
        self._saved = time.monotonic()
        if not restart and self.partial.exists() and self.partial.stat().st_size:
            self._take_up()

    @property
    def mark(self) -> Mark:
        return self._whole[0]

    def _take_up(self) -> None:
        if not self.journal.is_file():
            raise OutputExistsError(
                f"{self.partial} exists, and no journal says what it is; move it away, or pass "
                "--restart to replace it"
            )
        if not self._lasting:
            raise OutputExistsError(
                f"{self.partial} is what a killed run left, and an input that is no file cannot "
                "be gone on with; pass --restart to begin anew"
            )
        try:
            found = json.loads(self.journal.read_bytes())
            if found["journal"] != JOURNAL:
                raise ValueError("it is of another release")
            run, facts = found["run"], found["facts"]
            mark, size = Mark(**found["mark"]), int(found["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.journal} is damaged ({error}); pass --restart to begin anew"
            ) from None
        if changes := changes_of(run, self._run):
            raise OutputExistsError(
                f"{self.partial} is what another run left ({mark.rows:,} rows), which differs in "
                f"{', '.join(changes)}; give the same command as then to go on with it, or "
                "--restart to begin anew"
            )
        if self.partial.stat().st_size < size:
            raise DataError(
                f"{self.partial} is shorter than its journal says; pass --restart to begin anew"
            )
        self.facts, self._whole = facts, (mark, size)

    def __enter__(self) -> Output:
        return self

    def begin(self, header: bytes, facts: Mapping[str, Any]) -> None:
        """Start, or go on if a stopped run started.

        Args:
            header: what the file begins with.
            facts: JSON, for who goes on.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        file = self.partial.open("ab")
        _lock(file, self.partial)
        self._file = file
        size = self._whole[1]
        if self.partial.stat().st_size < size:  # finished by another process in the meantime
            raise OutputExistsError(f"{self.partial} is no longer what it was; try again")
        if self.facts is None:
            self.journal.unlink(missing_ok=True)
        self._file.truncate(size)
        if self.facts is None:
            self.facts = dict(facts)
            self._save()
        if size == 0:
            self.append(header, self.mark)

    def append(self, data: bytes, mark: Mark) -> None:
        """Add a chunk, behind which the input stands at `mark`."""
        assert self._file is not None
        self._file.write(data)
        self._whole = mark, self._whole[1] + len(data)  # at once, wherever a signal comes
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self._save()

    @property
    def _new_journal(self) -> Path:
        return self.journal.with_name(self.journal.name + ".new")

    def _save(self) -> None:
        """Bring the data to the disk, then the journal that speaks of them."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        content = {
            "journal": JOURNAL,
            "run": self._run,
            "facts": self.facts,
            "mark": asdict(self.mark),
            "size": self._whole[1],
        }
        new = self._new_journal
        with new.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.journal)
        self._saved = time.monotonic()

    def convert(self, convert: Callable[[Path, Path], None]) -> None:
        """Have `convert` make the target's content of what was appended."""
        self._save()
        made = self.target.with_name(self.target.name + ".partial.made")
        try:
            convert(self.partial, made)
            sync_file(made)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        self._made = made

    def finish(self) -> None:
        """The target appears."""
        assert self._file is not None
        self._save()
        self._file.close()
        os.replace(self._made, self.target)
        self.done = True
        self._remove()

    def _remove(self) -> None:
        for path in (self.partial, self.journal, self._new_journal, self._made):
            path.unlink(missing_ok=True)

    @property
    def advice(self) -> str:
        """What to tell who stopped the run."""
        if not self._lasting:
            return "nothing was written; only what comes from a file can be gone on with"
        if self.facts is None or not self.journal.is_file():
            return "nothing was written"
        same = "the same command without --restart" if self._restart else "the same command"
        return f"{self.mark.rows:,} rows are done, and {same} goes on from there"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None or self.done:
            return
        try:
            if not self._file.closed:
                self._close(failed=kind is not None and issubclass(kind, OSError))
        finally:
            if not self._lasting:
                self._remove()

    def _close(self, *, failed: bool) -> None:
        assert self._file is not None
        # Where writing failed, the journal that there is speaks of less, but of what is there; and
        # if closing fails as well, the first error is the one to tell.
        with contextlib.suppress(OSError) if failed else contextlib.nullcontext(), self._file:
            if self._lasting and not failed:
                self._save()


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep a second run from writing the same file, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        file.close()
        raise OutputExistsError(f"{path} is being written by another process; wait for it")
