"""What reading a backbone's files needs: JSON, and silence."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from mtl_edge.errors import BackboneError

__all__ = ["quiet", "read_json"]


def read_json(file: Path) -> dict[str, Any]:
    """The file's JSON object.

    Raises:
        BackboneError: it is none.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise BackboneError(f"{file} is not JSON ({error}); fetch the backbone again") from None
    if not isinstance(content, dict):
        raise BackboneError(f"{file} is not a JSON object; fetch the backbone again")
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and notices of transformers: what matters is raised as an error."""
    logger = logging.getLogger("transformers")
    level = logger.level
    bars = transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]
