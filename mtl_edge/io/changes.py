"""Where the settings of two runs differ."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["changes_of"]


def changes_of(old: Any, new: Any, separator: str = " ", path: str = "") -> list[str]:
    """Where two nested dictionaries differ, each place as `name (then X, now Y)`.

    Args:
        separator: between the keys of a path, as in `train lr`.
        path: of what is compared.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted({*old, *new})
            for change in changes_of(
                old.get(key), new.get(key), separator, f"{path}{separator}{key}".strip(separator)
            )
        ]
    return [] if old == new else [f"{path} (then {_short(old)}, now {_short(new)})"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
