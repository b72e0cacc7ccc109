"""An update is applied whole, or refused with the bundle as it was."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.bundle import MANIFEST

Fails = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("../evil", b"x", "does not list so"),
        ("/etc/evil", b"x", "does not list so"),
        ("heads.int8.bin", b"cut short", "does not list so"),
        ("unknown.bin", b"x", "does not list so"),
    ],
)
def test_an_update_that_holds_something_else_is_refused(
    bundle: Path, tmp_path: Path, fails: Fails, name: str, data: bytes, says: str
) -> None:
    before = contents(bundle)
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w") as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
        archive.writestr(name, data)
    assert says in fails("update", bundle, update)
    assert contents(bundle) == before
    assert not list(tmp_path.glob("**/evil"))


def test_an_update_whose_files_are_altered_is_refused(
    bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    before = contents(bundle)
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w") as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
        archive.writestr("heads.int8.bin", b"\1" * len(before["heads.int8.bin"]))
    assert "sha256 differs" in fails("update", bundle, update)
    assert contents(bundle) == before


def test_an_update_of_another_bundle_is_refused(bundle: Path, tmp_path: Path, fails: Fails) -> None:
    """Its manifest lists files that neither it nor the bundle has."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for entry in manifest["files"]:
        if entry["path"] == "encoder.int8.bin":
            entry["sha256"] = "0" * 64
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
    assert "sha256 differs" in fails("update", bundle, update)


def test_what_is_no_update_is_refused(bundle: Path, tmp_path: Path, fails: Fails) -> None:
    before = contents(bundle)
    text = tmp_path / "text"
    text.write_text("not a zip")
    assert "not an update" in fails("update", bundle, text)
    assert "not an update" in fails("update", bundle, tmp_path / "missing.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "no manifest.json in it" in fails("update", bundle, tmp_path / "empty.zip")
    assert "no version before it" in fails("update", bundle, "--restore")
    assert "or a bundle and --restore" in fails("update", bundle)
    assert contents(bundle) == before
