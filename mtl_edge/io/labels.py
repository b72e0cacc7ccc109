"""What a label may be, whatever file it comes from, and the order of a task's labels."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = [
    "NUMBER",
    "Label",
    "SoftLabel",
    "TaskKind",
    "is_plain",
    "label_list",
    "label_of",
    "labels_of",
    "look_alikes",
    "names_in",
    "ordered",
    "score_of",
    "skeleton",
]

# One label a text, any number of labels, or a number.
TaskKind: TypeAlias = Literal["single", "multi", "score"]

MOST_LISTED = 20
NUMBER = re.compile(r"[+-]?\d{1,300}(\.\d+)?")
# Letters of Cyrillic and Greek that look like Latin ones.
LATIN = str.maketrans("аеорсухіјѕһԁԛԝνοκρτυχ", "aeopcyxijshdqwvokptux")


@dataclass(frozen=True, slots=True)
class SoftLabel:
    """How probable each label is, as a larger model or several people say.

    Attributes:
        shares: each label's probability. Of a `single` task they sum to 1.
    """

    labels: tuple[str, ...]
    shares: tuple[float, ...]


# What a row says: of a `single` task a label, of a `multi` task several, of a `score` task a
# number; of the first two probabilities instead, where they are given.
Label: TypeAlias = str | tuple[str, ...] | float | SoftLabel


def is_plain(text: str) -> bool:
    """Whether a text is not empty and has no control characters or line ends."""
    return bool(text) and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text
    )


def label_of(value: Any) -> str | None:
    """A label as text: without space around it, in NFC; None where there is none.

    Numbers are written without a needless point: beside nulls some writers make 1.0 of 1.

    Raises:
        ValueError: it cannot be a label; says why, and what to do.
    """
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, (list, tuple, set)):
        raise ValueError(
            f"a list ({', '.join(map(str, value))!r:.60}), and a task of kind single has one label "
            "a text; pass --kind TASK=multi, or give one row a label"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"of type {type(value).__name__}; expected a string or a number")
    label = unicodedata.normalize("NFC", str(value)).strip(" \t\r\n\u00a0\u3000\ufeff")
    if label and not is_plain(label):
        wrong = next(c for c in label if not is_plain(c))
        hint = " (is the file cp1252? Pass --encoding cp1252)" if "\x80" <= wrong <= "\x9f" else ""
        raise ValueError(
            f"{label!r:.60}, which holds the control character {wrong!r}{hint}; take it out"
        )
    return label or None


def labels_of(value: Any, separator: str | None = None) -> tuple[str, ...] | None:
    """The labels of a `multi` task's row, each once; None where the row has no entry.

    Args:
        value: a list, one label, a list as JSON or Python writes it, or labels with `separator`
            between them.

    Raises:
        ValueError: one cannot be a label; says why, and what to do.
    """
    if isinstance(value, str):
        value = _parts(value, separator)
    elif hasattr(value, "tolist"):  # numpy's arrays, as Parquet files give them to pandas
        value = value.tolist()
    if not isinstance(value, (list, tuple, set)):
        label = label_of(value)
        return None if label is None else (label,)
    found = [label_of(item) for item in value]
    return tuple(dict.fromkeys(label for label in found if label is not None))


def _parts(text: str, separator: str | None) -> Any:
    """What a cell holds: a list, or one label."""
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(stripped)
            except (ValueError, SyntaxError):
                continue
            if isinstance(value, list):
                return value
    return stripped.split(separator) if separator and stripped else text


def score_of(value: Any) -> float | None:
    """The number of a `score` task's row; None where there is none.

    Raises:
        ValueError: it is no number; says what to do.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.inf
    if not math.isfinite(score):
        raise ValueError(
            f"{value!r:.60}, and a task of kind score has numbers, as 3 or 4.5; write it so, or "
            "pass --kind TASK=single"
        )
    return score


def names_in(label: Label) -> tuple[str, ...]:
    """The labels that a row's label speaks of."""
    if isinstance(label, SoftLabel):
        return label.labels
    if isinstance(label, tuple):
        return label
    return (label,) if isinstance(label, str) else ()


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once, in order: numbers by their size, anything else by its characters."""
    distinct = set(labels)
    if all(NUMBER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (float(label), label)))
    return tuple(sorted(distinct))


def label_list(labels: Sequence[str]) -> str:
    """Labels for people, the first of them where there are many: `a, b, ... and 140 more`."""
    rest = len(labels) - MOST_LISTED
    if rest <= 1:
        return ", ".join(labels)
    return f"{', '.join(labels[:MOST_LISTED])} and {rest} more"


def skeleton(label: str) -> str:
    """What a reader sees of a label: the same for those that look alike."""
    seen = unicodedata.normalize("NFKC", label).casefold().translate(LATIN)
    return " ".join("".join(c for c in seen if unicodedata.category(c) != "Cf").split())


def look_alikes(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of labels that differ and look alike, as by case or by characters of no width."""
    first: dict[str, str] = {}
    return [
        (known, label)
        for label in labels
        if (known := first.setdefault(skeleton(label), label)) != label
    ]
