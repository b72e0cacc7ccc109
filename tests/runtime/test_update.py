"""An update is applied whole, or refused with the bundle as it was."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_edge.bundle import MANIFEST
from mtl_edge.bundle.update import previous_of
from mtl_edge.cli import main

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
    assert "is not there" in fails("update", bundle, tmp_path / "missing.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "no manifest.json in it" in fails("update", bundle, tmp_path / "empty.zip")
    assert "no version before it" in fails("update", bundle, "--restore")
    assert "or a bundle and --restore" in fails("update", bundle)
    assert contents(bundle) == before


def test_an_update_with_a_flipped_byte_is_refused(
    bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    before = contents(bundle)
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
        archive.write(bundle / "heads.int8.bin", "heads.int8.bin")
    whole = update.read_bytes()
    for place in range(200, len(whole) - 200, len(whole) // 25):
        update.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        fails("update", bundle, update)
        assert contents(bundle) == before


def updated(bundle: Path, tmp_path: Path) -> Path:
    """An update that changes nothing but the manifest's record of versions."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["versions"]["mtl-edge"] = "next"
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
    return update


def test_what_a_kill_between_two_renames_left_is_put_right(bundle: Path, tmp_path: Path) -> None:
    update = updated(bundle, tmp_path)
    before = contents(bundle)
    dead = 2**22 - 1  # no process has this number
    bundle.rename(bundle.with_name(f".{bundle.name}.{dead}-00000000.old"))
    assert main(["update", str(bundle), str(update)]) == 0
    assert contents(previous_of(bundle)) == before
    after = contents(bundle)
    # Killed again, when the new version was in place and the old not yet beside it.
    previous_of(bundle).rename(bundle.with_name(f".{bundle.name}.{dead}-00000001.old"))
    assert main(["update", str(bundle), "--restore"]) == 0
    assert contents(bundle) == before
    assert contents(previous_of(bundle)) == after


def test_a_bundle_behind_a_link_is_updated_where_it_is(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(bundle)
    before = contents(bundle)
    assert main(["update", str(link), str(updated(bundle, tmp_path))]) == 0
    assert link.is_symlink()
    assert contents(bundle) != before
    assert main(["update", str(link), "--restore"]) == 0
    assert contents(link) == before


def test_what_is_not_the_bundle_s_does_not_stop_an_update(bundle: Path, tmp_path: Path) -> None:
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "note").write_text("left by a download")
    assert main(["update", str(bundle), str(updated(bundle, tmp_path))]) == 0
    assert (previous_of(bundle) / ".cache" / "note").is_file()


def test_an_update_whose_directory_points_before_its_start_is_refused(
    bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    update = updated(bundle, tmp_path)
    whole = bytearray(update.read_bytes())
    end = whole.rindex(b"PK\5\6")
    whole[end + 16 : end + 20] = b"\xff\xff\xff\x7f"  # where the directory starts
    update.write_bytes(whole)
    assert "not an update" in fails("update", bundle, update)
    whole[end + 16 : end + 20] = (end + 10**6).to_bytes(4, "little")
    update.write_bytes(whole)
    assert "not an update" in fails("update", bundle, update)
    update.write_bytes(b"\0" * 10 + bytes(whole))
    assert "not an update" in fails("update", bundle, update)


def test_an_update_in_another_compression_is_refused(
    bundle: Path, tmp_path: Path, fails: Fails
) -> None:
    update = tmp_path / "update.zip"
    with zipfile.ZipFile(update, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
    assert "a compression of its own" in fails("update", bundle, update)
