"""A signed bundle is its maker's, to the last byte, and so is each version that follows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mtl_edge.bundle import MANIFEST, open_bundle, read_manifest, write_manifest
from mtl_edge.bundle.schema import SIGNATURE
from mtl_edge.bundle.signing import sign, verify_signature
from mtl_edge.bundle.update import apply_update, previous_of, restore, write_update
from mtl_edge.cli import main
from mtl_edge.errors import BundleError, MissingPackageError, OptionError

Fails = Callable[..., str]


def keys(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Files of a new private key and of the public key that belongs to it."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        lock = serialization.BestAvailableEncryption(password)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, lock))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, spki))
    return private, public


def test_a_signed_bundle_is_its_maker_s_and_nobody_else_s(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    _, other = keys(tmp_path, "other")
    assert sign(bundle, private) == bundle / SIGNATURE
    verify_signature(bundle, public)
    assert open_bundle(bundle, public_key=public).manifest == open_bundle(bundle).manifest
    with pytest.raises(BundleError, match="not signed with the key"):
        open_bundle(bundle, public_key=other)


def test_what_was_changed_since_is_found(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    sign(bundle, private)
    signature = (bundle / SIGNATURE).read_bytes()
    manifest = (bundle / MANIFEST).read_bytes()
    for damaged in (signature[:-1], bytes(64), signature[::-1]):
        (bundle / SIGNATURE).write_bytes(damaged)
        with pytest.raises(BundleError, match="not signed with the key"):
            open_bundle(bundle, public_key=public)
    (bundle / SIGNATURE).write_bytes(signature + b"x")
    with pytest.raises(BundleError, match="larger than 64 bytes"):
        open_bundle(bundle, public_key=public)
    (bundle / SIGNATURE).write_bytes(signature)
    (bundle / MANIFEST).write_bytes(manifest + b" ")
    with pytest.raises(BundleError, match="altered since"):
        open_bundle(bundle, public_key=public)
    (bundle / MANIFEST).write_bytes(manifest)
    (bundle / "README.md").write_bytes((bundle / "README.md").read_bytes()[::-1])
    with pytest.raises(BundleError, match="sha256 differs"):
        open_bundle(bundle, public_key=public)
    with pytest.raises(OptionError, match="verify='full'"):
        open_bundle(bundle, public_key=public, verify="size")
    with pytest.raises(BundleError, match="sha256 differs"):
        sign(bundle, private)


def test_a_new_manifest_takes_the_old_signature_away(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    sign(bundle, private)
    write_manifest(bundle, read_manifest(bundle))
    assert not (bundle / SIGNATURE).exists()
    with pytest.raises(BundleError, match="is not signed"):
        open_bundle(bundle, public_key=public)


def test_openssl_checks_the_signature_too(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    private, public = keys(tmp_path, "maker")
    sign(bundle, private)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(public)]
    command += ["-in", str(bundle / MANIFEST), "-sigfile", str(bundle / SIGNATURE)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_what_is_no_key_says_so(bundle: Path, tmp_path: Path, fails: Fails) -> None:
    private, public = keys(tmp_path, "maker")
    assert "holds no private Ed25519 key" in fails("sign", bundle, "--key", public)
    assert "cannot read the key" in fails("sign", bundle, "--key", tmp_path / "missing")
    other = tmp_path / "other.pem"
    other.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    assert "holds no private Ed25519 key" in fails("sign", bundle, "--key", other)
    with pytest.raises(OptionError, match="holds no public Ed25519 key"):
        verify_signature(bundle, private)
    assert not (bundle / SIGNATURE).exists()


def test_a_key_with_a_password_is_opened_with_it(
    bundle: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys(tmp_path, "maker", b"secret")
    assert "password" in fails("sign", bundle, "--key", private).lower()
    monkeypatch.setenv("MTL_EDGE_KEY_PASSWORD", "wrong")
    assert "password is wrong" in fails("sign", bundle, "--key", private)
    monkeypatch.setenv("MTL_EDGE_KEY_PASSWORD", "secret")
    assert main(["sign", str(bundle), "--key", str(private)]) == 0
    verify_signature(bundle, public)


def test_without_the_package_the_extra_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, public = keys(tmp_path, "maker")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingPackageError, match=r"mtl-edge\[signing\]"):
        open_bundle(bundle, public_key=public)


def next_version(bundle: Path, tmp_path: Path) -> Path:
    """The bundle as its maker has it, one version on, and not signed."""
    maker = Path(shutil.copytree(bundle, tmp_path / "maker" / bundle.name))
    shutil.copytree(bundle, previous_of(maker))
    manifest = read_manifest(maker)
    manifest.versions["mtl-edge"] = "next"
    (maker / "README.md").write_text("the next version")
    write_manifest(maker, manifest)
    return maker


def test_an_update_of_a_signed_bundle_brings_its_signature(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    sign(bundle, private)
    maker = next_version(bundle, tmp_path)
    update = tmp_path / "update.zip"
    with pytest.raises(BundleError, match="mtl-edge sign"):
        write_update(open_bundle(previous_of(maker)), maker, update)
    assert main(["sign", str(maker), "--key", str(private), "--update", str(update)]) == 0
    command = ["update", str(bundle), str(update), "--public-key", str(public)]
    assert main(command) == 0
    assert open_bundle(bundle, public_key=public).manifest.versions["mtl-edge"] == "next"
    restored = restore(bundle, public_key=public)
    assert restored.manifest.versions["mtl-edge"] != "next"
    verify_signature(bundle, public)


def test_an_update_without_a_right_signature_is_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    other, _ = keys(tmp_path, "other")
    sign(bundle, private)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    maker = next_version(bundle, tmp_path)
    sign(maker, other)
    update, unsigned = tmp_path / "update.zip", tmp_path / "unsigned.zip"
    write_update(open_bundle(bundle), maker, update)
    with pytest.raises(BundleError, match="not signed with the key"):
        apply_update(bundle, update, public_key=public)
    with zipfile.ZipFile(update) as source, zipfile.ZipFile(unsigned, "w") as out:
        for name in source.namelist():
            if name != SIGNATURE:
                out.writestr(name, source.read(name))
    for key in (public, None):
        with pytest.raises(BundleError, match="brings no signature"):
            apply_update(bundle, unsigned, public_key=key)
    with zipfile.ZipFile(unsigned, "a") as out:
        out.writestr(SIGNATURE, b"short")
    with pytest.raises(BundleError, match="does not list so"):
        apply_update(bundle, unsigned)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_bundle_that_lists_its_own_signature_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"].append({"path": SIGNATURE, "size": 64, "sha256": "0" * 64})
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot be listed"):
        open_bundle(bundle)


def test_info_and_predict_ask_for_a_signature(
    bundle: Path, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys(tmp_path, "mine")
    _, other = keys(tmp_path, "other")
    for command in (["info", bundle], ["predict", bundle, "a text"]):
        assert "is not signed" in fails(*command, "--public-key", public)
    sign(bundle, private)
    for command in (["info", bundle], ["predict", bundle, "a text"]):
        assert main([*map(str, command), "--public-key", str(public)]) == 0
        assert "was altered since" in fails(*command, "--public-key", other)
    capsys.readouterr()
    assert main(["info", str(bundle)]) == 0
    assert "signed; by whom, --public-key tells" in capsys.readouterr().out
