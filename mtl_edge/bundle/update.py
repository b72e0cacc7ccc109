"""New versions of a bundle: the same encoder, other heads.

An update is a zip of the files that differ from the version before, the manifest among them. A new
version takes the place of the old by rename, and the old version stays beside it as
`BUNDLE.previous`, to which `restore` goes back. What a kill in between leaves is put right by the
next of these calls.

A signature (see `mtl_edge.bundle.signing`) is of one manifest, so that a new version needs a new
one, which an update brings along.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from mtl_edge.bundle import MANIFEST, Bundle, open_bundle, read_manifest
from mtl_edge.bundle.schema import MOST_MANIFEST_BYTES, SIGNATURE
from mtl_edge.bundle.signing import SIGNATURE_BYTES, is_signed
from mtl_edge.errors import BundleError
from mtl_edge.io.folders import exchange, recover, staged_folder

__all__ = ["apply_update", "new_version", "previous_of", "restore", "write_update"]

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What `zipfile` raises for bytes that are no zip, or one cut short or altered.
NO_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error)


def previous_of(bundle: Path) -> Path:
    """Where the version before is kept: beside the folder itself, if `bundle` is a link to it."""
    absolute = bundle.resolve()
    return absolute.with_name(f"{absolute.name}.previous")


@contextlib.contextmanager
def new_version(bundle: Path, without: Collection[str]) -> Iterator[Path]:
    """Yield a folder with the bundle's files that becomes the bundle when the block succeeds.

    Files that the manifest does not list stay behind in the old version.

    Args:
        without: files that the block will write anew.
    """
    with staged_folder(bundle, overwrite=True, keep=previous_of(bundle)) as stage:
        for entry in read_manifest(bundle).files:
            if entry.path not in without:
                (stage / entry.path).parent.mkdir(parents=True, exist_ok=True)
                # No link: onnx's tools refuse those.
                shutil.copy2(bundle / entry.path, stage / entry.path)
        yield stage


def write_update(former: Bundle, bundle: Path, file: Path) -> int:
    """Zip what leads from `former` to the version at `bundle`.

    Returns:
        Its size in bytes.

    Raises:
        BundleError: the version at `bundle` is not signed and `former` is, so that no bundle of
            that version would take the update.
    """
    signed = is_signed(bundle)
    if is_signed(former.path) and not signed:
        raise BundleError(
            f"{bundle} is not signed and the version before is, whose bundles take no update "
            f"without a signature; `mtl-edge sign {bundle} --key KEY --update {file}` writes it"
        )
    known = {entry.path: entry.sha256 for entry in former.manifest.files}
    entries = open_bundle(bundle).manifest.files
    changed = [entry.path for entry in entries if known.get(entry.path) != entry.sha256]
    partial = file.with_name(f".{file.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in (MANIFEST, *([SIGNATURE] if signed else []), *changed):
                archive.write(bundle / name, name)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file.stat().st_size


def apply_update(
    bundle: str | Path, update: str | Path, *, public_key: str | Path | None = None
) -> Bundle:
    """Bring a bundle to the version that an update leads to.

    Every file, old or new, is checked against the new manifest before the new version takes the
    place of the old; a failure leaves the bundle as it was.

    Args:
        public_key: file of the key that the new version must be signed with.

    Raises:
        BundleError: the bundle or the update is missing, cut short or altered, they do not belong
            together, or the bundle is signed and the update is not, or not with that key.
    """
    _recover(bundle)
    former = open_bundle(bundle, verify="size")
    with new_version(former.path, without={MANIFEST}) as stage:
        try:
            with zipfile.ZipFile(update) as archive:
                _unpack(archive, stage)
        except FileNotFoundError:
            raise BundleError(f"{update} is not there; give a file of `export --update`") from None
        except BundleError:
            raise
        except (*NO_ZIP, OSError) as error:
            # `zipfile` goes where the file says, were it before its start; other failures of the
            # system, as a full disk, are not the update's fault.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise BundleError(
                f"{update} is not an update of a bundle ({error}); copy or make it again"
            ) from None
        if is_signed(former.path) and not is_signed(stage):
            raise BundleError(
                f"{bundle} is signed and {update} brings no signature; get the update that its "
                "maker signed (`mtl-edge sign --update` writes it)"
            )
        new = open_bundle(stage, public_key=public_key)
        listed = {entry.path for entry in new.manifest.files}
        for path in stage.rglob("*"):
            name = path.relative_to(stage).as_posix()
            if path.is_file() and name not in {MANIFEST, SIGNATURE, *listed}:
                path.unlink()
    return open_bundle(bundle, verify="size")


def _unpack(archive: zipfile.ZipFile, stage: Path) -> None:
    """Write the files that the update's own manifest lists, at the sizes that it says."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if MANIFEST not in entries or entries[MANIFEST].file_size > MOST_MANIFEST_BYTES:
        raise BundleError(f"{archive.filename} is not an update of a bundle: no {MANIFEST} in it")
    if strange := [e.filename for e in entries.values() if e.compress_type not in COMPRESSIONS]:
        raise BundleError(
            f"{archive.filename} has {strange[0]!r} in a compression of its own; make it again"
        )
    (stage / MANIFEST).write_bytes(archive.read(MANIFEST))
    sizes = {entry.path: entry.size for entry in read_manifest(stage).files}
    sizes[SIGNATURE] = SIGNATURE_BYTES
    free = shutil.disk_usage(stage).free
    if sum(entry.file_size for entry in entries.values()) > free:
        raise BundleError(
            f"{archive.filename} unpacks to more than the {free:,} bytes that are free; make room"
        )
    for name, entry in entries.items():
        if name == MANIFEST:
            continue
        if entry.file_size != sizes.get(name) or Path(name).name != name:
            raise BundleError(
                f"{archive.filename} holds {name!r}, which its manifest does not list so; make the "
                "update again"
            )
        with archive.open(entry) as source, (stage / name).open("wb") as out:
            shutil.copyfileobj(source, out)


def restore(bundle: str | Path, *, public_key: str | Path | None = None) -> Bundle:
    """Go back to the version before; doing it twice goes forth again.

    Args:
        public_key: file of the key that the version before must be signed with.

    Raises:
        BundleError: there is none, or it is incomplete or altered, or not signed with that key.
    """
    _recover(bundle)
    path = Path(bundle).resolve()
    former = previous_of(path)
    if not former.is_dir():
        raise BundleError(f"{path} has no version before it: expected {former}")
    open_bundle(former, public_key=public_key)
    exchange(path, former)
    return open_bundle(path, verify="size")


def _recover(bundle: str | Path) -> None:
    path = Path(bundle).resolve()
    recover(path, previous_of(path))
