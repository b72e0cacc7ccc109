"""Labelled files to tasks: reading, checking and splitting."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from mtl_edge.errors import DataError, MissingPackageError
from mtl_edge.files import sha256_of

__all__ = [
    "HUB",
    "READERS",
    "Columns",
    "Rows",
    "TaskData",
    "build_task",
    "read_rows",
    "read_texts",
    "spread",
]

HUB = "hub:"

NAME = re.compile(r"[\w-]{1,64}")
INPUTS = ("input_ids", "attention_mask", "text")  # of graphs; the last of those with a tokenizer
T = TypeVar("T")
SELECTION_SHARE = 0.1
SELECTION_LIMIT = 1000


def _read_csv(path: Path, separator: str = ",") -> pd.DataFrame:
    # Nothing is guessed: "NA" or "null" is a text like any other. With a header, pandas would take
    # the first field of rows that have one more for an index; without, it refuses them.
    try:
        frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, header=None)
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{str(error).strip()}; put texts that hold {separator!r} in double quotes, and end no "
            "line with it"
        ) from None
    frame.columns = frame.iloc[0].tolist()
    return frame.iloc[1:].loc[:, ~frame.columns.duplicated()]


READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".ndjson": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file keeps its texts and labels; no label column: `label`, else the task's name."""

    text: str = "text"
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts of one task.

    Attributes:
        source: file name and sha256, for the record.
        unlabelled: rows that were passed over because their label was empty.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: Mapping[str, str]
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> Rows:
        return Rows(
            tuple(self.texts[i] for i in positions),
            tuple(self.labels[i] for i in positions),
            self.source,
        )


@dataclass(frozen=True, slots=True)
class TaskData:
    """One task's rows: `train` teaches, `selection` (a part of train) chooses, `dev` reports."""

    name: str
    labels: tuple[str, ...]
    train: Rows
    selection: Rows
    dev: Rows | None

    @property
    def report(self) -> tuple[str, Rows]:
        """The split that figures are reported on, and its rows."""
        return ("selection", self.selection) if self.dev is None else ("dev", self.dev)

    def indices(self, rows: Rows) -> list[int]:
        """Each row's label as its position in `labels`."""
        position = {label: i for i, label in enumerate(self.labels)}
        return [position[label] for label in rows.labels]


def read_rows(
    task: str,
    source: str | Path,
    columns: Columns = Columns(),
    known: Sequence[str] | None = None,
) -> Rows:
    """Read a CSV, TSV, JSONL or Parquet file, or a data set of the Hub.

    Args:
        source: a file, or `hub:NAME[:SUBSET][:SPLIT]`; the split is `train` if not named.
        known: labels that the task has; none: those that are found.

    Raises:
        DataError: the data are missing, of an unknown kind, malformed or empty, lack a column or
            have a label that is not known.
        MissingPackageError: a data set of the Hub is asked for, and `datasets` is not installed.
    """
    name = str(source)
    frame, record = _read(source)
    text = _column(frame, name, (columns.text,), "--text-column")
    wanted = (columns.label,) if columns.label else ("label", task)
    label = _column(frame, name, wanted, "--label-column")
    labels = [value.strip() for value in _strings(frame[label])]
    kept = [i for i, value in enumerate(labels) if value]
    if not kept:
        raise DataError(f"{name} has no labelled row; expected a label in column {label!r}")
    if known is not None and (unknown := sorted({*filter(None, labels)} - {*known})):
        raise DataError(
            f"{name} has the label {unknown[0]!r:.60}, which task {task!r} does not know; "
            f"expected {', '.join(known)}"
        )
    texts = _strings(frame[text])
    return Rows(
        tuple(texts[i] for i in kept),
        tuple(labels[i] for i in kept),
        record,
        len(labels) - len(kept),
    )


def read_texts(source: str | Path, column: str = "text") -> list[str]:
    """The texts of a file, whatever its labels.

    Raises:
        DataError: as for `read_rows`.
    """
    frame, _ = _read(source)
    return _strings(frame[_column(frame, str(source), (column,), "--text-column")])


def _read(source: str | Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """One or more rows, and where they come from, for the record."""
    name = str(source)
    frame, record = _from_hub(name) if name.startswith(HUB) else _from_file(Path(source))
    if frame.empty:
        raise DataError(f"{name} has no rows; expected labelled texts")
    return frame, record


def _from_file(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows, and the file's name and checksum."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} has the ending {path.suffix!r}; expected {', '.join(READERS)}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; expected a header and labelled rows")
        frame = reader(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:  # pandas' and pyarrow's parsers derive from ValueError
        raise DataError(
            f"{path} is not a well-formed {path.suffix} file: {' '.join(str(error).split())}"
        ) from None
    return frame, {"file": path.name, "sha256": sha256_of(path)}


def _from_hub(source: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows, class labels by their names, and a checksum of the rows."""
    try:
        import datasets
    except ImportError:
        raise MissingPackageError(
            f"{source} needs the package datasets; install it with `pip install 'mtl-edge[hub]'`"
        ) from None
    name, *rest = source.removeprefix(HUB).split(":")
    if not name or len(rest) > 2:
        raise DataError(f"{source}: expected hub:NAME, hub:NAME:SPLIT or hub:NAME:SUBSET:SPLIT")
    subset = rest[0] if len(rest) == 2 else None
    split = rest[-1] if rest else "train"
    try:
        rows = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # bad names, no such split, no network: a dozen unrelated classes
        raise DataError(
            f"{source} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); check name, subset and split, or save it as a "
            "file where there is a network"
        ) from None
    frame = rows.to_pandas()
    for column, kind in rows.features.items():
        if isinstance(kind, datasets.ClassLabel):
            # -1 is how unlabelled rows are written.
            frame[column] = [kind.int2str(int(v)) if v >= 0 else "" for v in frame[column]]
    content = hashlib.sha256()
    for column in frame.columns:
        content.update(json.dumps([column, *map(str, frame[column])]).encode())
    return frame, {"file": source, "sha256": content.hexdigest()}


def _strings(column: pd.Series[Any]) -> list[str]:
    """Values as strings, missing ones empty and whole numbers without a point."""
    return [
        "" if missing else _string(value)
        for value, missing in zip(column, column.isna(), strict=True)
    ]


def _string(value: Any) -> str:
    # Beside missing values pandas keeps whole numbers as floats.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _column(frame: pd.DataFrame, source: str, wanted: Sequence[str], flag: str) -> str:
    for name in wanted:
        if name in frame.columns:
            return name
    there = ", ".join(map(repr, frame.columns))
    raise DataError(
        f"{source} has no column {' or '.join(map(repr, wanted))}; it has {there}; "
        f"name one with {flag}"
    )


def build_task(name: str, train: Rows, dev: Rows | None, seed: int) -> TaskData:
    """Check a task's rows and set a part of train aside for choosing.

    The labels are those of train, sorted. The split keeps each label's share and repeats for a
    given seed; rows of the same text are on the same side.

    Raises:
        DataError: the name cannot be an output's, train has one label or too few rows to split, or
            dev has a label that train lacks.
    """
    if not NAME.fullmatch(name) or name in INPUTS:
        raise DataError(
            f"{name!r} cannot name a task, whose name is also that of the graph's output; expected "
            "letters, digits, '_' and '-', and not the name of an input"
        )
    labels = tuple(sorted(set(train.labels)))
    if len(labels) < 2:
        raise DataError(
            f"task {name!r} has the one label {labels[0]!r} in {train.source['file']}; "
            "expected two or more: check the label column"
        )
    if dev is not None and (unknown := sorted(set(dev.labels) - set(labels))):
        raise DataError(
            f"task {name!r}: {dev.source['file']} has the label {unknown[0]!r}, which "
            f"{train.source['file']} lacks; expected {', '.join(labels)}"
        )
    learn, choose = _split(train, seed)
    if not choose:
        raise DataError(
            f"task {name!r} has {len(train)} rows, too few to set some aside for choosing; "
            "expected 5 or more texts of some label, all different"
        )
    return TaskData(name, labels, train.take(learn), train.take(choose), dev)


def _split(rows: Rows, seed: int) -> tuple[list[int], list[int]]:
    """Positions of rows that teach and of rows that choose, in order."""
    by_label: dict[str, dict[str, None]] = {}  # each text once, in order
    for text, label in zip(rows.texts, rows.labels, strict=True):
        by_label.setdefault(label, {})[text] = None
    share = min(SELECTION_SHARE, SELECTION_LIMIT / sum(map(len, by_label.values())))
    chosen: set[str] = set()
    generator = random.Random(seed)
    for label in sorted(by_label):
        texts = list(by_label[label])
        count = max(round(share * len(texts)), 1 if len(texts) >= 5 else 0)
        chosen.update(generator.sample(texts, count))
    for known in by_label.values():
        if chosen.issuperset(known):  # chosen for other labels; something has to teach this one
            chosen.remove(next(iter(known)))
    learn = [i for i, text in enumerate(rows.texts) if text not in chosen]
    return learn, [i for i, text in enumerate(rows.texts) if text in chosen]


def spread(ordered: Sequence[T], count: int) -> list[T]:
    """`count` items, or all if there are fewer, at even distances."""
    count = min(count, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def conflicts(rows: Rows) -> int:
    """How many texts stand in `rows` with more than one label."""
    pairs = Counter(text for text, _ in set(zip(rows.texts, rows.labels, strict=True)))
    return sum(count > 1 for count in pairs.values())
