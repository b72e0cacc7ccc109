"""An environment of its own for every way to do the job, made once and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mtl_edge.errors import OptionError

__all__ = ["Environment", "EnvironmentFailedError", "build_wheel", "make"]

STAMP = "installed.json"
LINES_OF_AN_ERROR = 12
SECONDS = 1800  # torch's wheels are large, and networks slow
SOURCES = ("mtl_edge", "training", "export", "benchmarks")
BESIDE = ("pyproject.toml", "README.md", "LICENSE")


class EnvironmentFailedError(Exception):
    """An environment that cannot be made; holds the last lines that the installer said."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment as it lies on disk.

    Attributes:
        size: bytes that were installed, compiled Python files left out.
        packages: the version of each.
        made_from: a checksum of its requirements.
    """

    python: str
    size: int
    packages: dict[str, str]
    made_from: str


def make(
    name: str, requirements: Sequence[str], work: Path, without: Sequence[str] = ()
) -> Environment:
    """The environment `name` under `work`, made anew only if its requirements changed.

    The stamp that says what it was made from is written last, so that an environment that was cut
    short is not taken for a whole one.

    Args:
        without: packages to remove again, which a requirement names and nothing here uses.

    Raises:
        EnvironmentFailedError: something cannot be installed.
    """
    folder = work / "environments" / name
    stamp = folder / STAMP
    wanted = _digest([*requirements, *(f"without {package}" for package in without)])
    if stamp.is_file():
        found = json.loads(stamp.read_text())
        if found.get("made_from") == wanted:
            return Environment(**found)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {name}: {' '.join(requirements)}", file=sys.stderr, flush=True)
    python = folder / "bin" / "python"
    _run([sys.executable, "-m", "venv", str(folder)])
    empty = _size(folder)
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-compile", *requirements])
    if without:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *without])
    listed = json.loads(_run([str(python), "-m", "pip", "list", "--format", "json"]))
    made = Environment(
        python=str(python),
        size=_size(folder) - empty,
        packages={
            package["name"]: package["version"]
            for package in listed
            if package["name"] not in ("pip", "setuptools") or package["name"] in requirements
        },
        made_from=wanted,
    )
    stamp.write_text(json.dumps(asdict(made), indent=1) + "\n")
    return made


def build_wheel(work: Path) -> Path:
    """A wheel of this repository, built anew only if its sources changed.

    It is built from a copy, since a build leaves folders beside the sources.

    Raises:
        OptionError: this is not run from a clone.
        EnvironmentFailedError: the build failed.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise OptionError(
            f"there is no pyproject.toml in {root}: expected a clone of the repository, of which a "
            "wheel is built; clone it and install it with `pip install -e '.[bench]'`"
        )
    files = sorted(
        path
        for part in (*SOURCES, *BESIDE)
        for path in ([root / part] if (root / part).is_file() else (root / part).rglob("*"))
        if path.is_file() and path.suffix in (".py", ".toml", ".md", ".csv", ".typed", "")
    )
    digest = hashlib.sha256()
    for path in files:
        if path.is_relative_to(root / "mtl_edge") or path.name == "pyproject.toml":
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    target = work / "wheels" / digest.hexdigest()[:16]
    if not (built := sorted(target.glob("*.whl"))):
        with tempfile.TemporaryDirectory(prefix="mtl-edge-") as copy:
            for path in files:
                to = Path(copy) / path.relative_to(root)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
            out = Path(copy) / "out"
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
            _run([*command, "--wheel-dir", str(out), copy])
            target.mkdir(parents=True, exist_ok=True)
            for wheel in out.glob("*.whl"):
                shutil.copyfile(wheel, target / f".{wheel.name}")
                (target / f".{wheel.name}").rename(target / wheel.name)
        built = sorted(target.glob("*.whl"))
    return built[0]


def _digest(requirements: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([sys.version, *requirements]).encode()).hexdigest()


def _run(command: Sequence[str]) -> str:
    """What the command printed.

    Raises:
        EnvironmentFailedError: it failed or took too long.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailedError(
            f"{' '.join(command[2:6])}: not done after {SECONDS} s"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EnvironmentFailedError(
            "\n".join(said[-LINES_OF_AN_ERROR:]) or f"exit {done.returncode}"
        )
    return done.stdout


def _size(folder: Path) -> int:
    packages = next(folder.glob("lib*/python*/site-packages"))
    return sum(
        path.stat().st_size
        for path in packages.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )
