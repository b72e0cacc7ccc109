"""Which machine this is, what is installed on it, and where its user keeps caches."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

from mtl_edge.engines.cores import default_threads

__all__ = ["cache_folder", "describe", "version_of"]

CACHE = "MTL_EDGE_CACHE"
CPUINFO = Path("/proc/cpuinfo")
# What tells processors apart: x86 first, ARM after it. A virtual machine's model name alone is
# often that of a whole family.
MODEL = (
    "model name",
    "cpu family",
    "model",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
)
INSTRUCTIONS = ("flags", "Features")


def describe() -> dict[str, str | int]:
    """What decides how fast an engine is here: processor, its instructions, usable cores, system.

    The machine's name is not in it: equal machines share what was measured on one of them.
    """
    fields = _cpuinfo()
    flags = " ".join(
        sorted({flag for name in INSTRUCTIONS for flag in fields.get(name, "").split()})
    )
    return {
        "processor": _processor(fields),
        "instructions": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def version_of(package: str) -> str:
    """The installed version of what is imported as `package`; `unknown` if nothing says."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # Another distribution brings it, as onnxruntime-gpu does. This looks at all of them.
        names = sorted(set(metadata.packages_distributions().get(package, ())))
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) or "unknown"


def cache_folder() -> Path | None:
    """The user's folder for what this package can make anew; none: there is no home folder.

    `$MTL_EDGE_CACHE`, or the place that `platformdirs.user_cache_dir("mtl-edge")` names.
    """
    if given := os.environ.get(CACHE):
        return Path(given)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local, "mtl-edge", "mtl-edge", "Cache") if local else None
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        return Path(xdg, "mtl-edge")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        return None
    return Path(home, "Library/Caches" if sys.platform == "darwin" else ".cache", "mtl-edge")


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """Linux's description of the cores, each field with its distinct values; empty elsewhere."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:  # not Linux, or a sandbox without /proc
        return {}
    values: dict[str, dict[str, None]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), {})[value.strip()] = None
    return {name: ", ".join(sorted(found)) for name, found in values.items()}


def _processor(fields: dict[str, str]) -> str:
    if found := " / ".join(fields[name] for name in MODEL if fields.get(name)):
        return found
    return _apple() if sys.platform == "darwin" else platform.processor() or "unknown"


@functools.cache
def _apple() -> str:
    """The chip's name, as `Apple M2`; Python itself says `arm` of every one."""
    import subprocess

    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return platform.processor() or "unknown"
    return done.stdout.strip()
