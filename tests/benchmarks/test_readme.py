"""The documents show what the records in the repository say."""

from __future__ import annotations

import pytest

from mtl_edge.benchmarks.core.pictures import png
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.experiments.readme import REPORTS, blocks
from tests.conftest import ROOT


def test_every_block_is_made_of_its_record() -> None:
    for name, contents in blocks(ROOT).items():
        document = (ROOT / name).read_text(encoding="utf-8")
        for title, content in contents.items():
            block = f"<!-- {title}: begin -->\n{content}<!-- {title}: end -->"
            assert block in document, f"{name}: {title}"


@pytest.mark.parametrize("name", REPORTS)
def test_every_picture_of_a_record_can_be_drawn(name: str) -> None:
    report_of, _ = REPORTS[name]
    record = read_record(ROOT / "benchmarks" / "results" / name / f"{name}.json")
    assert record.experiment == name
    for picture in report_of(record).pictures:
        assert (png(picture) or b"").startswith(b"\x89PNG"), picture.name
