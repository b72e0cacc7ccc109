"""The runtime is light: numpy, tokenizers and one engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = (
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "nncf",
    "pandas",
    "sklearn",
    "scipy",
    "tqdm",
    "safetensors",
    "mtl_edge.training",
    "mtl_edge.export",
    "mtl_edge.benchmarks",
)
PROGRAM = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # an import of it raises ImportError
from mtl_edge import EdgeClassifier
assert "onnxruntime" not in sys.modules and "openvino" not in sys.modules
print(EdgeClassifier.load({bundle!r}, engine={engine!r}).predict("a text")["topic"].label)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_runtime_works_where_nothing_else_is_installed(
    shared_bundle: Path, engine: str
) -> None:
    program = PROGRAM.format(blocked=BLOCKED, bundle=str(shared_bundle), engine=engine)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("food", "gadgets", "money", "travel")


def test_importing_loads_neither_torch_nor_transformers() -> None:
    program = "import sys, mtl_edge.cli; from mtl_edge import *; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime", "openvino", "pandas"}


def test_the_public_names_are_what_is_visible() -> None:
    import mtl_edge

    assert all(hasattr(mtl_edge, name) for name in mtl_edge.__all__)
