"""What the documents show runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(snippet, id=f"{document.stem}-{number}")
    for document in DOCUMENTS
    for number, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL), 1
    )
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs_beside_a_bundle(snippet: str, shared_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(shared_bundle)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_documents_have_snippets() -> None:
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (document.parent / link).exists(), link
