"""Signed bundles: who made a bundle, proven with a key, without a network.

The signature is Ed25519 (RFC 8032) over the bytes of `manifest.json`, 64 bytes in the file
`manifest.json.sig` beside it. The manifest lists the sha256 of every file, so that the signature
vouches for all of them once `open_bundle` has compared them. Keys are PEM files; openssl makes
them, and can check a signature, too:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
    openssl pkeyutl -verify -rawin -pubin -inkey key.pub -in manifest.json \\
        -sigfile manifest.json.sig

Why not the package model-signing, whose aim is the same: it brings 30 packages with clients for
networks among them, reads every file a second time, and lets the signature say which files are left
out. All that is needed from a library here is Ed25519, of `cryptography` (the extra `signing`).

What a signature does not say is that a bundle is the newest: an older one with the same key passes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_edge.bundle import manifest_bytes, open_bundle
from mtl_edge.bundle.safe_files import read_at_most
from mtl_edge.bundle.schema import SIGNATURE
from mtl_edge.errors import BundleError, MissingPackageError, OptionError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["SIGNATURE_BYTES", "is_signed", "require_signed", "sign", "verify_signature"]

SIGNATURE_BYTES = 64
MOST_KEY_BYTES = 2**16


def is_signed(bundle: Path) -> bool:
    """Whether there is a signature, right or wrong."""
    return os.path.lexists(bundle / SIGNATURE)


def sign(bundle: str | Path, private_key: str | Path, password: bytes | None = None) -> Path:
    """Sign a bundle, once every file of it is as the manifest says.

    Args:
        private_key: a PEM file with an Ed25519 key.
        password: of that file, if it has one.

    Returns:
        The signature's file; one that was there is replaced.

    Raises:
        BundleError: the bundle is missing, incomplete or altered.
        OptionError: the file holds no such key, or the password does not open it.
        MissingPackageError: the extra `signing` is not installed.
    """
    key = _private(Path(private_key), password)
    folder = Path(bundle)
    data = manifest_bytes(folder)
    open_bundle(folder)
    target = folder.resolve() / SIGNATURE
    partial = target.with_name(f".{SIGNATURE}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(key.sign(data))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def verify_signature(bundle: str | Path, public_key: str | Path) -> None:
    """Check that a bundle's manifest was signed with the key that belongs to this one.

    Its files are not looked at, and the manifest may be another when it is next read: where a
    bundle is to be used, `open_bundle(bundle, public_key=...)` checks all of it at once.

    Raises:
        BundleError: no bundle, no signature, or not by that key.
        OptionError: the file holds no such key.
        MissingPackageError: the extra `signing` is not installed.
    """
    require_signed(Path(bundle), manifest_bytes(Path(bundle)), Path(public_key))


def require_signed(folder: Path, manifest: bytes, public_key: Path) -> None:
    """As `verify_signature`, for the bytes of a manifest that was read already."""
    key = _public(public_key)
    if not is_signed(folder):
        raise BundleError(
            f"{folder} is not signed: expected {SIGNATURE} in it; get the signed bundle, or "
            "sign it with `mtl-edge sign` if it is yours"
        )
    signature = read_at_most(folder.resolve(), SIGNATURE, SIGNATURE_BYTES)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise BundleError(
            f"{folder} is not signed with the key of {public_key}, or was altered since; do not "
            "use it: get it again from whoever signs it"
        ) from None


def _private(file: Path, password: bytes | None) -> Ed25519PrivateKey:
    _require_package()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _key_bytes(file)
    try:
        key = load_pem_private_key(data, password)
    except TypeError as error:  # a password where there is none, or none where there is one
        raise OptionError(f"{file}: {error}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(file, "private", password) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(file, "private", password)
    return key


def _public(file: Path) -> Ed25519PublicKey:
    _require_package()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_key_bytes(file))
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(file, "public", None) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(file, "public", None)
    return key


def _key_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MOST_KEY_BYTES)
    except OSError as error:
        raise OptionError(f"cannot read the key {file}: {error.strerror}; give a file") from None


def _no_key(file: Path, kind: str, password: bytes | None) -> OptionError:
    wrong = "or the password is wrong" if password else "as `openssl genpkey` makes it"
    return OptionError(f"{file} holds no {kind} Ed25519 key in PEM, {wrong}; give another file")


def _require_package() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "signatures need the package cryptography; install it with "
            "`pip install 'mtl-edge[signing]'`"
        ) from None
