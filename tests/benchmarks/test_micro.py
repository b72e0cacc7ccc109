"""The micro-benchmarks run, each once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_every_micro_benchmark_runs(shared_bundle: Path) -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks/micro", "--benchmark-disable"]
    done = subprocess.run(
        [*command, "--bundle", str(shared_bundle), "-p", "no:cacheprovider"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout, done.stdout
    assert "skipped" not in done.stdout
