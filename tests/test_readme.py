"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_every_snippet_runs_beside_a_bundle(shared_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(shared_bundle)
    assert len(SNIPPETS) >= 2
    for snippet in SNIPPETS:
        done = subprocess.run(
            [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"
