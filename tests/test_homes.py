"""No home, cache or temporary folder that can be written to: commands do without, or say which."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.errors import OptionError
from mtl_edge.io.folders import require_cache

Fails = Callable[..., str]

# A user whom the system does not know, as of a container that is told a number alone.
NOBODY = """
import pwd, sys
def unknown(number): raise KeyError(number)
pwd.getpwuid = unknown
from mtl_edge.cli import main
sys.exit(main())
"""


@pytest.fixture
def barred(tmp_path: Path) -> Path:
    """A folder that nobody can make, root included: it is below a file."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "folder"


def done(*command: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose only place to write to would be its home."""
    unset = ("HOME", "MTL_EDGE_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    if home is not None:
        environment["HOME"] = str(home)
    program = [sys.executable, "-c", NOBODY, *map(str, command)]
    return subprocess.run(program, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "openvino"])
def test_answers_need_no_home_and_nothing_is_said_of_it(
    shared_bundle: Path, barred: Path, engine: str
) -> None:
    for home in (None, barred):
        told = done("predict", shared_bundle, "--engine", engine, "a text", home=home)
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.count("\n") == 3


@pytest.mark.slow
def test_learning_and_exporting_need_no_home(
    tiny_backbone: Path, rows: Path, barred: Path, tmp_path: Path
) -> None:
    for name, home in (("none", None), ("barred", barred)):
        out = tmp_path / name
        train = ["train", "--backbone", tiny_backbone, "--epochs", "1", "--task", f"topic={rows}"]
        told = done(*train, "--out", out, "--cache", tmp_path / "cache", home=home)
        assert told.returncode == 0, told.stderr
        assert (out / "confusion.png").is_file()
        told = done("export", out, "--out", tmp_path / f"{name}-bundle", home=home)
        assert told.returncode == 0, told.stderr
        lines = told.stderr.splitlines()
        assert all(line.startswith("export: ") for line in lines), told.stderr


def test_training_without_a_home_says_how_to_name_a_cache(
    tiny_backbone: Path, rows: Path, tmp_path: Path
) -> None:
    train = ["train", "--backbone", tiny_backbone, "--task", f"topic={rows}"]
    told = done(*train, "--out", tmp_path / "out")
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1] == (
        f"mtl-edge: the cache cannot be kept in {os.devnull}/.cache/mtl-edge/states: Not a "
        "directory; name a folder that can be written to with --cache, or for all runs with "
        "MTL_EDGE_CACHE"
    )


@pytest.mark.parametrize("command", ["train", "study"])
def test_a_cache_that_cannot_be_made_is_named_with_its_option(
    command: str, fails: Fails, tiny_backbone: Path, rows: Path, barred: Path, tmp_path: Path
) -> None:
    learn = [command, "--backbone", tiny_backbone, "--task", f"topic={rows}", "--out"]
    told = fails(*learn, tmp_path / "out", "--cache", barred)
    assert f"the cache cannot be kept in {barred}: Not a directory; name a folder" in told
    assert "--cache" in told
    assert "MTL_EDGE_CACHE" in told
    assert not (tmp_path / "out").exists()


def test_a_cache_is_tried_before_anything_is_exported(
    fails: Fails, checkpoint: Path, rows: Path, barred: Path, tmp_path: Path
) -> None:
    export = ["export", checkpoint, "--refit", rows, "--out", tmp_path / "out"]
    assert "the cache cannot be kept in" in fails(*export, "--cache", barred.parent)
    assert not (tmp_path / "out").exists()


def test_a_cache_that_is_read_only_is_one_that_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OptionError, match="Permission denied; name a folder"):
        require_cache(tmp_path)


def test_a_full_disk_is_no_wrong_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left") as caught:
        require_cache(tmp_path / "cache")
    assert not isinstance(caught.value, OptionError)


def test_no_temporary_folder_is_named_with_its_variable(
    fails: Fails, checkpoint: Path, barred: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(barred)])
    assert fails("export", checkpoint, "--out", tmp_path / "out") == (
        f"mtl-edge: No usable temporary directory found in ['{barred}']; set TMPDIR to one that "
        "can be written to"
    )
