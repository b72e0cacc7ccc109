"""A graph in ONNX Runtime's own format, and the operators that it needs.

    model.int8.ort                          the graph, optimised and with all its weights
    model.int8.required_operators.config    what `build.py --include_ops_by_config` of ONNX Runtime
                                            takes to build a runtime of a few MB, without the rest

A minimal build of ONNX Runtime opens this format only. The format has no external data: the file
is as large as the ONNX graph and the files of its weights together, replaces all of them, and has
to be written anew when heads are replaced. Any other build of the same release or a later one opens
it as well.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.tools.convert_onnx_models_to_ort import (
    OptimizationStyle,
    convert_onnx_models_to_ort,
)

from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError
from mtl_edge.export.graphs.capture import INPUTS

__all__ = ["names_of", "write_ort"]

TOLERANCE = 1e-4  # of a logit; the same operators in the same order differ by rounding, if at all


def names_of(graph: str) -> tuple[str, str]:
    """Names of the files that `write_ort` writes for the graph of this name."""
    stem = graph.removesuffix(".onnx")
    return f"{stem}.ort", f"{stem}.required_operators.config"


def write_ort(folder: Path, graph: str, library: Path | None = None) -> tuple[str, str]:
    """Write an ONNX graph of `folder` in ONNX Runtime's format, and its operators, beside it.

    Args:
        graph: file of the graph; its weights may be in files of their own.
        library: of operators that are not ONNX Runtime's own, as text in the graph needs.

    Returns:
        Names of the two files.

    Raises:
        ExportError: ONNX Runtime cannot convert the graph, or its logits are others afterwards.
    """
    names = names_of(graph)
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress there
                convert_onnx_models_to_ort(
                    folder / graph,
                    Path(work),
                    [OptimizationStyle.Fixed],
                    custom_op_library_path=library,
                )
        except Exception as error:  # its exceptions share no base class
            raise ExportError(
                f"ONNX Runtime cannot write {graph} in its own format ({error}); leave out --ort"
            ) from error
        for name in names:
            (folder / name).write_bytes((Path(work) / name).read_bytes())
    _name_the_graph_only(folder / names[1], names[0])
    if library is None:
        _require_same_logits(folder / graph, folder / names[0])
    return names


def _name_the_graph_only(config: Path, name: str) -> None:
    """Take out where the graph was when it was converted."""
    lines = config.read_text(encoding="utf-8").splitlines()
    kept = [f"# - {name}" if line.startswith("# - ") else line for line in lines]
    config.write_text("\n".join(kept) + "\n", encoding="utf-8")


def _require_same_logits(graph: Path, converted: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, (4, 24))
    mask = (np.arange(24) < np.array([[24], [17], [5], [3]])).astype(np.int64)
    for expected, got in zip(_run(graph, ids, mask), _run(converted, ids, mask), strict=True):
        difference = np.abs(expected - got).max()
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{converted.name} is not faithful: its logits differ by up to {difference:.2g} "
                f"from those of {graph.name}, expected at most {TOLERANCE}; leave out --ort and "
                "report it with the versions of your packages"
            )


def _run(
    file: Path, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    options = session_options(exact=False)  # the format has no exact sums, where a CPU lacks them
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    outputs: list[npt.NDArray[np.float32]] = session.run(
        None, dict(zip(INPUTS, (ids, mask), strict=True))
    )
    return outputs
