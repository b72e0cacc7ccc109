"""What a measurement leaves on disk: a JSON file, or a folder with all that can be looked at."""

from __future__ import annotations

import os
from pathlib import Path

from mtl_edge.benchmarks.core.page import page
from mtl_edge.benchmarks.core.pictures import png
from mtl_edge.benchmarks.core.record_json import to_json
from mtl_edge.benchmarks.core.report import Report, markdown
from mtl_edge.io.folders import staged_folder

__all__ = ["write_folder", "write_text"]


def write_text(file: Path, text: str) -> None:
    """Replace a file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(report: Report, folder: Path, *, overwrite: bool) -> None:
    """Write the record as JSON, its tables as Markdown and a page, and the pictures as PNG.

    The folder is there whole or not at all; its files have the experiment's name.

    Raises:
        OutputExistsError: the folder exists and `overwrite` is false.
    """
    name = report.record.experiment
    with staged_folder(folder, overwrite=overwrite) as stage:
        (stage / f"{name}.json").write_text(to_json(report.record), encoding="utf-8")
        drawn = {picture.name: png(picture) for picture in report.pictures}
        for title, data in drawn.items():
            if data is not None:
                (stage / f"{title}.png").write_bytes(data)
        there = [title for title, data in drawn.items() if data is not None]
        (stage / f"{name}.md").write_text(markdown(report, there), encoding="utf-8")
        (stage / f"{name}.html").write_text(page(report), encoding="utf-8")
