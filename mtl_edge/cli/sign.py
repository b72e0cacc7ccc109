"""`mtl-edge sign`: vouch for a bundle with a key."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mtl_edge.bundle import open_bundle
from mtl_edge.bundle.signing import sign
from mtl_edge.bundle.update import previous_of, write_update

__all__ = ["add_arguments", "run"]

PASSWORD = "MTL_EDGE_KEY_PASSWORD"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="private Ed25519 key (PEM), as of `openssl genpkey -algorithm ed25519`; its password, "
        f"if it has one, from the environment variable {PASSWORD}",
    )
    parser.add_argument(
        "--update",
        type=Path,
        metavar="FILE",
        help="also write the update that leads here from the version before, signature included",
    )


def run(args: argparse.Namespace) -> None:
    password = os.environ.get(PASSWORD)
    print(f"signature {sign(args.bundle, args.key, password.encode() if password else None)}")
    if args.update is not None:
        former = open_bundle(previous_of(args.bundle), verify="size")
        size = write_update(former, args.bundle, args.update)
        print(f"update {args.update}, {size / 1e6:.2f} MB")
