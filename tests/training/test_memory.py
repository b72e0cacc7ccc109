"""A corpus may be larger than memory: its states are on disk, and are read as they are needed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

# Runs a command and prints the most memory of its own, without mapped files, that it held.
WATCHED = """
import sys, threading, time
from mtl_edge.cli import main

most = 0

def watch():
    global most
    while True:
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                most = max(most, int(line.split()[1]))
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
code = main(sys.argv[1:])
print(most)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_from_10_000_to_50_000_texts(tiny_backbone: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    megabytes = {}
    for count in (10_000, 50_000):
        file = tmp_path / f"{count}.csv"
        with file.open("w") as out:
            out.write("text,label\n")
            for row in range(count):
                out.write(f"{row} {' '.join(generator.choices(words, k=8))},{'ab'[row % 2]}\n")
        command = ["train", "--backbone", str(tiny_backbone), "--task", f"t={file}"]
        command += ["--epochs", "1", "--batch-size", "256", "--head", "mlp"]
        command += ["--out", str(tmp_path / f"{count}"), "--cache", str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, str(script), *command], capture_output=True, text=True, check=True
        )
        megabytes[count] = int(done.stdout.split()[-1]) / 1024
    states = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*.npy")) / 2**20
    grown = megabytes[50_000] - megabytes[10_000]
    print(f"{megabytes}, states on disk {states:.0f} MB")
    # Texts, labels and token ids are in memory, at one to two kilobytes a text; states are not.
    assert grown < 100, megabytes
    assert grown < 0.2 * states
