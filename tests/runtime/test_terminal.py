"""Any text can be said to any terminal, pipe or place that takes the standard streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_edge.cli import main
from mtl_edge.cli.terminal import take_any_text
from tests.conftest import ROOT

TEXT = "我喜欢 😀"
ESCAPED = r"\u6211\u559c\u6b22 \U0001f600"
# They talk to the process that started them, or say nothing.
CHILDREN = ("child.py", "fresh_process.py", "random_backbone.py", "readme.py")


def said(*command: str | Path, shell: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line in a process of its own."""
    arguments = [sys.executable, "-m", "mtl_edge.cli", *map(str, command)]
    line = ["sh", "-c", f'"$@" {shell}', "sh", *arguments]
    done = subprocess.run(line, capture_output=True, env={**os.environ, **environment})
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437"])
def test_a_pipe_without_the_characters_of_a_text_gets_escapes(
    shared_bundle: Path, encoding: str
) -> None:
    code, out, _ = said("predict", shared_bundle, TEXT, PYTHONIOENCODING=encoding)
    assert code == 0
    assert out.splitlines()[2].startswith(f"{ESCAPED}  ")


def test_the_locale_c_gets_answers(shared_bundle: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, out, _ = said("predict", shared_bundle, TEXT, **plain)
    assert code == 0
    assert len(out.splitlines()) == 3


def test_an_error_about_such_a_text_is_one_line(tmp_path: Path) -> None:
    code, out, err = said("predict", tmp_path / TEXT, "text", PYTHONIOENCODING="ascii:strict")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert ESCAPED in err


@pytest.mark.skipif(os.name != "posix", reason="has no such redirection")
@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_as_good_as_read(shared_bundle: Path, shell: str) -> None:
    code, out, err = said("predict", shared_bundle, "text", shell=shell)
    assert (code, err) == (0, "")
    assert bool(out) == (shell == "2>&-")
    code, out, _ = said("predict", shared_bundle / "none", "text", shell=shell)
    assert (code, out) == (2, ""), "errors are no output"


def test_streams_that_an_app_put_there_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["predict", "nowhere", TEXT]) == 2
    assert sys.stdout is out
    assert err.getvalue().startswith("mtl-edge: no bundle at nowhere")


def test_a_process_without_a_console_has_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    take_any_text()
    print(TEXT)
    assert not sys.stderr.isatty()
    sys.stdout.close()
    sys.stderr.close()


def test_every_command_of_the_benchmarks_does_the_same() -> None:
    door = 'if __name__ == "__main__":\n'
    found = []
    for file in (ROOT / "benchmarks").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if door in text and file.name not in CHILDREN:
            assert "take_any_text()" in text or "run_module(" in text, file.name
            found.append(file)
    assert len(found) >= 8
