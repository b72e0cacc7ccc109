"""What a label may be, whatever file it comes from, and the order of a task's labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["is_plain", "label_of", "listed", "look_alikes", "ordered", "skeleton"]

MOST_LISTED = 20
NUMBER = re.compile(r"[+-]?\d{1,300}(\.\d+)?")
# Letters of Cyrillic and Greek that look like Latin ones.
LATIN = str.maketrans("аеорсухіјѕһԁԛԝνοκρτυχ", "aeopcyxijshdqwvokptux")


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
            f"a list ({', '.join(map(str, value))!r:.60}), and a task has one label a text; give "
            "one row a label, or one column a label"
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


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once, in order: numbers by their size, anything else by its characters."""
    distinct = set(labels)
    if all(NUMBER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (float(label), label)))
    return tuple(sorted(distinct))


def listed(labels: Sequence[str]) -> str:
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
