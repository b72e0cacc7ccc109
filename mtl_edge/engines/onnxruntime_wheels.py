"""Which distribution of ONNX Runtime is installed: the CPU's, or the one with CUDA in its place.

`onnxruntime` and `onnxruntime-gpu` are two packages to pip that write the same files, the folder
`onnxruntime/`. Installed both, what is there is of whichever came last, and removing one breaks the
other.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtl_edge.errors import EngineError, MissingPackageError

__all__ = ["CUDA_PROVIDER", "CONFLICT", "both", "installed", "require_cuda"]

CUDA_PROVIDER = "CUDAExecutionProvider"
PLAIN, WITH_CUDA = "onnxruntime", "onnxruntime-gpu"
CURE = f"`pip uninstall {PLAIN} {WITH_CUDA}`, then `pip install {WITH_CUDA}`"
CONFLICT = (
    f"{PLAIN} and {WITH_CUDA} are both installed and have overwritten each other's files; for CUDA "
    f"{CURE}"
)


def installed() -> set[str]:
    """Those of the two distributions that pip knows to be installed."""
    from importlib import metadata  # it takes as long to import as all of this package

    found = set()
    for name in (PLAIN, WITH_CUDA):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
    return found


def both() -> bool:
    """Whether the two are in each other's way."""
    return installed() == {PLAIN, WITH_CUDA}


def require_cuda(device: str, known: Sequence[str]) -> None:
    """Check that what is installed of ONNX Runtime has CUDA.

    Args:
        device: that was asked for, to be named in errors.
        known: the providers that ONNX Runtime says it has.

    Raises:
        EngineError: both distributions are installed, or the one with CUDA does not find it.
        MissingPackageError: the one with CUDA is not installed.
    """
    found = installed()
    if both():
        raise EngineError(f"device {device!r} cannot be relied on: {CONFLICT}")
    if CUDA_PROVIDER in known:
        return
    here = ", ".join(name.removesuffix("ExecutionProvider") for name in known)
    if WITH_CUDA in found:
        raise EngineError(
            f"{WITH_CUDA} is installed, but ONNX Runtime has no device {device!r} here, only "
            f"{here}: the driver, CUDA or cuDNN is missing; `pip install "
            f"'{WITH_CUDA}[cuda,cudnn]'` brings the latter two"
        )
    raise MissingPackageError(
        f"this build of ONNX Runtime has no device {device!r}; it has {here}. CUDA comes with "
        f"{WITH_CUDA} in place of {PLAIN}: {CURE}"
    )
