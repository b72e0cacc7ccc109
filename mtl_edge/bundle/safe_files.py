"""Opening files of a bundle that a stranger may have made: regular files within its folder only.

What the Hub's client downloads is a folder of links into another one beside it:

    models--ORGANISATION--NAME/snapshots/REVISION/model.int8.onnx -> ../../blobs/HASH

Such links, and no others that lead out, are followed.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
from pathlib import Path, PurePosixPath

from mtl_edge.errors import BundleError

__all__ = [
    "altered",
    "open_regular",
    "read_at_most",
    "require_portable",
    "require_unaltered",
    "resolved",
]

# Do not follow a link that was put there since it was resolved, nor wait for a pipe's writer.
# Systems that lack a flag lack what it guards against.
_FLAGS = ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")

# ONNX Runtime's operator for a compiled graph; its file is opened by the device's own code.
COMPILED = b"EPContext"

REPOSITORIES = ("models--", "datasets--", "spaces--")  # as the Hub's cache names their folders


def altered(what: str) -> BundleError:
    """The error for a bundle that is not what it says it is."""
    return BundleError(f"{what}; the bundle is incomplete or altered: copy or export it again")


def resolved(root: Path, name: str) -> Path:
    """The real path of a bundle's file.

    Args:
        root: the bundle's folder, resolved.
        name: relative to it, with slashes.

    Raises:
        BundleError: it is missing, or it is a link that leads out of the folder, and not to where
            the Hub's cache keeps the folder's files.
    """
    path = root / PurePosixPath(name)
    try:
        real = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise altered(f"{path} is missing") from None
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a name too long
        raise altered(f"{path} cannot be found ({error})") from None
    if not real.is_relative_to(root) and real.parent != _blobs(root):
        raise altered(f"{name!r} leads out of the bundle {root}")
    return real


def _blobs(root: Path) -> Path | None:
    """Where the Hub's cache keeps the files of a folder in it."""
    for folder in (root, *root.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(REPOSITORIES):
            return repository / "blobs"
    return None


def open_regular(root: Path, name: str) -> io.BufferedReader:
    """A bundle's file, open for reading; never a folder, pipe, socket or device.

    Raises:
        BundleError: it is missing, leads out, or is something else than a file.
    """
    real = resolved(root, name)
    try:
        _require_regular(real, os.lstat(real).st_mode)  # to open a device may set it going
        flags = os.O_RDONLY
        for flag in _FLAGS:
            flags |= getattr(os, flag, 0)
        number = os.open(real, flags)
    except OSError as error:
        raise altered(f"{real} cannot be read ({error.strerror})") from None
    try:
        _require_regular(real, os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_at_most(root: Path, name: str, most: int) -> bytes:
    """All bytes of a bundle's file, if there are at most `most`.

    Raises:
        BundleError: as `open_regular`; or it is larger.
    """
    with open_regular(root, name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise altered(f"{root / name} is larger than {most:,} bytes, the most that is read of it")
    return data


def require_unaltered(root: Path, name: str, size: int, sha256: str | None) -> None:
    """Compare a file's size and sha256 with the manifest's.

    Args:
        sha256: hexadecimal; None: only the size is compared.

    Raises:
        BundleError: as `open_regular`; or size or content differ.
    """
    with open_regular(root, name) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise altered(f"{root / name} has {found:,} bytes, and the manifest says {size:,}")
        if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise altered(
                f"{root / name} is not the file that the manifest describes (sha256 differs)"
            )


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise altered(f"{path} is not a regular file")


def require_portable(root: Path, name: str) -> None:
    """Refuse an ONNX graph that was compiled for one device, and names a file for it to load.

    Args:
        root: the bundle's folder, resolved.
        name: of the graph's file, relative to it.

    Raises:
        BundleError: the graph has such an operator.
    """
    with open_regular(root, name) as file:
        if os.fstat(file.fileno()).st_size == 0:  # cannot be mapped
            raise altered(f"{root / name} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(COMPILED) >= 0:
                raise altered(f"{root / name} was compiled for one device, whose file it names")
