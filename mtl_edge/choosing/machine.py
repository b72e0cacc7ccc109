"""Which machine this is, what is installed on it, and where its user keeps caches."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

from mtl_edge.engines.cores import default_threads

__all__ = ["cache_folder", "describe", "version_of"]

CPUINFO = Path("/proc/cpuinfo")
# What tells processors apart: x86 first, ARM after it. A virtual machine's model name alone is
# often that of a whole family.
MODEL = ("model name", "cpu family", "model",
         "CPU implementer", "CPU architecture", "CPU variant", "CPU part")  # fmt: skip
APPLE = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")


def describe() -> dict[str, str | int]:
    """What decides how fast an engine is here: processor, its instructions, usable cores, system.

    The machine's name is not in it: equal machines share what was measured on one of them.
    """
    fields = _cpuinfo()
    model = [", ".join(sorted(fields[name])) for name in MODEL if any(fields.get(name, ()))]
    flags = {flag for name in ("flags", "Features") for value in fields.get(name, ())
             for flag in value.split()}  # fmt: skip
    return {
        "processor": " / ".join(model) or _processor(),
        "instructions": hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16],
        "cores": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


@functools.cache
def _cpuinfo() -> dict[str, set[str]]:
    """Linux's description of the cores: each field with its distinct values; empty elsewhere."""
    fields: dict[str, set[str]] = {}
    with contextlib.suppress(OSError):  # not Linux, or a sandbox without /proc
        for line in CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), set()).add(value.strip())
    return fields


def _processor() -> str:
    """The processor's name where there is no /proc; on a Mac, Python says `arm` of every one."""
    if sys.platform == "darwin":
        import subprocess

        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(APPLE, capture_output=True, text=True, timeout=5, check=True)
            return done.stdout.strip()
    return platform.processor() or "unknown"


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
    """The user's folder for what this package can make anew; None: there is no home folder.

    `$MTL_EDGE_CACHE`, or the place that `platformdirs.user_cache_dir("mtl-edge")` names.
    """
    if given := os.environ.get("MTL_EDGE_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local, "mtl-edge", "mtl-edge", "Cache") if local else None
    xdg, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if os.path.isabs(xdg):
        return Path(xdg, "mtl-edge")
    if not os.path.isabs(home):
        return None
    return Path(home, "Library/Caches" if sys.platform == "darwin" else ".cache", "mtl-edge")
