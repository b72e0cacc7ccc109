"""Measurements that are kept in the user's cache.

    CACHE/engines/KEY.json   {"of": what was measured, and on what, "measurement": every round}

KEY is a digest of `of`, so what was measured elsewhere, with other files, versions, threads or on
another device has another name. A record is written under another name, then renamed: a reader sees
a whole one or none. One that is damaged is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_edge.choosing.machine import cache_folder
from mtl_edge.choosing.measurement import Measurement

__all__ = ["keep", "place_of", "read"]

FOLDER = "engines"
PARTIAL = ".partial"
MOST = 100  # records; each is of a few kilobytes
HOUR = 60 * 60


def place_of(of: Mapping[str, Any]) -> Path | None:
    """Where the record of `of`, which JSON can hold, is or would be; None: there is no cache."""
    folder = cache_folder()
    key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]
    return folder / FOLDER / f"{key}.json" if folder else None


def read(of: Mapping[str, Any]) -> Measurement | None:
    """What was measured of `of`; None if nothing was, or its record cannot be read."""
    place = place_of(of)
    if place is None:
        return None
    try:
        data = json.loads(place.read_bytes())
        found = Measurement.from_json(data["measurement"])
        whole = data["of"] == of and {*found.timings, *found.failed} == {*of["candidates"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None  # it will be measured again, and the record written anew
    return found if whole else None


def keep(of: Mapping[str, Any], measurement: Measurement) -> str | None:
    """Write a record; where that is not possible, why."""
    place = place_of(of)
    if place is None:
        return "there is no home folder to keep it in; MTL_EDGE_CACHE would name another"
    data = {"of": dict(of), "measurement": measurement.to_json()}
    partial = place.with_name(f".{place.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, place)
        _tidy(place.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        why = error.strerror or error
        return f"it cannot be kept in {place.parent}: {why}; MTL_EDGE_CACHE would name another"
    return None


def _tidy(folder: Path) -> None:
    """Remove the oldest records over the limit, and what killed processes left half written."""
    ages: list[tuple[float, Path]] = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process tidies up too
            age = file.stat().st_mtime
            if file.suffix == ".json":
                ages.append((age, file))
            elif file.suffix == PARTIAL and time.time() - age > HOUR:
                file.unlink()
    for _, record in sorted(ages)[:-MOST]:
        record.unlink(missing_ok=True)
