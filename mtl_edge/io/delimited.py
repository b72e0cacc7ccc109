"""CSV and TSV, after RFC 4180: a header, quoted cells may hold anything."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import BLANK, LINES_IN_CELLS, Tally
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.text import BOM, CARRIAGE_RETURNS, Lines, Opened, Row, chunks_of

__all__ = ["read_delimited"]

# The csv module's own limit, 131,072 characters, is less than some texts have. A quote that is
# never closed takes all that follows for one cell: there must be a limit.
MAX_CELL = 16 << 20
# Of columns, whose values tell rows that a stray quote took for the inside of a cell.
MOST_KNOWN, LONGEST_KNOWN, MOST_DOUBTED = 4096, 64, 1000


def read_delimited(lines: Lines, options: ReadOptions, tally: Tally, separator: str) -> Opened:
    """The header's columns, and the rows; empty lines are counted and passed over."""
    separator = options.separator or separator
    cells = _cells(lines, options, tally, separator)
    _, names, _ = next(cells, (0, [], ()))
    if not names:
        raise DataError(f"{lines.name} is empty; expected a header and rows")
    if twice := sorted({repr(name) for name in names if names.count(name) > 1}):
        raise DataError(
            f"{lines.name}: {', '.join(twice)} comes twice in the header; rename one of them"
        )
    if names[0].lower().startswith("sep="):
        raise DataError(
            f"{lines.here} is a note of the separator for Excel; take it out, and pass --separator"
        )
    stray = _StrayQuotes(lines, separator) if options.quoting is None else None

    def rows() -> Iterator[Row]:
        for start, row, taken in cells:
            if len(row) != len(names):
                raise DataError(
                    f"{lines.at(start)} has {len(row)} cells, the header {len(names)}; a cell that "
                    f"holds the separator must be in quotes{_hint(taken, options, separator)}"
                )
            if [row[0].lstrip(BOM), *row[1:]] == names and len(row) > 1:
                raise DataError(
                    f"{lines.at(start)} is the header again; were files put together? Take it out"
                )
            tally[LINES_IN_CELLS] += len(taken) - 1
            if stray is not None:
                stray.note(start, row, taken)
            yield start, dict(zip(names, row, strict=True)), None
        if stray is not None:
            stray.require_none()

    return dict.fromkeys(names, "text"), chunks_of(rows(), lines)


def _cells(
    lines: Lines, options: ReadOptions, tally: Tally, separator: str
) -> Iterator[tuple[int, list[str], Sequence[str]]]:
    """Each row's first line, its cells, and the lines that it was read from; none of blank ones.

    Takes no more lines than the rows that it gave have.
    """
    taken: list[str] = []
    escape = options.escape
    # The csv module would drop the escape character before any other, as in C:\new.
    special = {escape, '"', separator, "\r", "\n"}
    pair = re.compile(re.escape(escape or "\\") + r"(.|\n|\Z)", re.DOTALL)

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            if escape is not None:
                line = pair.sub(lambda m: m[0] if m[1] in special else escape + m[0], line)
            yield line

    plain = options.quoting == "none"
    reader: Iterator[list[str]] = csv.reader(
        noted(),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        escapechar=escape,
        strict=True,
    )
    if plain and escape is None:  # a lone carriage return is part of a cell, too
        reader = (line.rstrip("\r\n").split(separator) for line in noted())
    while True:
        taken.clear()
        start = lines.number + 1
        # The limit is the process's: it is as it was whenever other code runs.
        before = csv.field_size_limit(MAX_CELL)
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"the row that begins at {lines.at(start)} is malformed: "
                f"{str(error).partition(' - ')[0]} (a quote that is open or not doubled, or a "
                f"carriage return without quotes){_hint(taken, options, separator)}"
            ) from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row and (len(row) > 1 or taken[0].strip("\r\n")):
            yield start, row, taken
        else:
            tally[BLANK] += 1


def _hint(taken: Sequence[str], options: ReadOptions, separator: str) -> str:
    """Options that may read these lines."""
    text, hints = "".join(taken), []
    if options.escape is None and re.search(rf'\\["{re.escape(separator)}]', text):
        hints.append("--escape '\\' if backslashes stand before quotes or separators")
    if options.quoting != "none" and '"' in text:
        hints.append("--quoting none if quotes are characters like others")
    ends = CARRIAGE_RETURNS if "\r" in text.replace("\r\n", "") else ""
    return (f"; pass {', or '.join(hints)}" if hints else "") + ends


class _StrayQuotes:
    """Looks for rows that a stray quote took into a cell, which the csv module cannot tell.

    A quoted cell of several lines is doubted where each of its lines alone would be a row, and
    these have, in some column, values that other rows have there: labels or numbers, say.
    """

    def __init__(self, lines: Lines, separator: str) -> None:
        self._lines, self._separator = lines, separator
        self._known: dict[int, set[str]] = {}
        self._doubted: deque[tuple[int, list[list[str]]]] = deque(maxlen=MOST_DOUBTED)

    def note(self, start: int, row: Sequence[str], taken: Sequence[str]) -> None:
        """A row, and the lines that it was read from."""
        if len(taken) > 1:
            rows = [line.rstrip("\r\n").split(self._separator) for line in taken]
            if len(row) > 1 and all(len(one) == len(row) for one in rows):
                self._doubted.append((start, rows))
            return
        for column, cell in enumerate(row):
            known = self._known.setdefault(column, set())
            if len(known) < MOST_KNOWN and len(cell) <= LONGEST_KNOWN:
                known.add(cell)

    def require_none(self) -> None:
        """
        Raises:
            DataError: a cell holds what seem to be rows; its first line is named.
        """
        if not self._doubted:
            return
        known = {column: {*map(_shape, cells)} - {""} for column, cells in self._known.items()}
        for start, rows in self._doubted:
            if any(all(_shape(row[c]) in known[c] for row in rows) for c in known):
                raise DataError(
                    f"the quote that opens at {self._lines.at(start)} takes the rows behind it "
                    "into its cell; pass --quoting none if quotes are characters like others, or "
                    "--quoting double if it is one cell"
                )


def _shape(cell: str) -> str:
    return re.sub(r"\d+", "0", cell.strip())
